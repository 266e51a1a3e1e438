"""`dfkd-bench plan`: what a plan holds and how far it is; with --estimate what the rest will cost."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import DATA_DIR, JOBS, what_to_run
from dfkd_bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from dfkd_bench.profiling.estimate.plan_cost import Tell
    from dfkd_bench.profiling.estimate.table import Sheet
    from dfkd_bench.runs.planned import PlannedRun

FORMATS = ("table", "markdown", "csv")
SECONDS_EACH = 5.0
PLAIN_EVERY = 10.0  # seconds between two lines of progress where there is no terminal
EPILOG = """\b
Examples:
  dfkd-bench plan study.toml
  dfkd-bench plan study.toml --estimate --workers 1,8,64
  dfkd-bench plan --suite paper-tables --estimate --workers 64 --price 3
"""


@click.command(epilog=EPILOG)
@what_to_run
@JOBS
@DATA_DIR
@click.option("--estimate", is_flag=True, help="Seconds, teacher passes, hours and money of what is left to do.")
@click.option("--workers", metavar="N,...", help="Numbers of workers to tell the hours of. Default: --jobs, or 1.")
@click.option("--price", type=click.FloatRange(0.0), metavar="X", help="Of a worker for an hour, in any currency.")
@click.option(
    "--seconds-each", type=click.FloatRange(0.0), metavar="S",
    help=f"To measure each method and task. Default: {SECONDS_EACH:g}.",
)  # fmt: skip
@click.option(
    "--queue-seconds", type=click.FloatRange(0.0), metavar="S", help="That a job waits in a queue to start. Default: 0."
)
@click.option("--format", "form", default="table", metavar="FORM", help="table (default), markdown or csv.")
def command(file: Path | None, **options: Any) -> None:
    """Show a plan: what of it is done, running, failed or missing. Runs nothing, and needs no dataset.

    With --estimate also what the rest will cost on this machine. Seconds of a run come from records of the same run on
    the same device; where there are none, from a few of its steps, timed here and now.
    """
    from rich.console import Console

    from dfkd_bench.protocol import check_word

    check_word("format", options["form"], FORMATS)
    check(options)
    numbers = workers_of(options)
    planned = plan_of(file, options)
    tables = options["form"] == "table"
    if tables:
        Console().print(states(planned, options["results"], whole=not options["estimate"]))
    if options["estimate"]:
        sheets = estimate(planned, options, numbers)
        if not sheets:
            click.echo("nothing is left to do", err=not tables)
        for sheet in sheets:
            show(sheet, options["form"])


def check(options: dict[str, Any]) -> None:
    """Raise `UsageError` for options of --estimate without it, or for those that need one another."""
    for name in ("workers", "price", "seconds_each", "queue_seconds"):
        if options[name] is not None and not options["estimate"]:
            raise UsageError(f"--{name.replace('_', '-')} belongs to --estimate")
    if options["form"] != "table" and not options["estimate"]:
        raise UsageError(f"--format {options['form']} belongs to --estimate")


def plan_of(file: Path | None, options: dict[str, Any]) -> list[PlannedRun]:
    """The plan asked for, though neither datasets nor teachers need be here."""
    from dfkd_bench.cli.run import request
    from dfkd_bench.runs.plan import make_plan

    say = partial(click.echo, err=True)
    return make_plan(request(file, options), options["results"], anywhere=True, say=say)


def states(planned: Sequence[PlannedRun], results: Path, whole: bool) -> Any:
    """How many runs are in each state, if `whole` which, and what they need that is not here."""
    from rich.console import Group

    from dfkd_bench.engines.progress import headline, plan_view
    from dfkd_bench.engines.status import state_in

    found = [state_in(results / p.spec.folder, p.spec.folder, p.spec.to_json()) for p in planned]
    lacks = dict.fromkeys(f"dataset {p.teacher.dataset}" for p in planned if not p.spec.data)
    lacks |= dict.fromkeys(f"a teacher {p.teacher.dataset}/{p.teacher.arch}" for p in planned if not p.spec.teacher)
    return Group(plan_view(found) if whole else headline(found), *([f"not here: {', '.join(lacks)}"] if lacks else []))


def estimate(planned: Sequence[PlannedRun], options: dict[str, Any], numbers: Sequence[int]) -> list[Sheet]:
    """Both tables, none where nothing is left to do; `numbers` of workers."""
    import torch
    from rich.console import Console

    from dfkd_bench.data.home import is_present
    from dfkd_bench.engines import engines
    from dfkd_bench.profiling.estimate import plan_cost
    from dfkd_bench.profiling.estimate.makespan import Site, wall
    from dfkd_bench.profiling.estimate.startup import start_of
    from dfkd_bench.profiling.estimate.table import cost_sheet, workers_sheet
    from dfkd_bench.protocol import task
    from dfkd_bench.runs.provenance import device_name

    todo = plan_cost.to_do(planned, options["results"])
    if not todo:
        return []
    spec = todo[0].spec
    datasets = dict.fromkeys(task(item.spec.task).dataset for item in todo)
    console = Console(stderr=True)
    with console.status("starting a process") as status:
        start = start_of([facts.name for facts in datasets if is_present(facts)])
        each = SECONDS_EACH if options["seconds_each"] is None else options["seconds_each"]
        estimator = plan_cost.Estimator(options["results"], device_name(torch.device(spec.device)), start, each)
        found = plan_cost.estimate(todo, estimator, progress_printer(console, status))
    held = None if spec.device == "cuda" else max(1, (os.cpu_count() or 1) // spec.threads)
    site = Site(start, options["queue_seconds"] or 0.0, held)
    walls = [(n, {engine: wall(kind, found.seconds, n, site) for engine, kind in engines().items()}) for n in numbers]
    return [cost_sheet(found, len(planned), estimator), workers_sheet(walls, site, options["price"])]


def progress_printer(console: Console, status: Status) -> Tell:
    """Says what is measured and how long the rest takes: on a terminal in one line, elsewhere in lines now and then."""
    from rich.markup import escape

    from dfkd_bench.engines.progress import duration

    said = time.monotonic()

    def tell(number: int, of: int, run: PlannedRun, left: float) -> None:
        nonlocal said
        line = f"measuring {number} of {of}: {run.spec.method} on {run.spec.task}, about {duration(left)} left"
        if console.is_terminal:
            status.update(escape(line))
        elif time.monotonic() - said > PLAIN_EVERY:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            said = time.monotonic()

    return tell


def workers_of(options: dict[str, Any]) -> list[int]:
    """The numbers of workers asked for. Raises `UsageError` for anything but whole numbers from 1 on."""
    text = options["workers"] or str(options["jobs"] or 1)
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        raise UsageError(f"--workers takes whole numbers from 1 on, such as 1,8,64; got {text!r}")
    return list(dict.fromkeys(numbers))


def show(sheet: Sheet, form: str) -> None:
    """A table in one of its forms."""
    from rich.console import Console

    from dfkd_bench.profiling.estimate.table import csv_text, markdown_text, rendering

    if form == "table":
        Console().print(rendering(sheet))
    else:
        click.echo(csv_text(sheet) if form == "csv" else markdown_text(sheet) + "\n")
