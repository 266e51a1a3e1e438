"""A plan as lines, each with the cost of a run: from records, or measured here and now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfkd_bench.engines.scheduler import SchedulerOptions, works_of
from dfkd_bench.profiling.estimate import MEASURED, Cost, Line
from dfkd_bench.profiling.estimate.recorded import recorded
from dfkd_bench.profiling.estimate.seconds import Judging, judging, measured
from dfkd_bench.profiling.estimate.startup import Start
from dfkd_bench.protocol import seconds_of
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.training.dry_run import DryRun

Tell = Callable[[int, int, PlannedRun, float], None]


@dataclass
class Estimator:
    """Finds the cost of a run on this machine; what runs of one task share is measured once."""

    results: Path
    device: str  # its name, as in records
    start: Start
    seconds_each: float = 5.0  # of measuring a kind of run
    _judged: dict[tuple[str, str], Judging] = field(default_factory=dict)

    def measured(self, planned: PlannedRun) -> Cost:
        """What a run costs of which there is no record."""
        spec, budget = planned.spec, planned.spec.budget
        if seconds_of(budget) is not None:
            spec = replace(spec, budget="quick")  # whose steps and snapshots it has, and as many rounds as fit
        teacher_entry = planned.teacher if planned.teacher.sha256 else None
        rehearsal = DryRun(spec, planned.method, teacher_entry, planned.addons)
        key = spec.task, spec.teacher
        if key not in self._judged:
            self._judged[key] = judging(rehearsal)
        loading = self.start.loading.get(rehearsal.task.dataset.name, 0.0)
        timing = measured(rehearsal, self._judged[key], loading, self.seconds_each)
        flags = rehearsal.method(rehearsal.settings).flags
        schedule = timing.fitted(rehearsal.schedule, flags, budget)
        return Cost(
            timing.run(schedule, budget),
            MEASURED,
            timing.training(schedule).passes,
            schedule.total_steps * schedule.batch_size,
        )


@dataclass(frozen=True)
class Estimate:
    """What of a plan is to be done, and what it costs."""

    lines: tuple[Line, ...]
    seconds: tuple[float, ...]  # of each run, in the plan's order


def estimate(
    todo: Sequence[PlannedRun], estimator: Estimator, tell: Tell = lambda number, of, run, left: None
) -> Estimate:
    """A line for all runs that differ in their seed alone.

    `tell` gets, before each of those that have to be measured: its number from 1 on, how many there are, the run, and
    the seconds that the rest will take, by those that were measured.
    """
    runs = Counter(map(kind, todo))
    firsts: dict[str, PlannedRun] = {}
    for item in todo:
        firsts.setdefault(kind(item), item)
    costs = {key: recorded(item.spec, estimator.results, estimator.device) for key, item in firsts.items()}
    unknown = [key for key, cost in costs.items() if cost is None]
    begun = time.monotonic()
    for k, key in enumerate(unknown):
        each = (time.monotonic() - begun) / k if k else estimator.seconds_each
        tell(k + 1, len(unknown), firsts[key], each * (len(unknown) - k))
        costs[key] = estimator.measured(firsts[key])
    lines = {key: Line(firsts[key].spec, runs[key], cost) for key, cost in costs.items() if cost is not None}
    return Estimate(tuple(lines.values()), tuple(lines[kind(item)].cost.seconds for item in todo))


def kind(item: PlannedRun) -> str:
    """What the runs of a line share."""
    return replace(item.spec, seed=0).hash


def to_do(planned: Sequence[PlannedRun], results: Path) -> list[PlannedRun]:
    """The runs that the command `run` would carry out; those that failed rest."""
    wanted = {work.spec.hash for work in works_of(planned, results, SchedulerOptions())}
    return [item for item in planned if item.spec.hash in wanted]
