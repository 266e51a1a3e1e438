"""`dfkd-bench run` with an engine: execute the plan, show it live, print the results."""

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

REFRESH = 1.0  # seconds between two updates of the live view


def carry_out(planned: list[PlannedRun], results: Path, console: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Execute the plan with the selected engine and return the records. Raises `RunError` if a run failed."""
    from dfkd_bench.api import make_engine, run_with_engine, scheduler_options, summary_of
    from dfkd_bench.cli.live import logs_of
    from dfkd_bench.engines import DEFAULT
    from dfkd_bench.engines.scheduler import works_of
    from dfkd_bench.report.terminal.runs import runs_table

    name = options["engine"] or DEFAULT
    config = read_config(options["engine_config"], name) if options["engine_config"] else None
    engine = make_engine(name, results, options["jobs"], options["address"], config)
    limits = options["run_timeout"], options["memory_limit"]
    scheduling = scheduler_options(*limits, options["force"], options["retry_failed"], logs_of(options))
    todo = len(works_of(planned, results, scheduling))
    console.print(f"{len(planned)} runs, {todo} to do, {engine.describe()}", markup=False, highlight=False)
    with live_view(console, results, planned) as on_report:
        done, failures = run_with_engine(planned, results, engine, scheduling, on_report)
    if done:
        console.print(runs_table(done))
    if failures:
        raise RunError(summary_of(failures, len(planned)))
    return done


def read_config(path: Path, name: str) -> dict[str, Any]:
    """The table `[name]` of a TOML file. Raises `UsageError` if it is missing."""
    content = read_toml(path)
    if not isinstance(content.get(name), dict):
        raise UsageError(f"{path} has no table [{name}]")
    table: dict[str, Any] = content[name]
    return table


@contextmanager
def live_view(console: Any, results: Path, planned: Sequence[PlannedRun]) -> Iterator[Any]:
    """A callback for reports of runs: a live table of all runs on a terminal, otherwise one line per run."""
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

    def table() -> Any:
        return plan_view([state_in(results / folder, folder, spec) for folder, spec in specs])

    stop = threading.Event()
    with Live(table(), console=console, auto_refresh=False) as live:

        def refresh() -> None:
            while not stop.wait(REFRESH):
                live.update(table(), refresh=True)

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield lambda work, report: line(work, report) if report.error else None
        finally:
            stop.set()
            thread.join()
            live.update(table(), refresh=True)
