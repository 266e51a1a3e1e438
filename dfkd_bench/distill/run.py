"""Carry out a distillation request: the benchmark's training loop on a task without a dataset."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from dfkd_bench import models
from dfkd_bench.data import loading
from dfkd_bench.distill import export
from dfkd_bench.distill.checks import check_compile, check_teacher
from dfkd_bench.distill.page import grid_of, page
from dfkd_bench.distill.request import DistillRequest, Plan, make_plan
from dfkd_bench.errors import UsageError
from dfkd_bench.metrics.logits import agreement, logits_of, top1
from dfkd_bench.metrics.recorded.fidelity import fidelity
from dfkd_bench.metrics.recorded.samples import alarms, sample_quality
from dfkd_bench.metrics.recorded.synthetic_kl import synthetic_kl
from dfkd_bench.models.count import Count, count
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.runs import curves, records
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.runs.progress import Callback, no_callback
from dfkd_bench.runs.provenance import manifest
from dfkd_bench.teachers.registry import Teacher
from dfkd_bench.training.failures import recorded_failure
from dfkd_bench.training.runner import Trained, train
from dfkd_bench.training.storage import FINAL, PROBE, read_images
from dfkd_bench.utils.device import configure_device
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.hashing import sha256
from dfkd_bench.utils.locks import folder_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dfkd_bench.data.base import Dataset

WORK = ".work"  # below the output folder: checkpoints and snapshots of an unfinished run, by its identity
FILES = ("student.safetensors", "student.pt2", "student.onnx", "report.html", "samples.png", curves.FILE, records.FILE)


@dataclass(frozen=True)
class StudentMetrics:
    """Metrics of the student on synthetic images."""

    agreements: list[float | None]  # on the probe set, percent, one per snapshot
    quality: dict[str, Any] | None
    kl: float | None  # nats
    alarms: list[str]


def distill_request(
    request: DistillRequest,
    out: Path,
    *,
    callback: Callback = no_callback,
    force: bool = False,
    checkpoint_seconds: float = 30.0,
) -> dict[str, Any]:
    """Carry out the request, write the requested `FILES` into folder `out` and return the record.

    An interrupted run of the same request resumes. Raises `UsageError` for an impossible request or a folder that
    already contains a student; `RunError` if the run fails.
    """
    plan = make_plan(request)
    export.check_possible(request.exports)
    check_free(out, plan, force)
    device = configure_device(plan.spec.device, plan.spec.threads)
    teacher = request.teacher.load(device)
    check_teacher(teacher, request.teacher, plan, device)
    facts = plan.task.dataset
    student = models.build(plan.task.student, facts.classes, facts.image_shape)
    check_compile(plan, teacher=teacher, student=student)
    sizes = {"teacher": count(teacher, facts.image_shape), "student": count(student, facts.image_shape)}
    with run_state_folder(out, plan, force) as work:
        options = RunOptions(work, checkpoint_seconds=checkpoint_seconds, callback=callback)
        return execute(request, plan, out, teacher, sizes, device, options)


def check_free(out: Path, plan: Plan, force: bool) -> None:
    """Raise `UsageError` if `out` is a file, or contains a student that this run would overwrite."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must name a folder, and {out} is a file")
    existing = [name for name in FILES if (out / name).exists()]
    resumes = (out / WORK / plan.identity).is_dir() and records.FILE not in existing
    if existing and not resumes and not force:
        raise UsageError(f"{out} contains {existing[0]} already: give another --out, or overwrite it with --force")


@contextmanager
def run_state_folder(out: Path, plan: Plan, force: bool) -> Iterator[Path]:
    """The folder of the run's state, locked for this process; removed after success."""
    work = out / WORK / plan.identity
    busy = f"another process is writing to {out}: wait for it"
    with folder_lock(out / WORK, busy=busy, where=f"to {out}", remedy="give another --out"):
        if force:
            for name in FILES:
                (out / name).unlink(missing_ok=True)
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(exist_ok=True)
        yield work
    shutil.rmtree(out / WORK, ignore_errors=True)


