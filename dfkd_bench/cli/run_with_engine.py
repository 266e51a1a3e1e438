"""What `run` does with an engine: the plan, a live view of it, and what came out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.utils.parse import read_toml

if TYPE_CHECKING:
    from dfkd_bench.engines.base import Report, Work
    from dfkd_bench.runs.planned import PlannedRun

LOOK = 1.0  # seconds between two looks at the files


def carry_out(planned: list[PlannedRun], results: Path, console: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Carry out the plan through the engine asked for; the records of its runs. Raises `RunError` if any failed."""
    from dfkd_bench.api import make_engine, run_with_engine, scheduler_options, summary_of
    from dfkd_bench.cli.live import logs_of
    from dfkd_bench.engines import DEFAULT
    from dfkd_bench.engines.scheduler import works_of
    from dfkd_bench.report.terminal.runs import runs_table

    name = options["engine"] or DEFAULT
    config = read_config(options["engine_config"], name) if options["engine_config"] else None
    where = make_engine(name, results, options["jobs"], options["address"], config)
    limits = options["run_timeout"], options["memory_limit"]
    terms = scheduler_options(*limits, options["force"], options["retry_failed"], logs_of(options))
    todo = len(works_of(planned, results, terms))
    console.print(f"{len(planned)} runs, {todo} to do, {where.describe()}", markup=False, highlight=False)
    with watching(console, results, planned) as tell:
        done, failures = run_with_engine(planned, results, where, terms, tell)
    if done:
        console.print(runs_table(done))
    if failures:
        raise RunError(summary_of(failures, len(planned)))
    return done


def read_config(path: Path, name: str) -> dict[str, Any]:
    """The table `[name]` of a TOML file. Raises `UsageError` where there is none."""
    table = read_toml(path)
    if not isinstance(table.get(name), dict):
        raise UsageError(f"{path} has no table [{name}]")
    found: dict[str, Any] = table[name]
    return found


@contextmanager
def watching(console: Any, results: Path, planned: Sequence[PlannedRun]) -> Iterator[Any]:
    """Tells of each run as it ends: a live table of all of them on a terminal, a line each elsewhere."""
    from rich.live import Live

    from dfkd_bench.engines.progress import name_of, plan_view
    from dfkd_bench.engines.status import state_in

    number = 0

    def line(work: Work, report: Report) -> None:
        nonlocal number
        number += report.outcome in ("done", "skipped", "failed", "ended")
        why = f": {report.error}" if report.error else ""
        console.print(
            f"[{number}] {name_of(work.spec.to_json())}: {report.outcome}, {report.seconds:.1f} s{why}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip

    if not console.is_terminal or console.quiet:
        yield line
        return
    specs = [(p.spec.folder, p.spec.to_json()) for p in planned]

    def look() -> Any:
        return plan_view([state_in(results / folder, folder, spec) for folder, spec in specs])

    stop = threading.Event()
    with Live(look(), console=console, auto_refresh=False) as live:

        def follow() -> None:
            while not stop.wait(LOOK):
                live.update(look(), refresh=True)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield lambda work, report: line(work, report) if report.error else None
        finally:
            stop.set()
            thread.join()
            live.update(look(), refresh=True)
