"""The interface of an engine, what is known of one before it is imported, and what travels to a worker and back.

The last are plain values, so that they travel anywhere. This module imports nothing that a help text would wait for.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from dfkd_bench.runs.planned import PlannedRun, RunOptions
    from dfkd_bench.runs.spec import RunSpec

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

    run: PlannedRun
    options: RunOptions
    limits: Limits = field(default_factory=Limits)

    @property
    def spec(self) -> RunSpec:
        """The run's specification."""
        return self.run.spec

    @property
    def folder(self) -> Path:
        """Where the run's files are."""
        return self.options.results / self.spec.folder


@dataclass(frozen=True)
class Report:
    """What became of one piece of work."""

    outcome: Outcome
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class EngineOptions:
    """What a user says of where runs execute; what an engine does not take is refused."""

    jobs: int | None = None  # runs at the same time
    address: str | None = None  # of an existing cluster
    config: Mapping[str, Any] = field(default_factory=dict)  # the engine's own table of a TOML file
    folder: Path = Path("runs")  # where an engine may keep its logs


@dataclass(frozen=True)
class EngineKind:
    """What is known of an engine before it is imported: the `KIND` of its module in this folder."""

    name: str
    about: str  # in a line
    module: str  # with `make(options) -> Engine`
    # here: workers share this machine's cores, and one worker is the command's own process.
    # cluster: workers have cores of their own and are held to the end of a plan.
    # queue: each run is a job with a process of its own, waits to be started, and holds nothing afterwards
    workers: Literal["here", "cluster", "queue"]
    extra: str = ""  # of this package, that installs what it needs
    takes: tuple[str, ...] = ()  # fields of `EngineOptions` that not every engine takes: address, config
    overhead: float = 0.0  # seconds that it adds to a run, measured on two cores by tests/benchmarks/engine_overhead.py


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
