"""Builds the `Job` of a run: method, student, context, recipe, schedule. Used by `run` and by `profile`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dfkd_bench import models
from dfkd_bench.addon import AddOn
from dfkd_bench.data import loading
from dfkd_bench.errors import RunError
from dfkd_bench.method import Flags, Method, StudentRecipe, TaskFacts
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.protocol import GRANTED, SNAPSHOTS, Task, seconds_of
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.training.compose import Composed
from dfkd_bench.training.context import RunContext
from dfkd_bench.training.loop import Job, RunStorage, Schedule
from dfkd_bench.utils.seeding import derive, seed_global


def assemble(
    spec: RunSpec,
    task: Task,
    kind: type[Method],
    allowed: frozenset[str],
    teacher: Tapped,
    device: torch.device,
    storage: RunStorage,
    addons: Sequence[type[AddOn]] = (),
    rounds: int | None = None,
) -> tuple[Job, dict[str, Any]]:
    """A job ready for the loop, and the method's resolved settings.

    `allowed`: the privileges of `allowed_privileges`. `addons`: the classes of the specification's add-ons, in its
    order. `rounds`: the length of the run, only for a budget of seconds. Raises `RunError` if the method or an add-on
    does not accept its settings.
    """
    settings = dict(spec.settings)
    with settings_errors(f"method {spec.method}"):
        method = kind(kind.Config(**settings))
    own = kind.privileges_of(spec.preset)
    if spec.addons:
        instances = []
        for addon_spec, addon in zip(spec.addons, addons, strict=True):
            with settings_errors(f"add-on {addon_spec.name}"):
                instances.append((addon_spec.name, addon(addon.Config(**dict(addon_spec.settings)))))
        method = Composed(method, own, instances)
    recipe, schedule = plan_run(spec, task, method.flags, method.recipe, rounds)
    seed_global(spec.seed, "student-init")  # the same seed gives every method the same initial student
    data = task.dataset
    student = place(models.build(task.student, data.classes, data.image_shape), device)
    facts = TaskFacts(
        task.name,
        data.classes,
        data.image_shape,
        data.mean,
        data.std,
        schedule.batch_size,
        task.pinned.generator_width,
        data.crop_padding,
        data.flip,
    )
    granted = gets_real_data(kind, allowed)
    context = RunContext(
        teacher, student, facts, device, spec.seed, method.privileges if spec.addons else own,
        precision=spec.precision, compile=spec.compile, allowed=allowed,
        real_data=(lambda: loading.TrainingBatches(loading.load(data, device)[0])) if granted else None,
    )  # fmt: skip
    seed_global(derive(spec.seed, "method"), "setup")
    method.setup(context)
    return Job(method, context, student, recipe, schedule, storage), settings


@contextmanager
def settings_errors(who: str) -> Iterator[None]:
    """Turn a `TypeError` or `ValueError` inside into a `RunError` that says that `who` refuses its settings."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise RunError(f"{who} refuses its settings: {error}") from error


def gets_real_data(kind: type[Method], allowed: frozenset[str]) -> bool:
    """True if the method declares real data and is allowed to have it."""
    return kind.privileges.real_data and "real_data" in allowed


def allowed_privileges(entry: Entry) -> frozenset[str]:
    """Privileges that the method may be granted: real data, for the bounds of this package only."""
    if entry.owner != "dfkd-bench":
        return frozenset()
    return frozenset(privilege for privilege, names in GRANTED.items() if entry.name in names)


def plan_run(
    spec: RunSpec, task: Task, flags: Flags, published: StudentRecipe, rounds: int | None = None
) -> tuple[StudentRecipe, Schedule]:
    """The recipe of the student and the schedule of the run.

    The pinned track uses the task's recipe, the recipe track the method's (`published`). On the recipe track, budget
    `full` runs the published number of epochs; smaller budgets train on as many student images as on the pinned track,
    with the published batch size. `rounds` is needed for a budget of seconds and ignored otherwise.
    """
    pinned, timed = task.pinned, seconds_of(spec.budget) is not None
    points = pinned.evaluations[SNAPSHOTS if timed else spec.budget]
    if spec.track == "pinned":
        recipe, batch = pinned.recipe, pinned.batch_size
    else:
        recipe, batch = published, published.batch_size
    if not timed:
        rounds = max(1, -(-pinned.student_images[spec.budget] // (batch * flags.student_steps)))
    assert rounds is not None
    per_epoch = max(1, -(-rounds // points))
    if spec.track == "recipe":
        per_epoch = flags.rounds_per_epoch
        if spec.budget == "full":
            rounds = published.epochs * per_epoch
        else:
            per_epoch = max(1, round(rounds / published.epochs))
    keep = sorted({-(-rounds * k // points) for k in range(1, points + 1)})
    warmup = flags.warmup_rounds + math.ceil(flags.warmup_fraction * rounds)
    return recipe, Schedule(rounds, per_epoch, flags.student_steps, batch, warmup, tuple(keep))
