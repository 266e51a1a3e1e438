"""The interface of engines, their descriptions (`EngineKind`), and the values that are sent to workers and back.

This module imports nothing heavy, because help texts need it.
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
"""done: the run finished. skipped: its record existed. failed: the worker could not execute it; if the method failed,
there is a failed record. ended: stopped because a limit was exceeded. busy: another process executes it. lost: its
worker died (killed, or its node is gone); it can be resumed from its last checkpoint."""


@dataclass(frozen=True)
class Limits:
    """Limits of a run; a run that exceeds one is stopped and counts as failed. None: no limit."""

    seconds: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Work:
    """One run as it is sent to a worker."""

    run: PlannedRun
    options: RunOptions
    limits: Limits = field(default_factory=Limits)

    @property
    def spec(self) -> RunSpec:
        """The run's specification."""
        return self.run.spec

    @property
    def folder(self) -> Path:
        """The folder of the run's files."""
        return self.options.results / self.spec.folder


@dataclass(frozen=True)
class Report:
    """The outcome of one `Work`."""

    outcome: Outcome
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class EngineOptions:
    """The user's options for the engine."""

    jobs: int | None = None  # maximum number of runs at the same time
    address: str | None = None  # of an existing cluster
    config: Mapping[str, Any] = field(default_factory=dict)  # the engine's table in a TOML file
    folder: Path = Path("runs")  # for logs of the engine


@dataclass(frozen=True)
class EngineKind:
    """The description of an engine, readable without importing the engine: `KIND` of its module in this folder."""

    name: str
    about: str  # one line
    module: str  # with `make(options) -> Engine`
    # here: workers share the cores of this machine; with one worker, runs execute in the command's process.
    # cluster: workers have their own cores, which are held until the plan ends.
    # queue: each run is a job with its own process, which waits to be started and releases its resources at the end
    workers: Literal["here", "cluster", "queue"]
    extra: str = ""  # the extra of this package that installs the requirements
    takes: tuple[str, ...] = ()  # the fields of `EngineOptions` that it accepts, of address and config
    overhead: float = 0.0  # added seconds per run, measured on two cores by tests/benchmarks/engine_overhead.py


class Engine(Protocol):
    """Executes independent runs. Plans, retries and records belong to the driver (`scheduler.run_plan`)."""

    def describe(self) -> str:
        """A few words about where runs execute, for the head of the plan."""

    def refuse(self, works: Sequence[Work]) -> list[str]:
        """One line for each thing that the workers lack for these runs (a plug-in, a dataset, a device)."""

    def execute(self, works: Sequence[Work]) -> Generator[tuple[Work, Report], None, None]:
        """Execute each `Work` once, in any order, and yield it when it ends.

        Closing the iterator stops the workers; their runs can be resumed from checkpoints. Jobs in a queue are not
        stopped, and the next call finds them.
        """

    def close(self) -> None:
        """Release workers and connections."""
