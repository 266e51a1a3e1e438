"""From a wish to a folder with a student: the benchmark's own loop on a task that no dataset stands behind."""

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

WORK = ".work"  # below the output folder: checkpoints and snapshots of a run that has not ended, by its identity
FILES = ("student.safetensors", "student.pt2", "student.onnx", "report.html", "samples.png", curves.FILE, records.FILE)


@dataclass(frozen=True)
class StudentMetrics:
    """What is known of the student without a single real image."""

    columns: list[float | None]  # agreement on the probe per snapshot, percent
    quality: dict[str, Any] | None
    kl: float | None
    alarms: list[str]


def distill_request(
    own: DistillRequest,
    out: Path,
    *,
    callback: Callback = no_callback,
    force: bool = False,
    checkpoint_seconds: float = 30.0,
) -> dict[str, Any]:
    """The record of a student made as `own` asks, with all of `FILES` that it asks for in folder `out`.

    An interrupted run of the same wish goes on. Raises `UsageError` for a wish that cannot be, or a folder that holds
    a student already; `RunError` for a run that failed.
    """
    plan = make_plan(own)
    export.check_possible(own.exports)
    check_free(out, plan, force)
    device = configure_device(plan.spec.device, plan.spec.threads)
    teacher = own.teacher.load(device)
    check_teacher(teacher, own.teacher, plan, device)
    facts = plan.task.dataset
    student = models.build(plan.task.student, facts.classes, facts.image_shape)
    check_compile(plan, teacher=teacher, student=student)
    sizes = {"teacher": count(teacher, facts.image_shape), "student": count(student, facts.image_shape)}
    with run_state_folder(out, plan, force) as work:
        options = RunOptions(work, checkpoint_seconds=checkpoint_seconds, callback=callback)
        return execute(own, plan, out, teacher, sizes, device, options)


def check_free(out: Path, plan: Plan, force: bool) -> None:
    """Raise `UsageError` if `out` holds a student (or is no folder) that this run would write over."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out names a folder, and {out} is a file")
    there = [name for name in FILES if (out / name).exists()]
    going_on = (out / WORK / plan.identity).is_dir() and records.FILE not in there
    if there and not going_on and not force:
        raise UsageError(f"{out} holds {there[0]} already: choose another --out, or write over it with --force")


@contextmanager
def run_state_folder(out: Path, plan: Plan, force: bool) -> Iterator[Path]:
    """The folder of the run's state, for one process at a time; gone when the run has ended well."""
    work = out / WORK / plan.identity
    busy = f"another process is at work in {out}: wait for it"
    with folder_lock(out / WORK, busy=busy, where=f"to {out}", remedy="choose another --out"):
        if force:
            for name in FILES:
                (out / name).unlink(missing_ok=True)
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(exist_ok=True)
        yield work
    shutil.rmtree(out / WORK, ignore_errors=True)


