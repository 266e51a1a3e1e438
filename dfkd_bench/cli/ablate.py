"""`dfkd-bench ablate`: vary settings of a method one at a time; table, CSV and figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import DATA_DIR, PATH, RESULTS_WRITTEN, engine_options, setting_options
from dfkd_bench.errors import RunError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_bench.studies.ablation import Point, Row

EPILOG = """\b
Examples:
  dfkd-bench ablate --method NAME --vary key=1,2,5 --seeds 0-2
  dfkd-bench ablate --method NAME --vary preset=a,b --vary with=none,A,A+B --jobs 2
  dfkd-bench ablate --method NAME --with ADDON --vary ADDON.key=0.9,0.99
  dfkd-bench ablate --redraw runs/ablation-NAME.csv --out figure
"""


@click.command(epilog=EPILOG)
@click.option("-m", "--method", metavar="NAME", help="A method, or file.py:Class.")
@click.option(
    "--vary", multiple=True, metavar="NAME=VALUE,...", help="A setting, preset, or with (A+B, none). Repeatable."
)
@click.option("-t", "--task", metavar="TASK", help="dataset/teacher-student.")
@setting_options(
    "seeds", "preset", "addons", "overrides", without=("methods", "tasks", "compile"),
    seeds={"default": "0-2", "show_default": True, "help": "0, 0-4 or 0,2,5."},
    preset={"help": "The preset around which to vary. Default: the method's own."},
    addons={"help": "An add-on in all runs. Repeatable."}, overrides={"help": "A setting of all runs. Repeatable."},
    threads={"help": "CPU threads; part of a run, as it changes bits."},
)  # fmt: skip
@engine_options
@RESULTS_WRITTEN
@click.option(
    "-o", "--out", type=PATH, metavar="STEM",
    help="Writes STEM.csv, .png and .pdf. Default: ablation-METHOD in the results folder.",
)  # fmt: skip
@click.option("--redraw", type=PATH, metavar="CSV", help="Draw a CSV again; run nothing.")
@click.option("--title", metavar="TEXT", help="Of the figure. Default: method, task and terms; of --redraw the file.")
@DATA_DIR
@click.option("--dry-run", is_flag=True, help="Show the plan, run nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(**options: Any) -> None:
    """Run and plot an ablation: one setting at a time, the others as the method has them. Finished runs are shared."""
    from rich.console import Console

    console = Console(quiet=options["quiet"])
    if options["redraw"]:
        again(options["redraw"], options["out"], options["title"], console)
        return
    if not options["method"] or not options["vary"]:
        raise UsageError("name a method with --method NAME and what to vary with --vary NAME=VALUE,VALUE")

    from dfkd_bench.studies.ablation import parse_vary, plan_ablation, rows_of, runs_of
    from dfkd_bench.utils.text import method_label

    results: Path = options["results"]
    asked = for_run(options)
    points = plan_ablation(request_of(asked), parse_vary(options["vary"]), results)
    stem = options["out"] or results / f"ablation-{points[0].runs[0].spec.method.replace(':', '-')}"
    if options["out"]:
        check_stem(stem)
    planned = runs_of(points)
    if options["dry_run"]:
        from dfkd_bench.report.terminal.runs import plan_table

        console.print(plan_table(planned))
        return
    failed = None
    try:
        run_all(planned, results, console, asked)
    except RunError as error:  # what failed is a row without a number; the others are drawn
        failed = error
    rows = rows_of(points, results)
    spec = points[0].runs[0].spec
    title = (
        options["title"] or f"{method_label(spec.to_json())} ({spec.preset}) on {spec.task}, {spec.track}/{spec.budget}"
    )
    write(rows, stem, title, bounds_of(points, results), console)
    if failed:
        raise failed


def for_run(options: dict[str, Any]) -> dict[str, Any]:
    """These options as those of `run`, whose defaults the others have."""
    from dfkd_bench.cli.run import command as run

    with run.make_context("run", [], resilient_parsing=True) as context:
        defaults = dict(context.params)
    more = {"methods": (options["method"],), "tasks": (options["task"],) if options["task"] else ()}
    return {**defaults, **{k: v for k, v in options.items() if k in defaults}, **more}


def request_of(asked: dict[str, Any]) -> Any:
    """The request at the method's own values."""
    from dfkd_bench.cli.run import request

    return request(None, asked)


def run_all(planned: list[Any], results: Path, console: Console, asked: dict[str, Any]) -> None:
    """Run what is missing, in this process or through an engine. Raises `RunError` if a run failed."""
    from dfkd_bench.cli.run import execute, wants_engine
    from dfkd_bench.cli.run_with_engine import carry_out

    (carry_out if wants_engine(asked) else execute)(planned, results, console, asked)


def bounds_of(points: list[Point], results: Path) -> dict[str, list[float]]:
    """The bounds that lie in the results folder under the same terms."""
    from dfkd_bench.report.terminal.runs import bounds_on_disk

    spec = points[0].runs[0].spec.to_json()
    found = bounds_on_disk({"spec": spec}, results)
    return {name: values for name, values in found.items() if name != spec["method"]}


def again(source: Path, out: Path | None, title: str | None, console: Console) -> None:
    """Table and figure of a CSV that is there."""
    from dfkd_bench.report.terminal.ablation import ablation_table
    from dfkd_bench.studies.ablation import read_csv, summaries

    stem = check_stem(out or source.with_suffix(""))
    rows = read_csv(source)
    console.print(ablation_table(summaries(rows), title or source.stem))
    picture(rows, stem, title or source.stem, {})
    console.print(f"{stem}.png, {stem}.pdf", markup=False, highlight=False, soft_wrap=True)


def write(rows: list[Row], stem: Path, title: str, bounds: dict[str, list[float]], console: Console) -> None:
    """Table, CSV and figure."""
    from dfkd_bench.report.terminal.ablation import ablation_table
    from dfkd_bench.studies.ablation import csv_text, summaries
    from dfkd_bench.utils.files import write_atomic

    console.print(ablation_table(summaries(rows), title))
    write_atomic(with_ending(stem, ".csv"), csv_text(rows).encode())
    picture(rows, stem, title, bounds)
    console.print(
        f"{len(rows)} rows: {stem}.csv; figure: {stem}.png, {stem}.pdf", markup=False, highlight=False, soft_wrap=True
    )


def picture(rows: list[Row], stem: Path, title: str, bounds: dict[str, list[float]]) -> None:
    """The figure, to look at and to print."""
    from dfkd_bench.report.figures.ablation import ablation
    from dfkd_bench.report.figures.style import save

    figure = ablation(rows, title, bounds)
    for ending in (".png", ".pdf"):
        save(figure, with_ending(stem, ending))


def check_stem(stem: Path) -> Path:
    """`stem` itself. Raises `UsageError` where its folder is missing."""
    if not stem.parent.is_dir():
        raise UsageError(f"--out {stem}: no folder {stem.parent} to write to")
    return stem


def with_ending(stem: Path, ending: str) -> Path:
    """`stem` and `ending`, whatever dots the stem holds."""
    return stem.with_name(stem.name + ending)
