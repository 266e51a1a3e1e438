"""Stored students, evaluated again with the code that evaluated them in their runs.

The tolerance depends on the computed values, not on the names of machines. If the confidences on the test images equal
the stored ones bit for bit, this machine computes like that of the record, and every number must be the same (within
1e-9, for another version of a library). Otherwise numbers may differ by 1e-4 of their value, and a predicted class only
if the two largest logits differ by less than 1e-3 (a near tie). Counts of images (accuracy, agreement, coverage, ...)
may then differ by the number of near ties, mostly none.

Measured on the 59 records of `results/` (CPU, one thread): all equal bit for bit on the same kind of machine, with one
thread and with two. With the oldest instruction set of the libraries, no class differed, confidences differed by
1.3e-6, and numbers by 4e-6 of their value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dfkd_bench.data import loading
from dfkd_bench.data.home import is_present
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.metrics import external, registry
from dfkd_bench.metrics.base import CODE, TieShares, View
from dfkd_bench.metrics.evaluate import predictions_of, student_metrics
from dfkd_bench.metrics.logits import logits_of, top1
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.plugins.objects import plugin_digests
from dfkd_bench.protocol import Task, task
from dfkd_bench.results.verify.case import GENERATOR, PREDICTIONS, SAMPLES, STUDENT, Case
from dfkd_bench.results.verify.findings import Finding, mismatch, same
from dfkd_bench.results.verify.identity import LocalPlugins
from dfkd_bench.results.verify.numbers import EXACT, curves_in, read_curves
from dfkd_bench.studies.robustness import student_of
from dfkd_bench.teachers.registry import load_teacher, with_normalisation_of
from dfkd_bench.training.storage import FINAL, read_images
from dfkd_bench.utils.device import configure_device

NEAR = 1e-4  # relative for numbers, absolute for confidences
TIE = 1e-3  # largest difference of two logits in a near tie
BALLS = 4.0  # images that rounding may move into or out of a ball in feature space
EDGE = 1e-5  # largest distance of a confidence to the border of two bins of the calibration error


@dataclass(frozen=True, eq=False)
class LoadedTask:
    """A task on a device: its teacher, the test set and the teacher's logits on it."""

    task: Task
    device: torch.device
    teacher: Tapped
    images: Tensor  # (n, channels, height, width), normalised
    labels: Tensor  # (n,)
    logits: Tensor  # of the teacher, (n, classes)


