"""A plan as lines, each with the cost of a run: from records, measured here and now, or computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

from dfkd_bench.engines.scheduler import Terms, works_of
from dfkd_bench.profiling.estimate import COMPUTED, MEASURED, Cost, Line
from dfkd_bench.profiling.estimate.arithmetic import model_of
from dfkd_bench.profiling.estimate.computed import Device, computed
from dfkd_bench.profiling.estimate.recorded import recorded
from dfkd_bench.profiling.estimate.seconds import Judging, judging, measured
from dfkd_bench.profiling.estimate.startup import Start
from dfkd_bench.protocol import seconds_of
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.training.dry_run import Rehearsal

Tell = Callable[[str], None]


@dataclass
class Estimator:
    """Finds the cost of a run from the best source; what runs of one task share is measured once."""

    results: Path
    device: str  # name of the one that runs would be on
    start: Start
    elsewhere: Device | None = None  # where that is not here: what to compute with, instead of measuring
    seconds_each: float = 5.0  # of measuring a kind of run
    _judged: dict[tuple[str, str], Judging] = field(default_factory=dict)

    def cost(self, planned: PlannedRun) -> Cost:
        """What one run costs."""

        def is_it(name: str) -> bool:
            return self.device in name if self.elsewhere else self.device == name

        return recorded(planned.spec, self.results, is_it) or self.rehearsed(planned)

    def rehearsed(self, planned: PlannedRun) -> Cost:
        """What a run costs of which there is no record."""
        spec, budget = planned.spec, planned.spec.budget
        if seconds_of(budget) is not None:
            spec = replace(spec, budget="quick")  # whose steps and snapshots it has, and as many rounds as fit
        mentor = planned.teacher if planned.teacher.sha256 else None
        rehearsal = Rehearsal(spec, planned.method, mentor, planned.addons)
        counting = Rehearsal(replace(spec, device="cpu", compile=False), planned.method, mentor, planned.addons)
        model = model_of(counting)
        whole, flags = model.at(rehearsal.settings), rehearsal.method(rehearsal.settings).flags
        if self.elsewhere:
            timing = computed(counting, whole, self.elsewhere)
        else:
            key = spec.task, spec.teacher
            if key not in self._judged:
                self._judged[key] = judging(rehearsal)
            loading = self.start.loading.get(rehearsal.task.dataset.name, 0.0)
            timing = measured(rehearsal, model, self._judged[key], loading, self.seconds_each)
        schedule = timing.fitted(rehearsal.schedule, whole, flags, budget)
        return Cost(
            timing.run(schedule, whole, budget),
            COMPUTED if self.elsewhere else MEASURED,
            whole.training(schedule).passes,
            schedule.total_steps * schedule.batch_size,
        )


@dataclass(frozen=True)
class Estimate:
    """What of a plan is to be done, and what it costs."""

    lines: tuple[Line, ...]
    seconds: tuple[float, ...]  # of each run, in the plan's order


def estimate(
    todo: Sequence[PlannedRun], estimator: Estimator, tell: Tell = lambda what: None, processes: int = 1
) -> Estimate:
    """A line for all runs that differ in their seed alone; `tell` hears of each before it is looked at.

    With `processes` above one that many look at different ones at a time, which is for computing, not for measuring.
    """
    runs = Counter(map(kind, todo))
    firsts: dict[str, PlannedRun] = {}
    for item in todo:
        firsts.setdefault(kind(item), item)
    lines: dict[str, Line] = {}
    with costs_of(list(firsts.values()), estimator, min(processes, len(firsts))) as costs:
        for k, (key, item) in enumerate(firsts.items(), start=1):
            tell(f"{k} of {len(firsts)}: {item.spec.method} on {item.spec.task}")
            lines[key] = Line(item.spec, runs[key], next(costs))
    return Estimate(tuple(lines.values()), tuple(lines[kind(item)].cost.seconds for item in todo))


@contextmanager
def costs_of(items: Sequence[PlannedRun], estimator: Estimator, processes: int) -> Iterator[Iterator[Cost]]:
    """The cost of each, in order; what is not asked for any more is dropped."""
    if processes < 2:
        yield map(estimator.cost, items)
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"))  # as workers of runs are started
    try:
        yield pool.map(estimator.cost, items)
    finally:
        pool.shutdown(cancel_futures=True)


def kind(item: PlannedRun) -> str:
    """What the runs of a line share."""
    return replace(item.spec, seed=0).hash


def to_do(planned: Sequence[PlannedRun], results: Path) -> list[PlannedRun]:
    """The runs that the command `run` would carry out; those that failed rest."""
    wanted = {work.spec.hash for work in works_of(planned, results, Terms())}
    return [item for item in planned if item.spec.hash in wanted]
