"""A run's job without the run: to be stepped through, timed or counted, and thrown away. No record comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dfkd_bench import models
from dfkd_bench.data.noise import noise_like
from dfkd_bench.errors import UsageError
from dfkd_bench.method import Method
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.plugins.registry import card, load, load_addon
from dfkd_bench.protocol import Task, task
from dfkd_bench.runs.spec import RunSpec, frozen_settings
from dfkd_bench.teachers.registry import Teacher, freeze, load_teacher, with_normalisation_of
from dfkd_bench.training.build import allowed_privileges, assemble, gets_real_data, plan_run, settings_errors
from dfkd_bench.training.compose import without_addons
from dfkd_bench.training.loop import Job, Schedule
from dfkd_bench.training.runner import prepare_device
from dfkd_bench.utils.seeding import seed_global


def job_for(
    spec: RunSpec,
    entry: Entry,
    teacher_entry: Teacher | None,
    chosen: Task,
    addons: Sequence[Entry] = (),
    stand_in: bool = False,
) -> Job:
    """A job to step through, always from the same state. Without `teacher_entry` the teacher's weights are random.

    With `stand_in`, a method that may have real data is given noise of the same form. Raises `UsageError` for a method
    that needs real data where there is none.
    """
    device = prepare_device(spec)
    kind, allowed = load(entry), allowed_privileges(entry)
    if kind.privileges.real_data and not (chosen.dataset.reader or stand_in):
        raise UsageError(f"{spec.method} needs real data, which --networks does without")
    teacher, chosen = teacher_in(spec, teacher_entry, chosen, device)
    if stand_in and gets_real_data(kind, allowed):
        chosen = replace(chosen, dataset=noise_like(chosen.dataset))
    around = [load_addon(addon) for addon in addons]
    job, _ = assemble(spec, chosen, kind, allowed, teacher, device, storage=None, addons=around)  # type: ignore[arg-type]
    return job


def teacher_in(spec: RunSpec, teacher_entry: Teacher | None, chosen: Task, device: torch.device) -> tuple[Tapped, Task]:
    """The teacher on `device`, its weights random without `teacher_entry`, and the task as its runs see it."""
    if teacher_entry is not None:
        return load_teacher(teacher_entry, device), with_normalisation_of(chosen, teacher_entry)
    seed_global(spec.seed, "profile-teacher")
    return freeze(models.build(chosen.teacher, chosen.dataset.classes, chosen.dataset.image_shape), device), chosen


@dataclass(frozen=True)
class DryRun:
    """One kind of run, of which jobs can be made at will, noise in place of real data."""

    spec: RunSpec
    entry: Entry
    teacher_entry: Teacher | None  # without one the teacher's weights are random
    addons: tuple[Entry, ...] = ()

    @property
    def task(self) -> Task:
        """What it is about."""
        return task(self.spec.task)

    @property
    def settings(self) -> dict[str, Any]:
        """Of the method."""
        return dict(self.spec.settings)

    def job(self, settings: Mapping[str, Any]) -> Job:
        """A job with other settings of the method."""
        spec = replace(self.spec, settings=frozen_settings(dict(settings)))
        return job_for(spec, self.entry, self.teacher_entry, self.task, self.addons, stand_in=True)

    def method(self, settings: Mapping[str, Any]) -> Method:
        """The method with other settings, not set up."""
        kind = load(self.entry)
        with settings_errors(f"method {self.spec.method}"):
            return kind(kind.Config(**settings))

    @property
    def schedule(self) -> Schedule:
        """How long the run is."""
        method = self.method(self.settings)
        return plan_run(self.spec, self.task, method.flags, method.recipe)[1]

    def shorter(self) -> dict[str, int]:
        """Settings that the method itself shortens for a run of the smallest budget, with these values."""
        smoke = card(self.entry).budget_settings.get("smoke", {})
        return {name: n for name, n in smoke.items() if type(n) is int and self.settings[name] > n}

    def loops(self, low: int) -> list[str]:
        """Settings above `low` by which a synthesis step repeats something.

        They are among those that the method shortens for the smallest budget, and leave the number of student steps.
        """

        def steps(settings: Mapping[str, Any]) -> int:
            return self.method(settings).flags.student_steps

        own, smoke = steps(self.settings), card(self.entry).budget_settings.get("smoke", {})
        whole = [name for name, n in smoke.items() if type(n) is int and self.settings[name] > low]
        return [name for name in whole if steps({**self.settings, name: low}) == own]


def shows_images(method: Method) -> bool:
    """Whether a method has images to show."""
    return type(without_addons(method)).preview is not Method.preview
