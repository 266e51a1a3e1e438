"""One run, from its specification to its record: find teacher, data and method; loop; evaluate; write.

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
from dfkd_bench.runs.loggers import following
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.runs.progress import ProgressEvent
from dfkd_bench.runs.provenance import manifest
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.teachers.registry import load_teacher, with_normalisation_of
from dfkd_bench.training.build import allowed_privileges, assemble, is_granted
from dfkd_bench.training.failures import clear, drop_damaged, leave_failure, recorded_failure, remove_run_state
from dfkd_bench.training.loop import Job, distill
from dfkd_bench.training.storage import FINAL, PROBE, FileStorage, generator_file, read_images, state_of
from dfkd_bench.training.time_budget import PROVISIONAL, begin_with, length_of
from dfkd_bench.utils import checkpoint, guard, memory
from dfkd_bench.utils.device import configure_device
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.hashing import file_sha256, sha256
from dfkd_bench.utils.locks import folder_lock


@dataclass(frozen=True)
class Outcome:
    """What became of a request to run."""

    record: dict[str, Any]
    folder: Path
    skipped: bool


def run(planned: PlannedRun, options: RunOptions) -> Outcome:
    """Execute a run, or return its record if it is finished; resumes an interrupted run.

    Without a length, the pace here gives that of a budget of seconds. Raises `UsageError` for a request that cannot
    be, `BusyError` where another process is at the run, `RunError` for a run that failed (a failed record is left).
    """
    spec, teacher_entry, results, force = planned.spec, planned.teacher, options.results, options.force
    folder = results / spec.folder
    if options.fresh:
        drop_damaged(folder)
    if not force and (done := records.finished(results, spec)):
        remove_run_state(folder)  # a process may have died between its record and this
        return Outcome(done, folder, skipped=True)
    chosen = with_normalisation_of(task(spec.task), teacher_entry)
    if teacher_entry.sha256 != spec.teacher:
        raise RunError(f"teacher {teacher_entry.name} is not the one of this run (SHA-256 {spec.teacher[:12]})")
    device = prepare_device(spec)
    with folder_lock(folder, where=f"below {results}"):
        if not force and (done := records.finished(results, spec)):  # while this process waited to begin
            return Outcome(done, folder, skipped=True)
        if force:
            clear(folder)
        if planned.length is not None:
            begin_with(folder, planned.length)
        begun = time.time()
        leave = partial(leave_failure, planned, folder, begun=begun, logs=options.logs)
        with recorded_failure(spec.method, f"below {results}", leave):
            with following(options.logs, spec, options.callback) as callback:
                record = execute(planned, chosen, folder, device, replace(options, callback=callback))
            records.write(folder, record)
        remove_run_state(folder)
    return Outcome(records.read(folder), folder, skipped=False)


def execute(
    planned: PlannedRun, chosen: Task, folder: Path, device: torch.device, options: RunOptions
) -> dict[str, Any]:
    """Train, then evaluate. The method lives in `train` only; the door to real data is shut meanwhile."""
    started = datetime.now(UTC)
    spec, callback = planned.spec, options.callback
    done = train(planned, chosen, load_teacher(planned.teacher, device), folder, device, options)
    gc.collect()
    memory.return_freed_memory()  # the loop's activations, before what evaluates is loaded
    teacher = load_teacher(planned.teacher, device)  # a fresh one: a hook left on the method's would see test images

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

    found = evaluate(
        chosen,
        teacher,
        snapshots,
        images,
        read_images(shown, device, PROBE),
        read_images(shown[-1:], device, FINAL),
        device,
        tested,
    )
    evaluation_seconds = time.perf_counter() - begun
    by_others = external.measured(found.view)
    for name, column in found.columns.items():
        for row, value in zip(done.curves, column, strict=True):
            row[name] = value

    write_atomic(folder / curves.FILE, curves.as_csv(done.curves).encode())
    write_atomic(folder / "predictions.safetensors", to_bytes(found.predictions))
    shutil.copyfile(snapshots[-1], folder / "student.safetensors")
    if shown:
        shutil.copyfile(shown[-1], folder / "samples.safetensors")
    if done.generator is not None:
        write_atomic(folder / records.GENERATOR, done.generator)
    files = [curves.FILE, "predictions.safetensors", "student.safetensors"] + ["samples.safetensors"] * bool(shown)
    result = {
        "status": "diverged" if done.diverged else "complete",
        **found.numbers,
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
            [row["top1"] for row in done.curves], done.marks, found.numbers["fidelity"]["teacher_top1"]
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
        # beside `result`, so that results of one protocol stay comparable byte for byte whatever else a run keeps
        "artifacts": {records.GENERATOR: sha256(done.generator)} if done.generator else {},
        **({external.KEY: by_others} if by_others else {}),
    }  # fmt: skip


@dataclass
class Trained:
    """What is left of a run when its method is gone: numbers and digests."""

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
    generator: bytes | None  # the networks that it registered, as safetensors
    length: Length | None  # of a run whose budget is of seconds


def train(
    planned: PlannedRun, chosen: Task, teacher: Tapped, folder: Path, device: torch.device, options: RunOptions
) -> Trained:
    """Build the method and run the loop, with the door to real data shut unless the method is granted it."""
    spec, callback = planned.spec, options.callback
    allowed = allowed_privileges(planned.method)
    gc.collect()  # what a run before this one left in reference cycles may be real data
    with ExitStack() as stack:
        kind, around = load(planned.method), [load_addon(addon) for addon in planned.addons]
        stack.enter_context(nullcontext() if is_granted(kind, allowed) else guard.data_blocked())
        storage = FileStorage(folder, spec.seed, teacher, callback)
        seconds, length = seconds_of(spec.budget), None
        if seconds is not None:

            def trial() -> Job:
                callback(ProgressEvent("timing", 0, 1, 0, 0.0, 0))
                own = copy.deepcopy(teacher)  # whatever a method does to its teacher, the run has another
                return assemble(spec, chosen, kind, allowed, own, device, storage, around, PROVISIONAL)[0]

            length = length_of(folder, seconds, trial)
        rounds = length.rounds if length else None
        job, settings = assemble(spec, chosen, kind, allowed, teacher, device, storage, around, rounds)
        job.checkpoint_seconds = options.checkpoint_seconds
        context = job.context
        context.meter.reset_peak()
        distill(job)
        context.meter.flush()
        state = state_of(job)
        digests = {
            k: checkpoint.digest(state[k]) for k in ("student", "optimiser", "companions", "registered", "states")
        }
        making = {k: m for k, m in context.registered.items() if k not in context.slow_students}
        networks = [m for m in making.values() if isinstance(m, torch.nn.Module)]
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
    """The device of `spec`, with everything that changes bits set as it says. Raises `RunError` without a GPU."""
    return configure_device(spec.device, spec.threads)
