"""One run with all that it needs to start, and how it is carried out: what api, engines and runner hand on."""

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
    """One run of a plan. It may be sent to another machine, where `here` finds plug-ins and teacher again."""

    spec: RunSpec
    method: Entry
    teacher: Teacher
    addons: tuple[Entry, ...] = ()
    length: Length | None = None  # of a record to be repeated, where its budget is of seconds
    state: State = "missing"  # in the results folder when the plan was made

    @classmethod
    def of(cls, spec: RunSpec) -> PlannedRun:
        """The run of a specification with the plug-ins of these names and the task's teacher as they are here.

        Raises `UsageError` where one is not.
        """
        around = tuple(registry.resolve(addon.name, ADDON) for addon in spec.addons)
        return cls(spec, registry.resolve(spec.method), teacher_for(task(spec.task)), around)

    def here(self) -> PlannedRun:
        """The same run with plug-ins and teacher as this machine has them. Raises `UsageError` where one is not."""
        method, *around = (registry.resolve(entry.word, entry.kind) for entry in (self.method, *self.addons))
        return replace(self, method=method, teacher=teacher(self.teacher.name), addons=tuple(around))

    @property
    def plugins(self) -> tuple[tuple[Kind, str, str], ...]:
        """What a machine must have for it: kind, word for the registry, digest of the code; the method first.

        Behind method and add-ons comes what other packages bring of the task. Raises `RunError` for a kind unknown.
        """
        codes = (self.spec.code, *(addon.code for addon in self.spec.addons))
        entries: Sequence[Entry] = (self.method, *self.addons)
        own = tuple((entry.kind, entry.word, code) for entry, code in zip(entries, codes, strict=True))
        return (*own, *((*kind_and_name(word), code) for word, code in self.spec.plugins))


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; none of it changes a number."""

    results: Path
    force: bool = False  # redo it if it is finished, start it over if it is not
    fresh: bool = False  # start over where record or checkpoint is damaged, instead of refusing
    checkpoint_seconds: float = 30.0  # between two checkpoints; negative: after every round
    callback: Callback = no_callback  # told of each step
    logs: tuple[Log, ...] = ()  # loggers, told the same
