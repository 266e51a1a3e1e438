"""What is told of a run while it goes on: numbers, never images or networks; and what a logger is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dfkd_bench.runs.spec import RunSpec


@dataclass(frozen=True)
class ProgressEvent:
    """What a callback sees of a run: numbers, never images or networks."""

    phase: str  # timing (of a budget of seconds), warm-up, training, evaluation
    round: int
    rounds: int
    student_images: int
    seconds: float  # since this process took the run up
    restarted_at: int  # round this process began with
    row: Mapping[str, float] | None = None  # of the curves, at a snapshot


class Callback(Protocol):
    """Whoever follows a run live."""

    def __call__(self, event: ProgressEvent) -> None:
        """Called after every round."""


def no_callback(event: ProgressEvent) -> None:
    """The callback that does nothing."""


def needs_nothing() -> None:
    """The check of a logger that needs nothing."""


@dataclass(frozen=True)
class Logger:
    """A plug-in that is told of each step of a run; for `dfkd-bench run --log NAME`.

    A package declares its object as an entry point of the group `dfkd_bench.loggers`. A logger changes no number: one
    that raises is left out, and the run goes on.
    """

    name: str  # as on the command line; that of the entry point
    about: str  # what it does, in a line; written as a literal, since lists read it without importing the file
    # (folder, specification) -> context of one run, whose value is called with each `Moment`. The folder is the run's
    # own and need not exist; a run that was interrupted is opened again when it goes on
    open: Callable[[Path, RunSpec], AbstractContextManager[Callback]]
    check: Callable[[], None] = needs_nothing  # called before any run; raises `UsageError` where something is missing