class StudentVerifier:
    """Evaluates students; loads the test set and the teacher once per task."""

    def __init__(self, local: LocalPlugins, device: str = "auto") -> None:
        self.local, self.device = local, device
        self._loaded: tuple[tuple[Any, ...], LoadedTask] | None = None
        self.students = self.exact = 0
        self.reproduced: set[str] = set()  # hashes of runs whose predictions are equal bit for bit

    def load_task(self, case: Case) -> LoadedTask | None:
        """The record's task; None if a part of it is not on this machine. Raises `RunError` for damaged files."""
        spec, teacher_entry = case.spec, self.local.teacher(case.spec.teacher)
        kind = self.device
        if kind == "auto":
            kind = spec.device if spec.device == "cpu" or torch.cuda.is_available() else "cpu"
        key = (spec.task, spec.teacher, spec.data, kind, spec.threads)
        if self._loaded and self._loaded[0] == key:
            return self._loaded[1]
        if teacher_entry is None:
            return None
        try:
            known = with_normalisation_of(task(spec.task), teacher_entry)
        except UsageError:  # of a package that is not installed
            return None
        if known.dataset.sha256 not in ("", spec.data) or plugin_digests(known.plugins) != spec.plugins:
            return None
        same_teacher = (teacher_entry.dataset, teacher_entry.arch) == (known.dataset.name, known.teacher)
        if not (same_teacher and is_present(known.dataset)):
            return None
        device = configure_device(kind, spec.threads)
        teacher, test = load_teacher(teacher_entry, device), loading.load_test(known.dataset, device)
        images = test.normalised(slice(None))
        loaded = LoadedTask(known, device, teacher, images, test.labels, logits_of(teacher, images))
        self._loaded = (key, loaded)
        return loaded

    def check(self, case: Case) -> Iterator[Finding]:
        """Compare stored labels, the teacher's predictions and, if its file is here, the student with the record."""
        loaded = self.load_task(case)
        if loaded is None:
            return
        try:
            stored = {k: v.to(loaded.device) for k, v in load_file(case.folder / PREDICTIONS).items()}
            labels, teacher = stored["labels"], stored["teacher"]
        except (OSError, SafetensorError, KeyError, ValueError):
            return  # reported by another check
        if not torch.equal(labels.long(), loaded.labels):
            yield case.problem(f"its labels are not those of {loaded.task.dataset.name}", PREDICTIONS)
            return
        if len(changed := changed_classes(teacher, loaded.logits)):
            yield case.problem(
                f"has other predictions of the teacher than computed here for {len(changed)} test images, "
                f"first image {changed[0]}",
                PREDICTIONS,
            )
        if (case.folder / STUDENT).is_file():
            yield from self.check_student(case, loaded, stored)

    def check_student(self, case: Case, loaded: LoadedTask, stored: dict[str, Tensor]) -> Iterator[Finding]:
        """The stored student must give the stored predictions and numbers."""
        try:
            digest, student = student_of(case.folder, loaded.task, loaded.device)
        except RunError as error:
            yield case.problem(str(error).partition(f"{STUDENT} ")[2], STUDENT)
            return
        if digest != (recorded := case.result["digests"]["student"]):
            yield case.problem(f"its weights have digest {digest[:12]}, the record says {str(recorded)[:12]}", STUDENT)
        s = logits_of(student, loaded.images)
        computed = predictions_of(s, loaded.logits, loaded.labels)
        exact = all(torch.equal(bits(v), bits(stored[k].cpu())) for k, v in computed.items())
        self.students, self.exact = self.students + 1, self.exact + exact
        self.reproduced |= {case.record["hash"]} if exact else set()
        yield from compare_predictions(case, s, computed, stored)
        view = view_of(case, loaded, student, s)
        metrics = registry.comparable(student_metrics(view), case.result, case.version)
        metrics["accuracy"] = {"last": top1(s, loaded.labels)}
        ties = TieShares() if exact else tie_shares(view)
        relative = EXACT if exact else NEAR
        without_images = view.synthetic is None and case.result["samples"] is not None
        for metric in registry.METRICS:
            if metric.key not in metrics or (without_images and metric.source == "samples"):
                continue
            file = SAMPLES if metric.source == "samples" else STUDENT
            for number, old, new in numbers(case.result.get(metric.key, "nothing"), metrics[metric.key]):
                if not same(old, new, relative, metric.slack(number, ties)):
                    name = f"{metric.key}.{number}".rstrip(".")
                    yield case.problem(mismatch(name, old, f"{file} gives", new))
        yield from self.check_external_metrics(case, view, ties, relative)

    @cached_property
    def external_metrics(self) -> dict[str, external.Installed]:
        """The installed metrics of other packages, by name."""
        return {one.entry.name: one for one in external.installed()}

    def check_external_metrics(self, case: Case, view: View, ties: TieShares, relative: float) -> Iterator[Finding]:
        """Metrics of other packages must give the recorded numbers if the same code is installed."""
        for name, recorded in case.record.get(external.KEY, {}).items():
            installed = self.external_metrics.get(name)
            title = f"metric {name} of {recorded['owner']} {recorded['version']}"
            if installed is None or installed.metric is None:
                why = "is not installed here" if installed is None else f"cannot be used here ({installed.why})"
                yield case.note(f"{title} {why}: it was not computed again")
                continue
            if installed.code != recorded[CODE]:
                yield case.note(f"the code of {title} is different here: it was not computed again")
                continue
            if not view.accuracies or (installed.metric.source == "samples" and view.synthetic is None):
                continue  # a missing file, reported by another check
            try:
                numbers, _ = external.compute_one(installed.metric, view)
            except RunError as error:
                if str(error) != recorded["why"]:
                    yield case.note(f"{title} cannot be computed here: {error}")
                continue
            for column, value in recorded["values"].items():
                computed = numbers.get(column)
                if not same(value, computed, relative, installed.metric.slack(column, ties)):
                    what = mismatch(f"{external.KEY}.{name}.{column}", value, f"{title} gives", computed)
                    yield case.problem(what) if value is not None else case.note(what)


