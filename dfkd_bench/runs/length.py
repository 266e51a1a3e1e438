"""The number of rounds of a run, and the time per round from which a budget of seconds is converted to rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dfkd_bench.errors import RunError
from dfkd_bench.method import Flags


@dataclass(frozen=True)
class RoundTiming:
    """Seconds per round, as means over `rounds` timed rounds."""

    synthesis: float  # synthesis steps of a round
    distillation: float  # student steps of a round
    rounds: int  # number of timed rounds

    @property
    def round(self) -> float:
        """Seconds of a whole round."""
        return self.synthesis + self.distillation

    def rounds_in(self, seconds: float, flags: Flags) -> int:
        """The number of rounds that fit into `seconds`, warm-up included, for a method with these flags; at least 1."""
        warmup = self.synthesis * flags.calls(warmup=True) / max(1, flags.calls(warmup=False))
        left = seconds - flags.warmup_rounds * warmup
        return max(1, round(left / (self.round + flags.warmup_fraction * warmup)))


@dataclass(frozen=True)
class Length:
    """The number of rounds of a run, and the timing from which it was computed."""

    rounds: int
    pace: RoundTiming

    def to_json(self) -> dict[str, Any]:
        """A plain dict, the inverse of `from_json`: rounds, seconds per round by phase, number of timed rounds."""
        pace = self.pace
        return {
            "rounds": self.rounds, "synthesis": pace.synthesis, "distillation": pace.distillation, "timed": pace.rounds,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Any) -> Length:
        """The inverse of `to_json`. Raises `RunError` for invalid data."""
        try:
            counts, seconds = (data["rounds"], data["timed"]), (data["synthesis"], data["distillation"])
        except (KeyError, TypeError) as error:
            raise RunError(f"not the length of a run: {error}") from error
        whole = all(type(n) is int and n > 0 for n in counts)
        real = all(type(s) in (int, float) and math.isfinite(s) and s >= 0 for s in seconds)
        if not (whole and real and sum(seconds) > 0):
            raise RunError(f"not the length of a run: {data}")
        return cls(counts[0], RoundTiming(seconds[0], seconds[1], counts[1]))
