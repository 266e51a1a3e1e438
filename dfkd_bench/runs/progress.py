"""The progress events of a run, and the interfaces of callbacks and loggers."""

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
    """The state of a run after a round: numbers only, no images and no networks."""

    phase: str  # timing (for a budget of seconds), warm-up, training, evaluation
    round: int
    rounds: int
    student_images: int
    seconds: float  # since this process started or resumed the run
    restarted_at: int  # the first round of this process
    row: Mapping[str, float] | None = None  # the row of the curves, at a snapshot


class Callback(Protocol):
    """A function that gets the progress events of a run."""

    def __call__(self, event: ProgressEvent) -> None:
        """Called after every round."""


def no_callback(event: ProgressEvent) -> None:
    """The callback that does nothing."""


def needs_nothing() -> None:
    """The check of a logger without requirements."""


@dataclass(frozen=True)
class Logger:
    """A plug-in that gets the progress events of runs, for `dfkd-bench run --log NAME`.

    A package declares a `Logger` as an entry point of the group `dfkd_bench.loggers`. If a logger raises, the run
    continues without it; no logger changes a result.
    """

    name: str  # as on the command line; the name of the entry point
    about: str  # one line, written as a literal: lists read it without importing the file
    # (folder, specification) -> context manager of one run, which gives the callback. The folder belongs to the run
    # and may not exist yet; `open` is called again when an interrupted run is resumed
    open: Callable[[Path, RunSpec], AbstractContextManager[Callback]]
    check: Callable[[], None] = needs_nothing  # called before any run; raises `UsageError` if something is missing