def execute(
    request: DistillRequest,
    plan: Plan,
    out: Path,
    teacher: Tapped,
    sizes: Mapping[str, Count],
    device: torch.device,
    options: RunOptions,
) -> dict[str, Any]:
    """Train, evaluate, write. The method exists only inside `train`, where access to real data is blocked."""
    spec, facts, work = plan.spec, plan.task.dataset, options.results
    teacher_entry = Teacher(
        request.teacher.file.name, "own", request.teacher.arch, 0, str(request.teacher.file), spec.teacher,
        float("nan"), "", "a model of the user's", mean=facts.mean, std=facts.std,
    )  # fmt: skip
    planned = PlannedRun(spec, plan.entry, teacher_entry)
    started = datetime.now(UTC)
    with recorded_failure(spec.method, f"to {out}"):
        done = train(planned, plan.task, teacher, work, device, options)
    gc.collect()
    begun = time.perf_counter()
    teacher = request.teacher.load(device)  # again: a hook that the method left on its copy would see test images
    student = place(models.build(plan.task.student, facts.classes, facts.image_shape), device)
    rounds = [int(row["round"]) for row in done.curves]
    metrics = evaluate_student(teacher, student, work, rounds, device)
    for row, value in zip(done.curves, metrics.agreements, strict=True):
        row["probe_agreement"] = value
    tested = None if plan.test is None else evaluate_on(teacher, student, plan.test, device)
    shown = read_images([p for p in [images_of(work, rounds[-1])] if p.exists()], torch.device("cpu"), FINAL)
    predicted = None if shown is None else logits_of(teacher, shown[0].to(device)).argmax(1).cpu()

    about = {
        "arch": request.student, "classes": facts.classes, "shape": list(facts.image_shape), "mean": list(facts.mean),
        "std": list(facts.std), "teacher_sha256": spec.teacher,
    }  # fmt: skip
    payloads, checked = files_of(student, facts, about, request.exports)
    payloads[curves.FILE] = curves.as_csv(done.curves).encode()
    if shown is not None:
        labels = None if shown[1] is None else shown[1].numpy()
        classes = None if predicted is None else predicted.numpy()
        payloads["samples.png"] = grid_of(shown[0].numpy(), labels, classes, facts, spec)
    evaluation_seconds = time.perf_counter() - begun

    seconds = {**done.seconds, "evaluation": evaluation_seconds}
    record = {
        "spec": spec.to_json(),
        "hash": plan.identity,
        "manifest": {**manifest(planned, device), "settings": done.settings},
        "own": about | {"teacher_arch": request.teacher.arch, "taps": teacher.tap_names, "checked": checked,
                        "sizes": {k: asdict(v) for k, v in sizes.items()}},
        "result": result_of(done, metrics, payloads),
        "evaluation": tested,
        "measurement": {
            "seconds": seconds,
            "seconds_total": sum(seconds.values()),
            "gpu_hours": sum(seconds.values()) / 3600.0 if device.type == "cuda" else 0.0,
            "peak_memory_bytes": done.peak_memory,
            "started": started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "restarts": done.restarts,
        },
    }  # fmt: skip
    payloads["report.html"] = page(record, done.curves, payloads.get("samples.png")).encode()
    for name, payload in payloads.items():
        write_atomic(out / name, payload)
    records.write(out, record)  # last: a folder with a record is complete
    return {**records.read(out), "files": [*payloads, records.FILE]}


def images_of(work: Path, round: int) -> Path:
    """The file of the synthetic images stored after `round`."""
    return work / "snapshots" / f"images-{round:08d}.safetensors"


def evaluate_student(
    teacher: Tapped, student: Tapped, work: Path, rounds: Sequence[int], device: torch.device
) -> StudentMetrics:
    """Metrics of every snapshot on held-out synthetic images; `student` gets the weights of the last one."""
    shown = [p for r in rounds if (p := images_of(work, r)).exists()]
    probe, final = read_images(shown, device, PROBE), read_images(shown[-1:], device, FINAL)
    expected = None if probe is None else logits_of(teacher, probe[0])
    agreements: list[float | None] = []
    for r in rounds:
        student.load_state_dict(load_file(work / "snapshots" / f"student-{r:08d}.safetensors", device=str(device)))
        agreements.append(
            None if probe is None or expected is None else agreement(logits_of(student, probe[0]), expected)
        )
    quality = None if final is None else sample_quality(teacher, *final)
    kl = None if final is None else synthetic_kl(teacher, student, final[0])
    return StudentMetrics(agreements, quality, kl, alarms(quality, kl))


def evaluate_on(teacher: Tapped, student: Tapped, facts: Dataset, device: torch.device) -> dict[str, Any]:
    """Top-1 (percent) and fidelity of the student on the test images of a dataset."""
    split = loading.load_test(facts, device)
    images = split.normalised(slice(None))
    t, s = (logits_of(model, images) for model in (teacher, student))
    return {
        "dataset": facts.name.rpartition("/")[2],  # of a folder, its own name
        "images": len(images),
        "student_top1": top1(s, split.labels),
        **fidelity(s, t, split.labels),
    }


def files_of(
    student: Tapped, facts: Dataset, about: Mapping[str, Any], forms: Sequence[str]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Bytes of the student's files by name, and by name what was checked."""
    payloads = {"student.safetensors": export.weights_file(student, about)}
    checked = {}
    for form, write in (("pt2", export.program_file), ("onnx", export.onnx_file)):
        if form in forms:
            name = f"student.{form}"
            payloads[name], checked[name] = write(student, facts.image_shape)
    return payloads, checked


def result_of(done: Trained, metrics: StudentMetrics, payloads: Mapping[str, bytes]) -> dict[str, Any]:
    """The part of the record that depends only on the request and the machine."""
    return {
        "status": "diverged" if done.diverged else "complete",
        "synthetic_agreement": metrics.agreements[-1],
        "synthetic_kl": metrics.kl,
        "samples": metrics.quality,
        "alarms": metrics.alarms,
        "counts": done.counts,
        "generator_parameters": done.parameters,
        "digests": done.digests,
        "files": {name: sha256(payloads[name]) for name in ("student.safetensors", curves.FILE)},
    }
