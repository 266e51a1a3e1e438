"""Seconds and teacher passes of the parts of a run, and their sum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dfkd_bench.method import Flags
from dfkd_bench.protocol import seconds_of
from dfkd_bench.runs.length import RoundTiming
from dfkd_bench.training.loop import Schedule

CHECKPOINTS = 30.0  # seconds between two checkpoints, in addition to those at snapshots


@dataclass(frozen=True)
class Part:
    """Part of a round: seconds, and images forward and backward through the teacher."""

    seconds: float = 0.0
    passes: float = 0.0

    def __mul__(self, factor: float) -> Part:
        return Part(self.seconds * factor, self.passes * factor)


@dataclass(frozen=True)
class Timing:
    """Parts of a run. Floats are seconds."""

    warmup: Part  # a warm-up round
    synthesis: Part  # of any other round
    distillation: Part  # of any other round
    snapshot: float = 0.0  # with its preview of `PROBE` images
    last: float = 0.0  # the last snapshot, with `FINAL` images
    checkpoint: float = 0.0
    once: float = 0.0  # once per run: building networks, loading images, evaluation

    def training(self, schedule: Schedule) -> Part:
        """All rounds, including warm-up."""
        parts = (
            self.warmup * schedule.warmup_rounds,
            self.synthesis * schedule.rounds,
            self.distillation * schedule.rounds,
        )
        return Part(sum(p.seconds for p in parts), sum(p.passes for p in parts))

    def run(self, schedule: Schedule, budget: str) -> float:
        """Seconds from start to record."""
        training = seconds_of(budget) or self.training(schedule).seconds
        points = len(schedule.snapshots)
        snapshots = self.snapshot * (points - 1) + self.last
        return training + snapshots + self.checkpoint * (points + training / CHECKPOINTS) + self.once

    def fitted(self, schedule: Schedule, flags: Flags, budget: str) -> Schedule:
        """`schedule`, or for a budget of seconds a schedule with as many rounds as fit into it."""
        if (seconds := seconds_of(budget)) is None:
            return schedule
        rounds = RoundTiming(self.synthesis.seconds, self.distillation.seconds, 1).rounds_in(seconds, flags)
        warmup = flags.warmup_rounds + math.ceil(flags.warmup_fraction * rounds)
        return replace(schedule, rounds=rounds, warmup_rounds=warmup)
