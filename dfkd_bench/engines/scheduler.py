"""The driver of a plan: what is to be done goes to an engine, what was lost goes again, and files tell the rest.

Nothing here holds results: a run is done when its record lies in the results folder, whoever made it. So two drivers
may be at one folder, and a driver that is stopped loses nothing.
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
RETRIES = 2  # of a run whose worker died, from its last checkpoint
PATIENCE = 2.0  # seconds between two looks at runs that another process is at


@dataclass
class Summary:
    """What became of a plan."""

    done: list[Work] = field(default_factory=list)
    skipped: list[Work] = field(default_factory=list)
    failed: list[tuple[Work, str]] = field(default_factory=list)


@dataclass(frozen=True)
class SchedulerOptions:
    """How a plan is carried out; none of it changes a number."""

    limits: Limits = field(default_factory=Limits)
    retry_failed: bool = False
    force: bool = False
    logs: tuple[Log, ...] = ()
    checkpoint_seconds: float = 30.0
    retries: int = RETRIES
    patience: float = PATIENCE


def works_of(planned: Sequence[PlannedRun], results: Path, terms: SchedulerOptions) -> list[Work]:
    """What of a plan is to be done: all but finished runs, and failed ones only where asked for."""
    wanted = {"missing", "interrupted"} | ({"failed"} if terms.retry_failed else set())
    return [work_of(p, results, terms) for p in planned if terms.force or p.state in wanted]


def work_of(planned: PlannedRun, results: Path, terms: SchedulerOptions) -> Work:
    """A planned run as a worker gets it; wherever that works, it is to find the results."""
    options = RunOptions(results.absolute(), terms.force, True, terms.checkpoint_seconds, logs=terms.logs)
    return Work(planned, options, terms.limits)


def run_plan(
    planned: Sequence[PlannedRun],
    results: Path,
    engine: Engine,
    terms: SchedulerOptions,
    told: Callable[[Work, Report], None] = lambda work, report: None,
) -> Summary:
    """Carry out a plan. Raises `UsageError` where the workers lack something, before anything runs."""
    write_plan(planned, results)
    summary, pending, tries = Summary(), works_of(planned, results, terms), dict[str, int]()
    if pending and (lacks := engine.refuse(pending)):
        raise UsageError("; ".join(lacks))
    waited: set[str] = set()
    while pending:
        free, busy, again = list[Work](), list[Work](), list[Work]()
        for work in pending:
            if is_locked(work.folder):  # no worker need find that out
                busy.append(work)
                if work.spec.hash not in waited:
                    waited.add(work.spec.hash)
                    told(work, Report("busy", 0.0, "another process is at it"))
            elif work.spec.hash in waited and (report := finished_elsewhere(work, terms)):
                add_to_summary(summary, work, report)
                told(work, report)
            else:
                free.append(work)
        with closing(engine.execute(free)) as ended:
            for work, said in ended:
                report = with_reason(work, said)
                if report.outcome == "lost" and tries.get(work.spec.hash, 0) < terms.retries:
                    tries[work.spec.hash] = tries.get(work.spec.hash, 0) + 1
                    again.append(resumed(work))
                elif report.outcome == "busy":
                    waited.add(work.spec.hash)
                    busy.append(work)
                else:
                    if report.outcome in ("ended", "lost"):
                        leave_record(work, report.error)
                    add_to_summary(summary, work, report)
                told(work, report)
        if busy and not again:
            time.sleep(terms.patience)
        pending = again + busy
    return summary


def add_to_summary(summary: Summary, work: Work, report: Report) -> None:
    """Put a run that is over where it belongs."""
    if report.outcome in ("failed", "ended", "lost"):
        summary.failed.append((work, report.error))
    else:
        (summary.done if report.outcome == "done" else summary.skipped).append(work)


def finished_elsewhere(work: Work, terms: SchedulerOptions) -> Report | None:
    """What the process that was waited for made of a run; None where it is still to be done."""
    try:
        status = records.read(work.folder)["result"]["status"] if not terms.force else ""
    except BenchError:
        return None
    if status in ("complete", "diverged"):
        return Report("skipped")
    return with_reason(work, Report("failed")) if status == "failed" and not terms.retry_failed else None


def with_reason(work: Work, report: Report) -> Report:
    """The report with what the run's folder says: why it failed, or that it took more than it may."""
    if report.outcome == "lost" and (why := over_limit(work)):
        return Report("ended", report.seconds, why)
    if report.outcome == "failed" and not report.error:
        try:
            return Report("failed", report.seconds, records.read(work.folder)["result"].get("error", ""))
        except BenchError as error:
            return Report("failed", report.seconds, str(error))
    return report


def leave_record(work: Work, error: str) -> None:
    """A failed record for a run whose worker could not leave one itself."""
    from dfkd_bench.training.failures import leave_failure

    if (work.folder / records.FILE).exists():
        return
    work.folder.mkdir(parents=True, exist_ok=True)
    leave_failure(work.run, work.folder, error, time.time(), work.options.logs)


# -- the plan on disk -------------------------------------------------------------------------------------------------


def write_plan(planned: Sequence[PlannedRun], results: Path) -> Path:
    """Keep the plan beside its results, for `dfkd-bench status`: one file, named by what is in it."""
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
    """Every run that any plan of this folder asked for, each once. Raises `RunError` for a plan that is damaged."""
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
