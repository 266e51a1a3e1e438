"""`PlannedRun` and `RunOptions`, which api, engines and runner pass on: what to run, and how to execute it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import ADDON, Entry, Kind
from dfkd_bench.plugins.objects import kind_and_name
from dfkd_bench.protocol import task
from dfkd_bench.runs.length import Length
from dfkd_bench.runs.loggers import Log
from dfkd_bench.runs.progress import Callback, no_callback
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.teachers.registry import Teacher, teacher, teacher_for

State = Literal["done", "interrupted", "failed", "missing"]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan. It may be sent to another machine, where `here` looks up plug-ins and teacher again."""

    spec: RunSpec
    method: Entry
    teacher: Teacher
    addons: tuple[Entry, ...] = ()
    length: Length | None = None  # of the record that is repeated, if its budget is of seconds
    state: State = "missing"  # in the results folder, at the time of planning

    @classmethod
    def of(cls, spec: RunSpec) -> PlannedRun:
        """The run of a specification, with the plug-ins of its names and the task's default teacher on this machine.

        Raises `UsageError` if one is missing.
        """
        addons = tuple(registry.resolve(addon.name, ADDON) for addon in spec.addons)
        return cls(spec, registry.resolve(spec.method), teacher_for(task(spec.task)), addons)

    def here(self) -> PlannedRun:
        """The same run with plug-ins and teacher of this machine. Raises `UsageError` if one is missing."""
        method, *addons = (registry.resolve(entry.word, entry.kind) for entry in (self.method, *self.addons))
        return replace(self, method=method, teacher=teacher(self.teacher.name), addons=tuple(addons))

    @property
    def plugins(self) -> tuple[tuple[Kind, str, str], ...]:
        """Every plug-in that the run needs as (kind, word for the registry, digest of the code).

        In this order: the method, the add-ons, the plug-ins of the task. Raises `RunError` for an unknown kind.
        """
        codes = (self.spec.code, *(addon.code for addon in self.spec.addons))
        entries: Sequence[Entry] = (self.method, *self.addons)
        own = tuple((entry.kind, entry.word, code) for entry, code in zip(entries, codes, strict=True))
        return (*own, *((*kind_and_name(word), code) for word, code in self.spec.plugins))


@dataclass(frozen=True)
class RunOptions:
    """How a run is executed; no option changes a result."""

    results: Path
    force: bool = False  # run again, from the start, even if finished
    fresh: bool = False  # if record or checkpoint is damaged, start again instead of raising
    checkpoint_seconds: float = 30.0  # between two checkpoints; negative: after every round
    callback: Callback = no_callback
    logs: tuple[Log, ...] = ()
