"""Executes one run: load teacher and method, train, evaluate, write the record.

outcome = run(PlannedRun.of(spec), RunOptions(Path("runs")))
"""

from __future__ import annotations

import copy
import gc
import shutil
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes

from dfkd_bench.errors import RunError
from dfkd_bench.metrics import external
from dfkd_bench.metrics.evaluate import evaluate
from dfkd_bench.metrics.recorded.convergence import first_reaching
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.plugins.registry import load, load_addon
from dfkd_bench.protocol import Task, seconds_of, task
from dfkd_bench.runs import curves, records
from dfkd_bench.runs.length import Length
from dfkd_bench.runs.loggers import with_loggers
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.runs.progress import ProgressEvent
from dfkd_bench.runs.provenance import manifest
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.teachers.registry import load_teacher, with_normalisation_of
from dfkd_bench.training.build import allowed_privileges, assemble, gets_real_data
from dfkd_bench.training.failures import (
    clear_folder,
    drop_damaged,
    recorded_failure,
    remove_run_state,
    write_failed_record,
)
from dfkd_bench.training.loop import Job, distill
from dfkd_bench.training.storage import FINAL, PROBE, FileStorage, generator_file, read_images, state_of
from dfkd_bench.training.time_budget import PROVISIONAL, length_of, set_length
from dfkd_bench.utils import checkpoint, guard, memory
from dfkd_bench.utils.device import configure_device
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.hashing import file_sha256, sha256
from dfkd_bench.utils.locks import folder_lock


@dataclass(frozen=True)
class Outcome:
    """The record of a run; `skipped` is True if it was there already."""

    record: dict[str, Any]
    folder: Path
    skipped: bool


def run(planned: PlannedRun, options: RunOptions) -> Outcome:
    """Execute a run, or return its record if it is finished; resumes an interrupted run.

    For a budget of seconds without `planned.length`, the length follows from timed rounds on this machine. Raises
    `UsageError` for an impossible request, `BusyError` if another process executes the run, `RunError` if the run
    failed (a failed record is written).
    """
    spec, teacher_entry, results, force = planned.spec, planned.teacher, options.results, options.force
    folder = results / spec.folder
    if options.fresh:
        drop_damaged(folder)
    if not force and (done := records.finished(results, spec)):
        remove_run_state(folder)  # a process may have died after writing the record
        return Outcome(done, folder, skipped=True)
    selected = with_normalisation_of(task(spec.task), teacher_entry)
    if teacher_entry.sha256 != spec.teacher:
        raise RunError(f"teacher {teacher_entry.name} is not the one of this run (SHA-256 {spec.teacher[:12]})")
    device = prepare_device(spec)
    with folder_lock(folder, where=f"below {results}"):
        if not force and (done := records.finished(results, spec)):  # finished by another process in the meantime
            return Outcome(done, folder, skipped=True)
        if force:
            clear_folder(folder)
        if planned.length is not None:
            set_length(folder, planned.length)
        begun = time.time()
        leave = partial(write_failed_record, planned, folder, begun=begun, logs=options.logs)
        with recorded_failure(spec.method, f"below {results}", leave):
            with with_loggers(options.logs, spec, options.callback) as callback:
                record = execute(planned, selected, folder, device, replace(options, callback=callback))
            records.write(folder, record)
        remove_run_state(folder)
    return Outcome(records.read(folder), folder, skipped=False)


