"""Seconds and teacher passes of one kind of run, part by part, and what they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dfkd_bench.method import Flags
from dfkd_bench.protocol import seconds_of
from dfkd_bench.runs.length import RoundTiming
from dfkd_bench.training.loop import Schedule

CHECKPOINTS = 30.0  # seconds between two, beside those at snapshots


@dataclass(frozen=True)
class Part:
    """Of one round: seconds, and images forward and backward through the teacher."""

    seconds: float = 0.0
    passes: float = 0.0

    def __mul__(self, factor: float) -> Part:
        return Part(self.seconds * factor, self.passes * factor)


@dataclass(frozen=True)
class Timing:
    """Parts of a run. All but the first three are seconds."""

    warmup: Part  # a warm-up round
    synthesis: Part  # of any other round
    distillation: Part
    snapshot: float = 0.0  # with its preview of `PROBE` images
    last: float = 0.0  # the last snapshot, with `FINAL` images
    checkpoint: float = 0.0
    around: float = 0.0  # once a run: building networks, loading images, evaluation

    def training(self, schedule: Schedule) -> Part:
        """All rounds, warm-up included."""
        parts = (
            self.warmup * schedule.warmup_rounds,
            self.synthesis * schedule.rounds,
            self.distillation * schedule.rounds,
        )
        return Part(sum(p.seconds for p in parts), sum(p.passes for p in parts))

    def run(self, schedule: Schedule, budget: str) -> float:
        """Seconds from beginning to record."""
        training = seconds_of(budget) or self.training(schedule).seconds
        points = len(schedule.snapshots)
        snapshots = self.snapshot * (points - 1) + self.last
        return training + snapshots + self.checkpoint * (points + training / CHECKPOINTS) + self.around

    def fitted(self, schedule: Schedule, flags: Flags, budget: str) -> Schedule:
        """The schedule itself, or one whose rounds take the seconds of the budget."""
        if (seconds := seconds_of(budget)) is None:
            return schedule
        rounds = RoundTiming(self.synthesis.seconds, self.distillation.seconds, 1).rounds_in(seconds, flags)
        warmup = flags.warmup_rounds + math.ceil(flags.warmup_fraction * rounds)
        return replace(schedule, rounds=rounds, warmup_rounds=warmup)
