"""Jobs that are only timed or counted, for profiling and estimates. They write no record."""

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
from dfkd_bench.protocol import Task
from dfkd_bench.protocol import task as task_of
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
    task: Task,
    addons: Sequence[Entry] = (),
    stand_in: bool = False,
) -> Job:
    """A job without storage, always in the same initial state.

    Without `teacher_entry` the teacher's weights are random. With `stand_in`, a method that is granted real data gets
    noise of the same shape instead. Raises `UsageError` if the method needs real data and the task has no dataset.
    """
    device = prepare_device(spec)
    kind, allowed = load(entry), allowed_privileges(entry)
    if kind.privileges.real_data and not (task.dataset.reader or stand_in):
        raise UsageError(f"{spec.method} needs real data, which is not available with --networks")
    teacher, task = teacher_in(spec, teacher_entry, task, device)
    if stand_in and gets_real_data(kind, allowed):
        task = replace(task, dataset=noise_like(task.dataset))
    kinds = [load_addon(addon) for addon in addons]
    job, _ = assemble(spec, task, kind, allowed, teacher, device, storage=None, addons=kinds)  # type: ignore[arg-type]
    return job


def teacher_in(spec: RunSpec, teacher_entry: Teacher | None, task: Task, device: torch.device) -> tuple[Tapped, Task]:
    """The teacher on `device` (random weights without `teacher_entry`), and the task with its normalisation."""
    if teacher_entry is not None:
        return load_teacher(teacher_entry, device), with_normalisation_of(task, teacher_entry)
    seed_global(spec.seed, "profile-teacher")
    return freeze(models.build(task.teacher, task.dataset.classes, task.dataset.image_shape), device), task


@dataclass(frozen=True)
class DryRun:
    """A run of which jobs can be built with different settings, with noise in place of real data."""

    spec: RunSpec
    entry: Entry
    teacher_entry: Teacher | None  # None: random weights
    addons: tuple[Entry, ...] = ()

    @property
    def task(self) -> Task:
        """The task of the run."""
        return task_of(self.spec.task)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the method."""
        return dict(self.spec.settings)

    def job(self, settings: Mapping[str, Any]) -> Job:
        """A job with other settings of the method."""
        spec = replace(self.spec, settings=frozen_settings(dict(settings)))
        return job_for(spec, self.entry, self.teacher_entry, self.task, self.addons, stand_in=True)

    def method(self, settings: Mapping[str, Any]) -> Method:
        """The method with other settings, before `setup`."""
        kind = load(self.entry)
        with settings_errors(f"method {self.spec.method}"):
            return kind(kind.Config(**settings))

    @property
    def schedule(self) -> Schedule:
        """The schedule of the run."""
        method = self.method(self.settings)
        return plan_run(self.spec, self.task, method.flags, method.recipe)[1]

    def shorter(self) -> dict[str, int]:
        """Integer settings that the method reduces for budget smoke, with the reduced values."""
        smoke = card(self.entry).budget_settings.get("smoke", {})
        return {name: n for name, n in smoke.items() if type(n) is int and self.settings[name] > n}

    def loops(self, low: int) -> list[str]:
        """Names of the settings above `low` that are numbers of repetitions inside a synthesis step.

        These are integer settings that the method reduces for budget smoke and that do not change `student_steps`.
        """

        def steps(settings: Mapping[str, Any]) -> int:
            return self.method(settings).flags.student_steps

        own, smoke = steps(self.settings), card(self.entry).budget_settings.get("smoke", {})
        whole = [name for name, n in smoke.items() if type(n) is int and self.settings[name] > low]
        return [name for name in whole if steps({**self.settings, name: low}) == own]


def shows_images(method: Method) -> bool:
    """True if the method has a preview."""
    return type(without_addons(method)).preview is not Method.preview
