"""The interface of an engine, and what travels to a worker and back: plain values, so that they travel anywhere."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dfkd_bench.plugins.entry import ADDON, METHOD, Kind
from dfkd_bench.runs.spec import RunSpec

if TYPE_CHECKING:
    from dfkd_bench.runs.length import Length

Outcome = Literal["done", "skipped", "failed", "ended", "busy", "lost"]
"""done: it ran to its end. skipped: its record was there. failed: the worker could not do it, and has left a failed
record where the method is to blame. ended: it was stopped because it took more than it may. busy: another process is at
it. lost: its worker died under it (killed, its node gone); it goes on from its last checkpoint."""


@dataclass(frozen=True)
class Limits:
    """What a run may take before it is stopped and counted as failed; None: as much as it wants."""

    seconds: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Work:
    """One run as it is handed to a worker."""

    spec: RunSpec
    method: str  # by which the registry finds it: a name, or path.py:Class
    teacher: str  # its name in the registry of teachers
    results: str
    limits: Limits = field(default_factory=Limits)
    checkpoint_seconds: float = 30.0
    force: bool = False
    fresh: bool = False  # start over where the checkpoint is damaged, instead of refusing
    addons: tuple[str, ...] = ()  # around the method, each by a name or path.py:Class
    length: Length | None = None  # of a record to be repeated, where its budget is of seconds

    @property
    def plugins(self) -> tuple[tuple[Kind, str, str], ...]:
        """What a worker must have to run this: kind, word for the registry, digest of the code."""
        around = zip(self.addons, self.spec.addons, strict=True)
        return ((METHOD, self.method, self.spec.code), *((ADDON, word, addon.code) for word, addon in around))

    @property
    def folder(self) -> Path:
        """Where the run's files are."""
        return Path(self.results) / self.spec.folder


@dataclass(frozen=True)
class Report:
    """What became of one piece of work."""

    outcome: Outcome
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class EngineOptions:
    """What a user says of where runs execute; an engine takes what it understands and refuses the rest."""

    jobs: int | None = None  # runs at the same time
    address: str | None = None  # of an existing cluster
    config: Mapping[str, Any] = field(default_factory=dict)  # the engine's own table of a TOML file
    folder: Path = Path("runs")  # where an engine may keep its logs


class Engine(Protocol):
    """Runs independent pieces of work. Plans, retries and records are the driver's (`sweep`), not the engine's."""

    def describe(self) -> str:
        """Where runs execute, in a few words, for the head of the plan."""

    def refuse(self, works: Sequence[Work]) -> list[str]:
        """One line for whatever the workers lack to run these (a plugin, a dataset, a device); empty if nothing."""

    def execute(self, works: Sequence[Work]) -> Generator[tuple[Work, Report], None, None]:
        """Carry out each piece of work once, in any order, and yield it as it ends.

        Closing the iterator stops the workers, and what they were at goes on from its checkpoint the next time; jobs
        that belong to a queue of their own go on by themselves, and the next call finds them.
        """

    def close(self) -> None:
        """Let go of workers and connections."""
