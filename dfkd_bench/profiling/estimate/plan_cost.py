"""The cost of each kind of run of a plan: from records, or measured now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfkd_bench.engines.scheduler import SchedulerOptions, works_of
from dfkd_bench.profiling.estimate import MEASURED, Cost, Line
from dfkd_bench.profiling.estimate.recorded import cost_from_records
from dfkd_bench.profiling.estimate.seconds import EvaluationTiming, time_evaluation, time_run
from dfkd_bench.profiling.estimate.startup import StartupTimes
from dfkd_bench.protocol import seconds_of
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.training.dry_run import DryRun

OnMeasurement = Callable[[int, int, PlannedRun, float], None]


@dataclass
class Estimator:
    """Measures the cost of runs on this machine. The evaluation of a task is measured once."""

    results: Path
    device: str  # name in the records
    start: StartupTimes
    seconds_each: float = 5.0  # of measurement for each kind of run
    _evaluation: dict[tuple[str, str], EvaluationTiming] = field(default_factory=dict)

    def measured(self, planned: PlannedRun) -> Cost:
        """The measured cost of a run."""
        spec, budget = planned.spec, planned.spec.budget
        if seconds_of(budget) is not None:
            spec = replace(spec, budget="quick")  # same steps and snapshots; the number of rounds is set below
        teacher_entry = planned.teacher if planned.teacher.sha256 else None
        dry_run = DryRun(spec, planned.method, teacher_entry, planned.addons)
        key = spec.task, spec.teacher
        if key not in self._evaluation:
            self._evaluation[key] = time_evaluation(dry_run)
        loading = self.start.loading.get(dry_run.task.dataset.name, 0.0)
        timing = time_run(dry_run, self._evaluation[key], loading, self.seconds_each)
        flags = dry_run.method(dry_run.settings).flags
        schedule = timing.fitted(dry_run.schedule, flags, budget)
        return Cost(
            timing.run(schedule, budget),
            MEASURED,
            timing.training(schedule).passes,
            schedule.total_steps * schedule.batch_size,
        )


@dataclass(frozen=True)
class Estimate:
    """The runs of a plan that are to be done, and their costs."""

    lines: tuple[Line, ...]
    seconds: tuple[float, ...]  # of each run, in the plan's order


def estimate(
    todo: Sequence[PlannedRun], estimator: Estimator, on_measurement: OnMeasurement = lambda number, of, run, left: None
) -> Estimate:
    """One `Line` for all runs that differ only in their seed.

    `on_measurement` is called before each measurement with its number (from 1), the total number, the run, and the
    estimated seconds of the remaining measurements.
    """
    runs = Counter(map(cost_key, todo))
    firsts: dict[str, PlannedRun] = {}
    for item in todo:
        firsts.setdefault(cost_key(item), item)
    costs = {key: cost_from_records(item.spec, estimator.results, estimator.device) for key, item in firsts.items()}
    unknown = [key for key, cost in costs.items() if cost is None]
    begun = time.monotonic()
    for k, key in enumerate(unknown):
        each = (time.monotonic() - begun) / k if k else estimator.seconds_each
        on_measurement(k + 1, len(unknown), firsts[key], each * (len(unknown) - k))
        costs[key] = estimator.measured(firsts[key])
    lines = {key: Line(firsts[key].spec, runs[key], cost) for key, cost in costs.items() if cost is not None}
    return Estimate(tuple(lines.values()), tuple(lines[cost_key(item)].cost.seconds for item in todo))


def cost_key(item: PlannedRun) -> str:
    """The hash of the specification without its seed: the same for all runs of a line."""
    return replace(item.spec, seed=0).hash


def to_do(planned: Sequence[PlannedRun], results: Path) -> list[PlannedRun]:
    """The runs that the command `run` would execute; it does not repeat failed runs."""
    hashes = {work.spec.hash for work in works_of(planned, results, SchedulerOptions())}
    return [item for item in planned if item.spec.hash in hashes]