def execute(
    own: DistillRequest,
    plan: Plan,
    out: Path,
    teacher: Tapped,
    sizes: Mapping[str, Count],
    device: torch.device,
    options: RunOptions,
) -> dict[str, Any]:
    """Train, judge, write. The method lives in `train` only; the door to real data is shut meanwhile."""
    spec, facts, work = plan.spec, plan.task.dataset, options.results
    teacher_entry = Teacher(
        own.teacher.file.name, "own", own.teacher.arch, 0, str(own.teacher.file), spec.teacher, float("nan"), "",
        "a model of the user's", mean=facts.mean, std=facts.std,
    )  # fmt: skip
    planned = PlannedRun(spec, plan.entry, teacher_entry)
    started = datetime.now(UTC)
    with recorded_failure(spec.method, f"to {out}"):
        done = train(planned, plan.task, teacher, work, device, options)
    gc.collect()
    begun = time.perf_counter()
    teacher = own.teacher.load(device)  # a fresh one: a hook left on the method's would see test images
    student = place(models.build(plan.task.student, facts.classes, facts.image_shape), device)
    rounds = [int(row["round"]) for row in done.curves]
    judged = evaluate_student(teacher, student, work, rounds, device)
    for row, value in zip(done.curves, judged.columns, strict=True):
        row["probe_agreement"] = value
    tested = None if plan.test is None else test(teacher, student, plan.test, device)
    shown = read_images([p for p in [images_of(work, rounds[-1])] if p.exists()], torch.device("cpu"), FINAL)
    said = None if shown is None else logits_of(teacher, shown[0].to(device)).argmax(1).cpu()

    about = {
        "arch": own.student, "classes": facts.classes, "shape": list(facts.image_shape), "mean": list(facts.mean),
        "std": list(facts.std), "teacher_sha256": spec.teacher,
    }  # fmt: skip
    payloads, checked = files_of(student, facts, about, own.exports)
    payloads[curves.FILE] = curves.as_csv(done.curves).encode()
    if shown is not None:
        labels = None if shown[1] is None else shown[1].numpy()
        payloads["samples.png"] = grid_of(shown[0].numpy(), labels, None if said is None else said.numpy(), facts, spec)
    evaluation_seconds = time.perf_counter() - begun

    seconds = {**done.seconds, "evaluation": evaluation_seconds}
    record = {
        "spec": spec.to_json(),
        "hash": plan.identity,
        "manifest": {**manifest(planned, device), "settings": done.settings},
        "own": about | {"teacher_arch": own.teacher.arch, "taps": teacher.tap_names, "checked": checked,
                        "sizes": {k: asdict(v) for k, v in sizes.items()}},
        "result": result_of(done, judged, payloads),
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
    records.write(out, record)  # last: a folder with a record is whole
    return {**records.read(out), "files": [*payloads, records.FILE]}


def images_of(work: Path, round: int) -> Path:
    """The file of the synthetic images kept after `round`."""
    return work / "snapshots" / f"images-{round:08d}.safetensors"


def evaluate_student(
    teacher: Tapped, student: Tapped, work: Path, rounds: Sequence[int], device: torch.device
) -> StudentMetrics:
    """Every snapshot on the held-out synthetic images, the last also in full; `student` ends as the last snapshot."""
    shown = [p for r in rounds if (p := images_of(work, r)).exists()]
    probe, final = read_images(shown, device, PROBE), read_images(shown[-1:], device, FINAL)
    wanted = None if probe is None else logits_of(teacher, probe[0])
    agreed: list[float | None] = []
    for r in rounds:
        student.load_state_dict(load_file(work / "snapshots" / f"student-{r:08d}.safetensors", device=str(device)))
        agreed.append(None if probe is None or wanted is None else agreement(logits_of(student, probe[0]), wanted))
    quality = None if final is None else sample_quality(teacher, *final)
    kl = None if final is None else synthetic_kl(teacher, student, final[0])
    return StudentMetrics(agreed, quality, kl, alarms(quality, kl))


def test(teacher: Tapped, student: Tapped, facts: Dataset, device: torch.device) -> dict[str, Any]:
    """Top-1 of teacher and student, and how close they are, on the test images of a dataset; percent."""
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
    """The student in each form as bytes by the name of its file, and what was checked of each."""
    payloads = {"student.safetensors": export.weights_file(student, about)}
    checked = {}
    for form, write in (("pt2", export.program_file), ("onnx", export.onnx_file)):
        if form in forms:
            name = f"student.{form}"
            payloads[name], checked[name] = write(student, facts.image_shape)
    return payloads, checked


def result_of(done: Trained, judged: StudentMetrics, payloads: Mapping[str, bytes]) -> dict[str, Any]:
    """What is a pure function of the wish, on one machine."""
    return {
        "status": "diverged" if done.diverged else "complete",
        "synthetic_agreement": judged.columns[-1],
        "synthetic_kl": judged.kl,
        "samples": judged.quality,
        "alarms": judged.alarms,
        "counts": done.counts,
        "generator_parameters": done.parameters,
        "digests": done.digests,
        "files": {name: sha256(payloads[name]) for name in ("student.safetensors", curves.FILE)},
    }
