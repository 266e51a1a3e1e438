"""The driver of a plan: gives the open runs to an engine, repeats lost ones, and writes the plan to disk.

The driver holds no results: a run is done when its record is in the results folder. So two drivers may use one folder,
and nothing is lost if a driver is stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from dfkd_bench.engines.base import Engine, Limits, Report, Work
from dfkd_bench.engines.worker import over_limit, resumed
from dfkd_bench.errors import BenchError, RunError, UsageError
from dfkd_bench.runs import records
from dfkd_bench.runs.loggers import Log
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.hashing import sha256
from dfkd_bench.utils.locks import is_locked
from dfkd_bench.utils.parse import convert, read_json

PLANS = "plans"
RETRIES = 2  # of a lost run, from its last checkpoint
PATIENCE = 2.0  # seconds between two checks of busy runs


@dataclass
class Summary:
    """The runs of a plan by outcome."""

    done: list[Work] = field(default_factory=list)
    skipped: list[Work] = field(default_factory=list)
    failed: list[tuple[Work, str]] = field(default_factory=list)


@dataclass(frozen=True)
class SchedulerOptions:
    """How a plan is executed; no option changes a result."""

    limits: Limits = field(default_factory=Limits)
    retry_failed: bool = False
    force: bool = False
    logs: tuple[Log, ...] = ()
    checkpoint_seconds: float = 30.0
    retries: int = RETRIES
    patience: float = PATIENCE


def works_of(planned: Sequence[PlannedRun], results: Path, options: SchedulerOptions) -> list[Work]:
    """The open runs of a plan: missing and interrupted ones, with `retry_failed` also failed ones, with `force` all."""
    states = {"missing", "interrupted"} | ({"failed"} if options.retry_failed else set())
    return [work_of(p, results, options) for p in planned if options.force or p.state in states]


def work_of(planned: PlannedRun, results: Path, options: SchedulerOptions) -> Work:
    """The `Work` of a planned run. The path of the results is absolute, as workers may start in another folder."""
    how = RunOptions(results.absolute(), options.force, True, options.checkpoint_seconds, logs=options.logs)
    return Work(planned, how, options.limits)


def run_plan(
    planned: Sequence[PlannedRun],
    results: Path,
    engine: Engine,
    options: SchedulerOptions,
    on_report: Callable[[Work, Report], None] = lambda work, report: None,
) -> Summary:
    """Execute a plan; `on_report` is called for each report.

    Busy runs are waited for; lost runs are repeated `options.retries` times. Raises `UsageError`, before any run
    starts, if the workers lack something.
    """
    write_plan(planned, results)
    summary, pending, tries = Summary(), works_of(planned, results, options), dict[str, int]()
    if pending and (lacks := engine.refuse(pending)):
        raise UsageError("; ".join(lacks))
    waited: set[str] = set()
    while pending:
        free, busy, again = list[Work](), list[Work](), list[Work]()
        for work in pending:
            if is_locked(work.folder):  # saves starting a worker
                busy.append(work)
                if work.spec.hash not in waited:
                    waited.add(work.spec.hash)
                    on_report(work, Report("busy", 0.0, "another process executes it"))
            elif work.spec.hash in waited and (report := finished_elsewhere(work, options)):
                add_to_summary(summary, work, report)
                on_report(work, report)
            else:
                free.append(work)
        with closing(engine.execute(free)) as ended:
            for work, raw in ended:
                report = with_reason(work, raw)
                if report.outcome == "lost" and tries.get(work.spec.hash, 0) < options.retries:
                    tries[work.spec.hash] = tries.get(work.spec.hash, 0) + 1
                    again.append(resumed(work))
                elif report.outcome == "busy":
                    waited.add(work.spec.hash)
                    busy.append(work)
                else:
                    if report.outcome in ("ended", "lost"):
                        ensure_failed_record(work, report.error)
                    add_to_summary(summary, work, report)
                on_report(work, report)
        if busy and not again:
            time.sleep(options.patience)
        pending = again + busy
    return summary


def add_to_summary(summary: Summary, work: Work, report: Report) -> None:
    """Add a finished run to the list of its outcome."""
    if report.outcome in ("failed", "ended", "lost"):
        summary.failed.append((work, report.error))
    else:
        (summary.done if report.outcome == "done" else summary.skipped).append(work)


def finished_elsewhere(work: Work, options: SchedulerOptions) -> Report | None:
    """The report of a run that another process has executed in the meantime; None if it is still open."""
    try:
        status = records.read(work.folder)["result"]["status"] if not options.force else ""
    except BenchError:
        return None
    if status in ("complete", "diverged"):
        return Report("skipped")
    return with_reason(work, Report("failed")) if status == "failed" and not options.retry_failed else None


def with_reason(work: Work, report: Report) -> Report:
    """The report, completed from the run's folder: the error of a failed run, or that a limit was exceeded."""
    if report.outcome == "lost" and (why := over_limit(work)):
        return Report("ended", report.seconds, why)
    if report.outcome == "failed" and not report.error:
        try:
            return Report("failed", report.seconds, records.read(work.folder)["result"].get("error", ""))
        except BenchError as error:
            return Report("failed", report.seconds, str(error))
    return report


def ensure_failed_record(work: Work, error: str) -> None:
    """Write a failed record for a run whose worker could not write one."""
    from dfkd_bench.training.failures import write_failed_record

    if (work.folder / records.FILE).exists():
        return
    work.folder.mkdir(parents=True, exist_ok=True)
    write_failed_record(work.run, work.folder, error, time.time(), work.options.logs)


# -- the plan on disk -------------------------------------------------------------------------------------------------


def write_plan(planned: Sequence[PlannedRun], results: Path) -> Path:
    """Store the plan below the results folder, for `dfkd-bench status`, in a file named by its digest."""
    rows = [{"folder": p.spec.folder, "spec": p.spec.to_json()} for p in planned]
    text = json.dumps({"runs": rows}, sort_keys=True)
    path = results / PLANS / f"{sha256(text)[:12]}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    return path


class PlanRow(TypedDict):
    """One run of a plan."""

    folder: str
    spec: dict[str, Any]


class _Plan(TypedDict):
    runs: list[PlanRow]


def read_plans(results: Path) -> Iterator[PlanRow]:
    """The runs of all plans of this results folder, each once. Raises `RunError` for a damaged plan."""
    seen: set[str] = set()
    for path in sorted((results / PLANS).glob("*.json")):
        try:
            rows = convert(read_json(path), _Plan)["runs"]
        except ValueError as error:
            raise RunError(f"{path} is not a plan of dfkd-bench: {error}; delete it") from error
        for row in rows:
            if row["folder"] not in seen:
                seen.add(row["folder"])
                yield row