def view_of(case: Case, loaded: LoadedTask, student: Tapped, s: Tensor) -> View:
    """The stored files of a run as input of metrics; `s`: the student's logits on the test images, (n, classes)."""
    try:
        rows = read_curves(case)
    except RunError:  # reported by another check
        rows = []
    curves = curves_in(rows, top1(loaded.logits, loaded.labels))
    images = samples_of(case, loaded.device) or (None, None)
    return View(
        curves.accuracies, curves.agreements, curves.student_images, curves.teacher_top1, loaded.teacher, student,
        loaded.logits, s, loaded.labels, loaded.images, *images,
    )  # fmt: skip


def numbers(recorded: Any, computed: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every number of a metric: (name, or "" for a single number; recorded; computed)."""
    if isinstance(computed, dict) and isinstance(recorded, dict):
        yield from ((name, recorded.get(name, "nothing"), value) for name, value in computed.items())
    else:
        yield "", recorded, computed


def compare_predictions(
    case: Case, s: Tensor, computed: dict[str, Tensor], stored: dict[str, Tensor]
) -> Iterator[Finding]:
    """The student's classes and confidences must be the stored ones, except for near ties."""
    if len(changed := changed_classes(stored["student"], s)):
        yield case.problem(
            f"has other predictions than {STUDENT} gives for {len(changed)} test images, first image {changed[0]}",
            PREDICTIONS,
        )
        return
    new, old = computed["student_confidence"], stored["student_confidence"].cpu()
    far = (~torch.isclose(new, old, rtol=0.0, atol=NEAR, equal_nan=True)).nonzero().flatten().tolist()
    if far:
        what = mismatch("student_confidence", float(old[far[0]]), f"{STUDENT} gives", float(new[far[0]]))
        yield case.problem(f"in {len(far)} test images, first image {far[0]}, {what}", PREDICTIONS)


def changed_classes(classes: Tensor, logits: Tensor) -> list[int]:
    """Rows of logits (n, classes) whose largest is not at the stored class (n,), except for near ties."""
    stored = logits.gather(1, classes.long().clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
    known = (classes >= 0) & (classes < logits.shape[1])
    near = known & (logits.max(1).values - stored < TIE)
    changed = (classes != logits.argmax(1)) & ~near
    return [int(k) for k in changed.nonzero().flatten().tolist()]


def bits(x: Tensor) -> Tensor:
    """An fp32 tensor reinterpreted as int32, so that NaN equals NaN."""
    return x.contiguous().view(torch.int32)


def near_tie(logits: Tensor) -> float:
    """Share of rows of logits (n, classes) with a near tie."""
    top = logits.topk(2, 1).values
    return float((top[:, 0] - top[:, 1] < TIE).double().mean())


def tie_shares(view: View) -> TieShares:
    """Shares of images whose results may differ on a machine with other arithmetic."""
    both = (view.student_logits, view.teacher_logits)
    borders = torch.linspace(0.0, 1.0, 16, device=view.labels.device, dtype=torch.float64)[1:-1]
    at_border = 0.0
    for logits in both:
        confidence = torch.softmax(logits.double(), 1).max(1).values
        at_border += float(((confidence[:, None] - borders).abs() < EDGE).any(1).double().mean())
    samples, shown = 0.0, 1
    if view.synthetic is not None:
        samples, shown = near_tie(logits_of(view.teacher, view.synthetic)), len(view.synthetic)
    classes = view.teacher_logits.shape[1]
    return TieShares(sum(near_tie(logits) for logits in both), at_border, samples, BALLS / shown, classes, shown)


def samples_of(case: Case, device: torch.device) -> tuple[Tensor, Tensor | None] | None:
    """The stored synthetic images; None if there are none. Raises `RunError` for a damaged file."""
    path = case.folder / SAMPLES
    if not path.is_file():
        return None
    try:
        return read_images([path], device, FINAL)
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{SAMPLES} cannot be read: {error}") from error


def check_generator(case: Case) -> Iterator[Finding]:
    """The generator file must be readable and have at least the recorded number of parameters."""
    path: Path = case.folder / GENERATOR
    if not path.is_file() or GENERATOR not in case.record.get("artifacts", {}):
        return
    try:
        stored = sum(v.numel() for v in load_file(path).values())
    except (SafetensorError, ValueError) as error:
        yield case.problem(f"cannot be read: {error}", GENERATOR)
        return
    if stored < case.result["generator_parameters"]:
        yield case.problem(
            mismatch("generator_parameters", case.result["generator_parameters"], f"{GENERATOR} holds", stored)
        )
