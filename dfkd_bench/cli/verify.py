"""`dfkd-bench verify`: records, students, tables and archives against each other, every difference named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfkd_bench.cli.options import DATA_DIR, PATH, results_of
from dfkd_bench.utils.text import counted

if TYPE_CHECKING:
    from dfkd_bench.results.verify import Report

EPILOG = """\b
Examples:
  dfkd-bench verify --results results
  dfkd-bench verify --results results --docs BENCHMARKS.md --docs docs
  dfkd-bench verify --results runs --quick
  dfkd-bench verify exported.zip
"""


@click.command(epilog=EPILOG)
@results_of("[ARCHIVE]")
@click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE", help="auto (each record's own), cpu, cuda."
)
@click.option("--quick", is_flag=True, help="Digests and stored predictions alone; no student is evaluated again.")
@click.option(
    "--docs", multiple=True, type=PATH, metavar="FILE",
    help="A document whose tables come from these records, or a folder of them. Repeatable.",
)  # fmt: skip
@DATA_DIR
@click.pass_context
def command(ctx: click.Context, results: Path, device: str, quick: bool, docs: tuple[Path, ...]) -> None:
    """Evaluate stored students again, and compare every number, digest, manifest and table with what is recorded.

    What is verified: a results folder, the folder of one run, or an archive of `dfkd-bench export`. The exit status
    is 1 if anything is not as recorded; notes say what could not be looked at here.
    """
    if not results.exists():
        from dfkd_bench.errors import UsageError

        raise UsageError(f"no results folder or archive at {results}")

    from dfkd_bench.cli.live import counting
    from dfkd_bench.results.verify import verify, verify_archive
    from dfkd_bench.runs.plan import pick_device

    if device != "auto":
        pick_device(device)
    with counting("records") as progress:
        if results.is_dir():
            report = verify(results, device=device, quick=quick, docs=docs, progress=progress)
        else:
            report = verify_archive(results, device=device, quick=quick, docs=docs, progress=progress)
    show(report)
    ctx.exit(1 if report.problems else 0)


def show(report: Report) -> None:
    """Each problem on its line, notes of one kind together, and a closing line."""
    alike: dict[str, list[str]] = {}
    for finding in report.notes:
        alike.setdefault(finding.what, []).append(finding.file)
    for what, files in alike.items():
        click.echo(
            f"note: {files[0]}: {what}" if len(files) == 1 else f"note: {len(files)} files: {what} ({files[0]}, ...)"
        )
    for finding in report.problems:
        click.echo(f"problem: {finding}")
    click.echo(f"{looked_at(report)}: {verdict(report)}")


def looked_at(report: Report) -> str:
    """What was looked at, in numbers."""
    parts = [counted(report.records, "record")]
    if report.students:
        exact = "" if report.exact == report.students else f" ({report.exact} bit for bit, the others within rounding)"
        parts.append(f"{counted(report.students, 'student')} evaluated again{exact}")
    if report.renderings:
        parts.append(counted(len(report.renderings), "rendering"))
    return ", ".join(parts)


def verdict(report: Report) -> str:
    """How it ended."""
    return counted(len(report.problems), "problem") if report.problems else "all as recorded"
