"""Run a plan from Python, in this process or with an engine, and get the records back; as `dfkd-bench run` does.

    import dfkd_bench
    records = dfkd_bench.run({"method": "NAME", "seeds": "0-2", "budget": "quick"}, "runs")

The command line uses this module and only adds output.
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
from dfkd_bench.runs.loggers import Log, parse_logs
from dfkd_bench.runs.plan import make_plan, plan_repeat
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.runs.progress import Callback
from dfkd_bench.runs.runfile import read_run_file
from dfkd_bench.runs.settings import Request, request_fields
from dfkd_bench.runs.spec import RunSpec

Record = dict[str, Any]
Failure = tuple[dict[str, Any], BenchError]  # the specification as JSON, and the error


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
    """Run `spec` and store records in the folder `results`; returns the records in the order of the plan.

    Finished runs are not repeated.

    Args:
        spec: a `RunSpec` (one run), a `Request`, the path of a run file, or the table of a run file (the same keys:
            `method`, `task`, `seeds`, `budget`, `preset`, `track`, `set`, `with`, ...).
        results: folder of the records; created if missing.
        jobs: number of parallel runs, each in a worker process; without `jobs` and `engine` all run in this process.
            Workers import the calling script, so its own code must be under `if __name__ == "__main__":`.
        engine: name of an engine (see `dfkd-bench list engines`); `address` and `engine_config` are passed to it.
        force: repeat finished runs and restart interrupted ones.
        retry_failed: repeat runs that have a failed record.
        run_timeout: seconds after which a run is stopped and counted as failed (needs an engine).
        memory_limit: GiB of memory of a worker above which its run is stopped and counted as failed (needs an engine).
        callback: called with an event for each step of a run in this process (phase, round, seconds, losses).
        log: loggers that get the same events, with any engine: `NAME` or `NAME=FOLDER`, one or several.

    Raises `UsageError` for an invalid request, before anything runs; `RunError` at the end if some runs failed (the
    others are recorded).
    """
    root = Path(results)
    planned, logs = plan_of(spec, root), parse_logs([log] if isinstance(log, str) else log, root)
    if jobs is None and engine is None:
        if address or engine_config or run_timeout or memory_limit:
            raise UsageError("address, engine_config, run_timeout and memory_limit need an engine: give jobs or engine")
        on_event = callback or (lambda event: None)
        done, failures = run_in_process(
            planned,
            root,
            force=force,
            retry_failed=retry_failed,
            logs=logs,
            follow=lambda item, number: nullcontext(on_event),
        )
    else:
        if callback is not None:
            raise UsageError("callback works only for runs in this process: leave out jobs and engine")
        selected_engine = make_engine(engine, root, jobs, address, engine_config)
        options = scheduler_options(run_timeout, memory_limit, force, retry_failed, logs)
        done, failures = run_with_engine(planned, root, selected_engine, options)
    if failures:
        raise RunError(summary_of(failures, len(planned)))
    return done


def plan_of(spec: RunSpec | Request | Mapping[str, Any] | str | Path, results: Path) -> list[PlannedRun]:
    """The planned runs of `spec`; see `run`."""
    if isinstance(spec, RunSpec):
        return [plan_repeat({"spec": spec.to_json()}, results)]
    if isinstance(spec, str | Path):
        spec = Request(**with_methods(read_run_file(Path(spec)), str(spec)))
    elif isinstance(spec, Mapping):
        spec = Request(**with_methods(request_fields(spec, "the table"), "the table"))
    return make_plan(spec, results)


def with_methods(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """`fields` themselves. Raises `UsageError` if they contain no method."""
    if not fields.get("methods"):
        raise UsageError(f"{where} has no method; `dfkd-bench list methods` lists them")
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
    on_result: Callable[[PlannedRun, Record | None, BenchError | None], None] = lambda item, skipped, error: None,
) -> tuple[list[Record], list[Failure]]:
    """Run the plan in order, in this process; a failed run does not stop the others.

    `on_result(run, record, error)` is called for each skipped run (with its record) and for each failure. A
    `UsageError` is raised immediately.
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
            on_result(item, None, error)
            continue
        if outcome.skipped:
            on_result(item, outcome.record, None)
        done.append(outcome.record)
    return done, failures


def earlier_failure(item: PlannedRun, results: Path) -> RunError:
    """The error for a run that has a failed record."""
    why = records.read(results / item.spec.folder)["result"].get("error", "")
    return RunError(f"it failed before: {why}; --retry-failed tries it again")


# -- through an engine ------------------------------------------------------------------------------------------------


def make_engine(
    name: str | None, results: Path, jobs: int | None, address: str | None, config: Mapping[str, Any] | None
) -> Engine:
    """The engine `name`. Raises `UsageError` for an unknown engine or an option that it does not have."""
    if jobs is not None and jobs < 1:
        raise UsageError("--jobs takes a whole number from 1 on")
    return engine_named(name or DEFAULT, EngineOptions(jobs, address, config or {}, results))


def scheduler_options(
    run_timeout: float | None, memory_limit: float | None, force: bool, retry_failed: bool, logs: tuple[Log, ...] = ()
) -> SchedulerOptions:
    """Options of the scheduler; `run_timeout` in seconds, `memory_limit` in GiB."""
    limits = Limits(run_timeout, int(memory_limit * 2**30) if memory_limit else None)
    return SchedulerOptions(limits=limits, retry_failed=retry_failed, force=force, logs=logs)


def run_with_engine(
    planned: Sequence[PlannedRun],
    results: Path,
    engine: Engine,
    options: SchedulerOptions,
    on_result: Callable[[Work, Report], None] = lambda work, report: None,
) -> tuple[list[Record], list[Failure]]:
    """Run the plan with an engine and close it at the end. Raises `UsageError` if workers lack a requirement."""
    try:
        summary = run_plan(planned, results, engine, options, on_result)
    finally:
        engine.close()
    finished = [records.finished(results, item.spec) for item in planned]
    failures: list[Failure] = [(work.spec.to_json(), RunError(error)) for work, error in summary.failed]
    tried = {work.spec.hash for work, _ in summary.failed}
    failures += [
        (item.spec.to_json(), earlier_failure(item, results))
        for item in planned
        if item.state == "failed" and item.spec.hash not in tried and not (options.retry_failed or options.force)
    ]
    return [record for record in finished if record is not None], failures


def summary_of(failures: Sequence[Failure], runs: int) -> str:
    """`2 of 9 runs failed`, and a line for each failure."""
    lines = [f"  {name_of(spec)}: {error}" for spec, error in failures]
    return "\n".join([f"{len(failures)} of {runs} runs failed; the others are recorded:", *lines])