def execute(
    planned: PlannedRun, selected: Task, folder: Path, device: torch.device, options: RunOptions
) -> dict[str, Any]:
    """Train, then evaluate; returns the record. The method exists in `train` only, where real data is blocked."""
    started = datetime.now(UTC)
    spec, callback = planned.spec, options.callback
    done = train(planned, selected, load_teacher(planned.teacher, device), folder, device, options)
    gc.collect()
    memory.return_freed_memory()  # the activations of the loop, before the evaluation allocates memory
    teacher = load_teacher(planned.teacher, device)  # reloaded: a hook that a method left would see test images

    rounds = [int(row["round"]) for row in done.curves]
    images = [float(row["student_images"]) for row in done.curves]
    snapshots = [folder / "snapshots" / f"student-{r:08d}.safetensors" for r in rounds]
    shown = [p for r in rounds if (p := folder / "snapshots" / f"images-{r:08d}.safetensors").exists()]
    begun = time.perf_counter()

    def tested(snapshot: int, top1: float) -> None:
        row = {"top1": top1}
        callback(
            ProgressEvent(
                "evaluation", rounds[snapshot], rounds[-1], int(images[snapshot]), time.perf_counter() - begun, 0, row
            )
        )

    evaluation = evaluate(
        selected,
        teacher,
        snapshots,
        images,
        read_images(shown, device, PROBE),
        read_images(shown[-1:], device, FINAL),
        device,
        tested,
    )
    evaluation_seconds = time.perf_counter() - begun
    external_metrics = external.compute_installed(evaluation.view)
    for name, column in evaluation.columns.items():
        for row, value in zip(done.curves, column, strict=True):
            row[name] = value

    write_atomic(folder / curves.FILE, curves.as_csv(done.curves).encode())
    write_atomic(folder / "predictions.safetensors", to_bytes(evaluation.predictions))
    shutil.copyfile(snapshots[-1], folder / "student.safetensors")
    if shown:
        shutil.copyfile(shown[-1], folder / "samples.safetensors")
    if done.generator is not None:
        write_atomic(folder / records.GENERATOR, done.generator)
    files = [curves.FILE, "predictions.safetensors", "student.safetensors"] + ["samples.safetensors"] * bool(shown)
    result = {
        "status": "diverged" if done.diverged else "complete",
        **evaluation.numbers,
        "counts": done.counts,
        "generator_parameters": done.parameters,
        "digests": done.digests,
        "files": {name: file_sha256(folder / name) for name in files},
    }
    seconds = {**done.seconds, "evaluation": evaluation_seconds}
    measurement = {
        "seconds": seconds,
        "seconds_total": sum(seconds.values()),
        "seconds_to": first_reaching(
            [row["top1"] for row in done.curves], done.marks, evaluation.numbers["fidelity"]["teacher_top1"]
        ),
        "snapshot_seconds": done.marks,
        "gpu_hours": sum(seconds.values()) / 3600.0 if device.type == "cuda" else 0.0,
        "peak_memory_bytes": done.peak_memory,
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "restarts": done.restarts,
        **({"pace": done.length.to_json()} if done.length else {}),
    }
    about = manifest(planned, device, options.logs)
    return {
        "spec": spec.to_json(), "hash": spec.hash, "manifest": {**about, "settings": done.settings},
        "result": result, "measurement": measurement,
        # outside `result`, so that results of one protocol stay comparable byte for byte
        "artifacts": {records.GENERATOR: sha256(done.generator)} if done.generator else {},
        **({external.KEY: external_metrics} if external_metrics else {}),
    }  # fmt: skip


@dataclass
class Trained:
    """The numbers and digests of a trained run, without the method."""

    curves: list[dict[str, Any]]
    counts: dict[str, int]
    seconds: dict[str, float]
    marks: list[float]
    digests: dict[str, str]
    settings: dict[str, Any]
    parameters: int
    diverged: bool
    restarts: int
    peak_memory: int
    generator: bytes | None  # the networks that the method registered, as safetensors
    length: Length | None  # only with a budget of seconds


def train(
    planned: PlannedRun, selected: Task, teacher: Tapped, folder: Path, device: torch.device, options: RunOptions
) -> Trained:
    """Build the method and run the loop. Real data is blocked unless the method is granted it."""
    spec, callback = planned.spec, options.callback
    allowed = allowed_privileges(planned.method)
    gc.collect()  # reference cycles of an earlier run may hold real data
    with ExitStack() as stack:
        kind, addons = load(planned.method), [load_addon(addon) for addon in planned.addons]
        stack.enter_context(nullcontext() if gets_real_data(kind, allowed) else guard.data_blocked())
        storage = FileStorage(folder, spec.seed, teacher, callback)
        seconds, length = seconds_of(spec.budget), None
        if seconds is not None:

            def trial() -> Job:
                callback(ProgressEvent("timing", 0, 1, 0, 0.0, 0))
                own = copy.deepcopy(teacher)  # the trial must not change the teacher of the run
                return assemble(spec, selected, kind, allowed, own, device, storage, addons, PROVISIONAL)[0]

            length = length_of(folder, seconds, trial)
        rounds = length.rounds if length else None
        job, settings = assemble(spec, selected, kind, allowed, teacher, device, storage, addons, rounds)
        job.checkpoint_seconds = options.checkpoint_seconds
        context = job.context
        context.meter.reset_peak()
        distill(job)
        context.meter.flush()
        state = state_of(job)
        digests = {
            k: checkpoint.digest(state[k]) for k in ("student", "optimiser", "companions", "registered", "states")
        }
        generators = {k: m for k, m in context.registered.items() if k not in context.slow_students}
        networks = [m for m in generators.values() if isinstance(m, torch.nn.Module)]
        return Trained(
            curves=job.curves,
            counts={k: v for k, v in context.meter.counts.items() if not k.startswith("_")},
            seconds=dict(context.meter.seconds),
            marks=list(context.meter.marks),
            digests=digests,
            settings={"method": settings, "recipe": vars(job.recipe), "schedule": vars(job.schedule)},
            parameters=sum(p.numel() for m in networks for p in m.parameters()),
            diverged=job.diverged,
            restarts=storage.restarts,
            peak_memory=context.meter.peak_memory(),
            generator=generator_file(context.registered),
            length=length,
        )


def prepare_device(spec: RunSpec) -> torch.device:
    """The device of `spec`, with threads and determinism configured. Raises `RunError` if there is no GPU."""
    return configure_device(spec.device, spec.threads)
