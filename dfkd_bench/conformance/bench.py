"""The test bench: short, small jobs of one method with the default task's networks, and storages for them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfkd_bench import models
from dfkd_bench.conformance.report import one_line
from dfkd_bench.errors import RunError
from dfkd_bench.method import Method
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.cards import card_of_class
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.protocol import DEFAULT_TASK, Task, task
from dfkd_bench.runs.plan import addon_spec, preset_of, refuse_addons, split_overrides
from dfkd_bench.runs.spec import check_overrides, make_spec
from dfkd_bench.teachers.registry import load_teacher, teacher_for
from dfkd_bench.training.build import allowed_privileges, assemble, gets_real_data
from dfkd_bench.training.loop import Job, Schedule
from dfkd_bench.training.runner import prepare_device
from dfkd_bench.training.storage import load_state, state_of
from dfkd_bench.utils import checkpoint, guard
from dfkd_bench.utils.seeding import seed_global

ROUNDS, ROUNDS_PER_EPOCH, SAVED_AT = 3, 2, 1  # the checkpoint is in the middle of an epoch


class TestBench:
    """Builds jobs of one method with the default task's teacher and student."""

    def __init__(
        self,
        kind: type[Method],
        entry: Entry,
        preset: str | None,
        overrides: dict[str, Any],
        device: str,
        batch: int,
        addons: Sequence[Entry] = (),
    ) -> None:
        card = card_of_class(kind)
        if addons:
            refuse_addons(entry, card)
        self.addons = [registry.load_addon(addon) for addon in addons]
        own, theirs = split_overrides(overrides, tuple(addons))
        default = task(DEFAULT_TASK)
        teacher_entry = teacher_for(default)
        self.kind, self.allowed = kind, allowed_privileges(entry)
        self.granted = gets_real_data(kind, self.allowed)
        self._jobs = 0
        self.task: Task = dataclasses.replace(default, pinned=dataclasses.replace(default.pinned, batch_size=batch))
        preset, own = preset_of(card, preset, entry.name), check_overrides(card, own, entry.name)
        self.spec = make_spec(
            entry.name, card, self.task, preset=preset, overrides=own, track="pinned", budget="smoke", device=device,
            teacher=teacher_entry.sha256, data=default.dataset.sha256,
            addons=tuple(addon_spec(addon, theirs.get(addon.name, {})) for addon in addons),
        )  # fmt: skip
        self.device = prepare_device(self.spec)  # one thread: enough for tiny networks
        self._teacher_entry = teacher_entry
        self.teacher: Tapped = load_teacher(teacher_entry, self.device)

    @contextmanager
    def data(self) -> Iterator[None]:
        """Block real data inside, except for a bound that is granted it."""
        with nullcontext() if self.granted else guard.data_blocked():
            yield

    def job(self, storage: MemoryStorage, seed: int = 0) -> Job:
        """A new job, built as for a run, with a short schedule."""
        self._jobs += 1
        seed_global(self._jobs, "conformance")  # a different state for each job: runs must not depend on it
        spec = dataclasses.replace(self.spec, seed=seed)
        self.teacher = load_teacher(self._teacher_entry, self.device)  # reloaded: an earlier job may have changed it
        job, _ = assemble(spec, self.task, self.kind, self.allowed, self.teacher, self.device, storage, self.addons)
        flags = job.method.flags
        job.schedule = Schedule(
            ROUNDS, ROUNDS_PER_EPOCH, flags.student_steps, self.task.pinned.batch_size,
            min(1, job.schedule.warmup_rounds), (ROUNDS,),
        )  # fmt: skip
        job.checkpoint_seconds = -1.0  # after every round
        return job

    def student(self, seed: int = 0) -> Tapped:
        """The initial student of a run."""
        seed_global(seed, "student-init")
        data = self.task.dataset
        return models.build(self.task.student, data.classes, data.image_shape).to(self.device)


class StopJob(Exception):  # noqa: N818  (no error)
    """Ends a job after a few rounds."""


class MemoryStorage:
    """A storage that can save after `SAVED_AT` rounds (`save`), load such a state (`start`), or stop early (`stop`).

    `held`: the `state_digests` at saving, or right after loading. `failure`: why saving or loading failed.
    """

    def __init__(self, *, save: Path | None = None, start: Path | None = None, stop: int = ROUNDS) -> None:
        self.save, self.start, self.stop = save, start, stop
        self.held: dict[str, str] = {}
        self.failure = ""

    def restore(self, job: Job) -> int:
        """Load the saved state, if `start` is set. Raises `StopJob` if that fails."""
        if self.start is None:
            return -job.schedule.warmup_rounds
        try:
            state = checkpoint.load(self.start, job.context.device)
            if state is None:
                raise RunError("nothing was saved")
            load_state(job, state)
        except Exception as error:  # a registered object's own code may raise anything
            self.failure = one_line(error)
            raise StopJob from error
        self.held = state_digests(job)
        return int(state["rounds"])

    def checkpoint(self, job: Job, rounds: int) -> None:
        """Save the state after `SAVED_AT` rounds."""
        if self.save and rounds == SAVED_AT:
            self.held = state_digests(job)
            try:
                checkpoint.save(self.save, {**state_of(job), "rounds": rounds})
            except Exception as error:
                self.failure = one_line(error)

    def snapshot(self, job: Job, rounds: int, row: dict[str, float]) -> None:
        """Stores nothing."""

    def progress(self, job: Job, rounds: int) -> None:
        """Raise `StopJob` after `stop` rounds."""
        if rounds == self.stop < ROUNDS:
            raise StopJob


def state_digests(job: Job) -> dict[str, str]:
    """Digest of each part of a job's state that must be equal in equal runs: all except seconds."""
    state = state_of(job)
    parts = {k: state[k] for k in ("student", "optimiser", "tally", "curves", "student_step")}
    for group in ("companions", "registered", "states"):
        parts |= {f"{group}/{k}": v for k, v in state[group].items()}
    return {k: checkpoint.digest(v) for k, v in {**parts, "counts": state["meter"]["counts"]}.items()}


@contextmanager
def kept_threads() -> Iterator[None]:
    """Restore the number of threads afterwards."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def kept_streams() -> Iterator[None]:
    """Restore the global random streams afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
