"""`dfkd-bench robustness`: the students of finished runs on corrupted test images."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import DATA_DIR, OF_PROTOCOL, RESULTS, Terms, of_terms
from dfkd_bench.errors import UsageError
from dfkd_bench.utils.text import counted

EPILOG = """\b
Examples:
  dfkd-bench robustness
  dfkd-bench robustness --results results --budget standard
  dfkd-bench robustness --corruption fog --corruption contrast --severity 3
"""


@click.command(epilog=EPILOG)
@RESULTS
@of_terms(OF_PROTOCOL)
@click.option("-m", "--method", "methods", multiple=True, metavar="NAME", help="This method only. Repeatable.")
@click.option(
    "-c", "--corruption", "corruptions", multiple=True, metavar="NAME", help="This one only. Repeatable. Default: all."
)
@click.option(
    "--severity", "severities", multiple=True, type=click.IntRange(1, 5), metavar="1-5",
    help="This one only. Repeatable. Default: all.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, metavar="N", help="CPU threads.")
@click.option("--force", is_flag=True, help="Measure again what robustness.csv holds.")
@DATA_DIR
def command(
    terms: Terms, results: Path, methods: tuple[str, ...], corruptions: tuple[str, ...], severities: tuple[int, ...],
    device: str, threads: int, force: bool,
) -> None:  # fmt: skip
    """Evaluate stored students and their teachers under common corruptions of the test images.

    Twelve corruptions in five severities, those published for CIFAR-10-C as far as they need no photographs: noise,
    blur, weather, digital. Writes robustness.csv beside the records, and goes on there when stopped.
    """
    from rich.console import Console

    from dfkd_bench.cli.live import counting
    from dfkd_bench.report.tables.robustness import sections, show
    from dfkd_bench.report.tables.runs import some_results
    from dfkd_bench.runs.plan import pick_device
    from dfkd_bench.studies.robustness import FILE, chosen, measure, sites
    from dfkd_bench.utils.device import configure_device

    cells = chosen(corruptions, severities)
    runs = terms.of(some_results(results), f"below {results}", methods)
    where, left_out = sites(runs)
    for line in left_out:
        click.echo(f"left out: {line}", err=True)
    if not where:
        raise UsageError("there is no student to evaluate, for the reasons above")
    with counting("students") as progress:
        measured = measure(results, where, cells, configure_device(pick_device(device), threads), force, progress)
    console = Console()
    show(console, sections(results, runs))
    says = f"{counted(sum(len(site.runs) for site in where), 'student')}, {counted(measured, 'evaluation')} now"
    console.print(f"{says}; in full: {results / FILE}", markup=False, highlight=False)
