"""How many rounds a run has, and how long a round takes: what a budget of seconds turns into."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dfkd_bench.errors import RunError
from dfkd_bench.method import Flags


@dataclass(frozen=True)
class RoundTiming:
    """Seconds, means over `rounds` rounds: what a method does in some rounds alone counts with its share."""

    synthesis: float  # of a round's synthesis steps
    distillation: float  # of a round's student steps
    rounds: int

    @property
    def round(self) -> float:
        """A whole round."""
        return self.synthesis + self.distillation

    def rounds_in(self, seconds: float, flags: Flags) -> int:
        """How many rounds of a method with these flags fit into `seconds`, with their warm-up; one at least."""
        warmup = self.synthesis * flags.calls(warmup=True) / max(1, flags.calls(warmup=False))
        left = seconds - flags.warmup_rounds * warmup
        return max(1, round(left / (self.round + flags.warmup_fraction * warmup)))


@dataclass(frozen=True)
class Length:
    """How many rounds a run has, and the pace from which that follows."""

    rounds: int
    pace: RoundTiming

    def to_json(self) -> dict[str, Any]:
        """A plain dict, the inverse of `from_json`: rounds, seconds of a round by phase, rounds timed."""
        found = self.pace
        return {
            "rounds": self.rounds, "synthesis": found.synthesis, "distillation": found.distillation,
            "timed": found.rounds,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Any) -> Length:
        """Raises `RunError` for something else."""
        try:
            counts, seconds = (data["rounds"], data["timed"]), (data["synthesis"], data["distillation"])
        except (KeyError, TypeError) as error:
            raise RunError(f"not the length of a run: {error}") from error
        whole = all(type(n) is int and n > 0 for n in counts)
        real = all(type(s) in (int, float) and math.isfinite(s) and s >= 0 for s in seconds)
        if not (whole and real and sum(seconds) > 0):
            raise RunError(f"not the length of a run: {data}")
        return cls(counts[0], RoundTiming(seconds[0], seconds[1], counts[1]))
