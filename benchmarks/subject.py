"""The job that scripts of this folder time: that of `dfkd-bench profile`, with the same options."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dfkd_bench.cli.profile import command, networks, prepare
from dfkd_bench.plugins.registry import card
from dfkd_bench.protocol import DEFAULT_TASK
from dfkd_bench.runs.spec import RunSpec, frozen_settings
from dfkd_bench.training.dry_run import job_for
from dfkd_bench.training.loop import Job, synthesise, train_student


@dataclass(frozen=True)
class Subject:
    """One method on one task, with the settings of the options."""

    method: str
    title: str
    rounds: int
    batch_size: int
    spec: RunSpec
    make: Callable[[RunSpec], Job]  # a new job of this specification or a variant of it, always from the same state


def subject(method: str, words: Sequence[str]) -> Subject:
    """A method to time; `words` are options of `dfkd-bench profile`. Inner loops are as short as in a smoke run.

    A method that needs real data gets noise of the same shape. Raises `UsageError` like `profile`.
    """
    options = command.make_context("profile", ["--method", method, *words]).params
    task = networks(options, options["task_name"] or DEFAULT_TASK)
    spec, entry, teacher_entry = prepare(method, task, options)
    settings, smoke = dict(spec.settings), card(entry).budget_settings.get("smoke", {})
    short = {name: min(n, settings[name]) for name, n in smoke.items() if type(n) is int}
    title = (
        f"{task.name}, batch {task.pinned.batch_size}, {spec.device}, {spec.threads} thread(s), "
        f"{options['rounds']} rounds"
    )
    return Subject(
        method, title, options["rounds"], task.pinned.batch_size,
        replace(spec, settings=frozen_settings(settings | short)),
        lambda variant: job_for(variant, entry, teacher_entry, task, stand_in=True),
    )  # fmt: skip


def phases(job: Job) -> dict[str, tuple[Callable[[], Any], int]]:
    """The phases of a round of `job`, by name, each with its number of steps."""
    flags = job.method.flags
    by_name: dict[str, tuple[Callable[[], Any], int]] = {}
    if flags.synthesis_steps:
        by_name["synthesis"] = (lambda: synthesise(job), flags.synthesis_steps)
    by_name["student"] = (lambda: train_student(job), flags.student_steps)
    return by_name


def clock_for(device: torch.device) -> tuple[Callable[[], float], str]:
    """The clock with less noise and its name: CPU time of the process for one CPU thread, otherwise wall time."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.process_time, "CPU time"
    return time.perf_counter, "wall time"
