"""Seconds of one kind of run, part by part, and what they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dfkd_bench.method import Flags
from dfkd_bench.profiling.estimate.arithmetic import Counted
from dfkd_bench.protocol import seconds_of
from dfkd_bench.runs.length import Pace
from dfkd_bench.training.loop import Schedule

CHECKPOINTS = 30.0  # seconds between two, beside those at snapshots


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    warmup: float  # of a warm-up round
    synthesis: float  # of the first round; later ones grow as counted
    distillation: float  # of a round
    snapshot: float = 0.0  # with its preview of `PROBE` images
    last: float = 0.0  # the last snapshot, with `FINAL` images
    checkpoint: float = 0.0
    around: float = 0.0  # once a run: building networks, loading images, evaluation

    def training(self, schedule: Schedule, counted: Counted) -> float:
        """All rounds, warm-up included."""
        return (
            self.warmup * schedule.warmup_rounds
            + self.synthesis * counted.grown(schedule.rounds)
            + self.distillation * schedule.rounds
        )

    def run(self, schedule: Schedule, counted: Counted, budget: str) -> float:
        """From beginning to record."""
        training = seconds_of(budget) or self.training(schedule, counted)
        points = len(schedule.snapshots)
        snapshots = self.snapshot * (points - 1) + self.last
        return training + snapshots + self.checkpoint * (points + training / CHECKPOINTS) + self.around

    def fitted(self, schedule: Schedule, counted: Counted, flags: Flags, budget: str) -> Schedule:
        """The schedule itself, or one whose rounds take the seconds of the budget."""
        if (seconds := seconds_of(budget)) is None:
            return schedule
        rounds = Pace(self.synthesis * counted.growth[-1], self.distillation, 1).rounds_in(seconds, flags)
        warmup = flags.warmup_rounds + math.ceil(flags.warmup_fraction * rounds)
        return replace(schedule, rounds=rounds, warmup_rounds=warmup)
