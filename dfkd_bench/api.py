"""Running from Python what `dfkd-bench run` runs: a plan in this process or through an engine, records back.

    import dfkd_bench
    records = dfkd_bench.run({"method": "NAME", "seeds": "0-2", "budget": "quick"}, "runs")

The command line is a layer of words and pictures over this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from dfkd_bench.engines import DEFAULT
from dfkd_bench.engines import engine as engine_named
from dfkd_bench.engines.base import Engine, EngineOptions, Limits, Report, Work
from dfkd_bench.engines.progress import name_of
from dfkd_bench.engines.scheduler import SchedulerOptions, run_plan
from dfkd_bench.errors import BenchError, RunError, UsageError
from dfkd_bench.runs import records
from dfkd_bench.runs.loggers import Log, asked
from dfkd_bench.runs.plan import make_plan, repeat
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.runs.progress import Callback
from dfkd_bench.runs.runfile import read_run_file
from dfkd_bench.runs.settings import Request, fields_of
from dfkd_bench.runs.spec import RunSpec

Record = dict[str, Any]
Failure = tuple[dict[str, Any], BenchError]  # the specification as JSON, and why


def run(
    spec: RunSpec | Request | Mapping[str, Any] | str | Path,
    results: str | Path = "runs",
    *,
    jobs: int | None = None,
    engine: str | None = None,
    address: str | None = None,
    engine_config: Mapping[str, Any] | None = None,
    force: bool = False,
    retry_failed: bool = False,
    run_timeout: float | None = None,
    memory_limit: float | None = None,
    callback: Callback | None = None,
    log: str | Sequence[str] = (),
) -> list[Record]:
    """Carry out `spec` below the folder `results`; the records, in the plan's order. Finished runs are not run again.

    Args:
        spec: a specification (`RunSpec`, of one run), a `Request`, a run file's path, or the table of a run file
            (keys as there: `method`, `task`, `seeds`, `budget`, `preset`, `track`, `set`, `with`, ...).
        results: folder of the records; made if it is not there.
        jobs: runs at the same time, each in a worker process; without it and `engine` all run in this process. Workers
            import the calling script: its own work belongs under `if __name__ == "__main__":`.
        engine: its name, as `dfkd-bench list engines` has it; `address` and `engine_config` are the engine's.
        force: redo finished runs and start interrupted ones over.
        retry_failed: try runs again that left a failed record.
        run_timeout: seconds after which a run is stopped and has failed (needs an engine).
        memory_limit: GiB that a worker may take before its run is stopped and has failed (needs an engine).
        callback: told of each step of a run in this process (phase, round, seconds, losses).
        log: loggers that are told the same, wherever the run is: `NAME` or `NAME=FOLDER`, one or several.

    Raises `UsageError` for a request that cannot be, before anything runs; `RunError` when all is done but some runs
    failed: the others are recorded.
    """
    root = Path(results)
    planned, logs = plan_of(spec, root), asked([log] if isinstance(log, str) else log, root)
    if jobs is None and engine is None:
        if address or engine_config or run_timeout or memory_limit:
            raise UsageError("address, engine_config, run_timeout and memory_limit need an engine: give jobs or engine")
        told = callback or (lambda event: None)
        done, failures = run_in_process(
            planned,
            root,
            force=force,
            retry_failed=retry_failed,
            logs=logs,
            follow=lambda item, number: nullcontext(told),
        )
    else:
        if callback is not None:
            raise UsageError("callback follows runs of this process: leave out jobs and engine")
        where = make_engine(engine, root, jobs, address, engine_config)
        terms = scheduler_options(run_timeout, memory_limit, force, retry_failed, logs)
        done, failures = run_with_engine(planned, root, where, terms)
    if failures:
        raise RunError(summary_of(failures, len(planned)))
    return done


def plan_of(spec: RunSpec | Request | Mapping[str, Any] | str | Path, results: Path) -> list[PlannedRun]:
    """The runs that `spec` stands for; see `run`."""
    if isinstance(spec, RunSpec):
        return [repeat({"spec": spec.to_json()}, results)]
    if isinstance(spec, str | Path):
        spec = Request(**with_methods(read_run_file(Path(spec)), str(spec)))
    elif isinstance(spec, Mapping):
        spec = Request(**with_methods(fields_of(spec, "the table"), "the table"))
    return make_plan(spec, results)


def with_methods(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """`fields` themselves. Raises `UsageError` where they name no method."""
    if not fields.get("methods"):
        raise UsageError(f"{where} names no method; `dfkd-bench list methods` shows them")
    return fields


# -- in this process --------------------------------------------------------------------------------------------------

Follow = Callable[[PlannedRun, int], AbstractContextManager[Callback]]  # the run and its place in the plan, from 1


def run_in_process(
    planned: Sequence[PlannedRun],
    results: Path,
    *,
    force: bool = False,
    retry_failed: bool = False,
    logs: tuple[Log, ...] = (),
    follow: Follow,
    told: Callable[[PlannedRun, Record | None, BenchError | None], None] = lambda item, skipped, error: None,
) -> tuple[list[Record], list[Failure]]:
    """The plan in its order, in this process; a run that fails does not stop the others.

    `told` hears of each run that was not needed (its record) and of each failure. Raises `UsageError` at once.
    """
    from dfkd_bench.training.runner import run as run_one

    done: list[Record] = []
    failures: list[Failure] = []
    for number, item in enumerate(planned, 1):
        try:
            if item.state == "failed" and not (retry_failed or force):
                raise earlier_failure(item, results)
            with follow(item, number) as callback:
                outcome = run_one(item, RunOptions(results, force=force, callback=callback, logs=logs))
        except UsageError:
            raise
        except BenchError as error:
            failures.append((item.spec.to_json(), error))
            told(item, None, error)
            continue
        if outcome.skipped:
            told(item, outcome.record, None)
        done.append(outcome.record)
    return done, failures


def earlier_failure(item: PlannedRun, results: Path) -> RunError:
    """What to say of a run that left a failed record."""
    why = records.read(results / item.spec.folder)["result"].get("error", "")
    return RunError(f"it failed before: {why}; --retry-failed tries it again")


# -- through an engine ------------------------------------------------------------------------------------------------


def make_engine(
    name: str | None, results: Path, jobs: int | None, address: str | None, config: Mapping[str, Any] | None
) -> Engine:
    """The engine asked for. Raises `UsageError` for an unknown one, or for what it does not take."""
    if jobs is not None and jobs < 1:
        raise UsageError("--jobs takes a whole number from 1 on")
    return engine_named(name or DEFAULT, EngineOptions(jobs, address, config or {}, results))


def scheduler_options(
    run_timeout: float | None, memory_limit: float | None, force: bool, retry_failed: bool, logs: tuple[Log, ...] = ()
) -> SchedulerOptions:
    """Seconds and GiB that a run may take, what is to be done again, and the loggers."""
    limits = Limits(run_timeout, int(memory_limit * 2**30) if memory_limit else None)
    return SchedulerOptions(limits=limits, retry_failed=retry_failed, force=force, logs=logs)


def run_with_engine(
    planned: Sequence[PlannedRun],
    results: Path,
    where: Engine,
    terms: SchedulerOptions,
    told: Callable[[Work, Report], None] = lambda work, report: None,
) -> tuple[list[Record], list[Failure]]:
    """The plan through an engine, which is let go of at the end. Raises `UsageError` where workers lack something."""
    try:
        summary = run_plan(planned, results, where, terms, told)
    finally:
        where.close()
    found = [records.finished(results, item.spec) for item in planned]
    failures: list[Failure] = [(work.spec.to_json(), RunError(error)) for work, error in summary.failed]
    tried = {work.spec.hash for work, _ in summary.failed}
    failures += [
        (item.spec.to_json(), earlier_failure(item, results))
        for item in planned
        if item.state == "failed" and item.spec.hash not in tried and not (terms.retry_failed or terms.force)
    ]
    return [record for record in found if record is not None], failures


def summary_of(failures: Sequence[Failure], runs: int) -> str:
    """`2 of 9 runs failed:` and a line for each."""
    lines = [f"  {name_of(spec)}: {error}" for spec, error in failures]
    return "\n".join([f"{len(failures)} of {runs} runs failed; the others are recorded:", *lines])
