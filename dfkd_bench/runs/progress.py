"""What is told of a run while it goes on: numbers, never images or networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Moment:
    """What a watcher sees of a run: numbers, never images or networks."""

    phase: str  # timing (of a budget of seconds), warm-up, training, evaluation
    round: int
    rounds: int
    student_images: int
    seconds: float  # since this process took the run up
    restarted_at: int  # round this process began with
    row: Mapping[str, float] | None = None  # of the curves, at a snapshot


class Watcher(Protocol):
    """Whoever follows a run live."""

    def __call__(self, moment: Moment) -> None:
        """Called after every round."""
