"""Stored students, evaluated again by the code that evaluated them in their runs.

How near is near enough is decided by what is seen, not by the names of machines. Where the confidences of the test
images come out bit for bit as stored, this machine does the record's arithmetic, and every number has to be the same
(to 1e-9, for sums by another version of a library). Elsewhere numbers may differ by 1e-4 of their value, and a class
only where the two largest logits are within 1e-3 of each other; what counts images (accuracy, agreement, coverage,
...) may then differ by as many images as stand on such an edge, mostly none.

Measured on the 59 records of `results/` (CPU, one thread): all bit for bit on the same kind of machine, with one thread
and with two; with the oldest instruction set that the libraries offer instead, no class differed, confidences by
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
from dfkd_bench.metrics.evaluate import of_student, predictions_of
from dfkd_bench.metrics.logits import logits_of, top1
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.plugins.objects import plugin_digests
from dfkd_bench.protocol import Task, task
from dfkd_bench.results.verify.case import GENERATOR, PREDICTIONS, SAMPLES, STUDENT, Case
from dfkd_bench.results.verify.findings import Finding, off, same
from dfkd_bench.results.verify.identity import LocalPlugins
from dfkd_bench.results.verify.numbers import EXACT, curves_in, read_curves
from dfkd_bench.studies.robustness import student_of
from dfkd_bench.teachers.registry import load_teacher, with_normalisation_of
from dfkd_bench.training.storage import FINAL, read_images
from dfkd_bench.utils.device import configure_device

NEAR = 1e-4  # relative for numbers, absolute for confidences
TIE = 1e-3  # logits
BALLS = 4.0  # images that may be in a ball of features or out of it
EDGE = 1e-5  # of a bin of the calibration error


@dataclass(frozen=True, eq=False)
class TestBench:
    """A task made ready on a device: its teacher and what that says of the test set."""

    task: Task
    device: torch.device
    teacher: Tapped
    images: Tensor  # normalised
    labels: Tensor
    logits: Tensor  # of the teacher


class StudentVerifier:
    """Evaluates students; loads the test set and the teacher once per task."""

    def __init__(self, here: LocalPlugins, device: str = "auto") -> None:
        self.here, self.device = here, device
        self._stand: tuple[tuple[Any, ...], TestBench] | None = None
        self.students = self.exact = 0
        self.alike: set[str] = set()  # hashes of the runs whose predictions came out bit for bit

    def stand(self, case: Case) -> TestBench | None:
        """The record's task on a device, None where not all of it is here. Raises `RunError` for damage."""
        spec, teacher_entry = case.spec, self.here.teacher(case.spec.teacher)
        kind = self.device
        if kind == "auto":
            kind = spec.device if spec.device == "cpu" or torch.cuda.is_available() else "cpu"
        key = (spec.task, spec.teacher, spec.data, kind, spec.threads)
        if self._stand and self._stand[0] == key:
            return self._stand[1]
        if teacher_entry is None:
            return None
        try:
            chosen = with_normalisation_of(task(spec.task), teacher_entry)
        except UsageError:  # of a package that is not here
            return None
        if chosen.dataset.sha256 not in ("", spec.data) or plugin_digests(chosen.plugins) != spec.plugins:
            return None
        if not is_present(chosen.dataset) or (teacher_entry.dataset, teacher_entry.arch) != (
            chosen.dataset.name,
            chosen.teacher,
        ):
            return None
        device = configure_device(kind, spec.threads)
        teacher, test = load_teacher(teacher_entry, device), loading.load_test(chosen.dataset, device)
        images = test.normalised(slice(None))
        found = TestBench(chosen, device, teacher, images, test.labels, logits_of(teacher, images))
        self._stand = (key, found)
        return found

    def check(self, case: Case) -> Iterator[Finding]:
        """Everything of a run that its teacher, its data and its student (where that is here) can show."""
        found = self.stand(case)
        if found is None:
            return
        try:
            stored = {k: v.to(found.device) for k, v in load_file(case.folder / PREDICTIONS).items()}
            labels, teacher = stored["labels"], stored["teacher"]
        except (OSError, SafetensorError, KeyError, ValueError):
            return  # said already
        if not torch.equal(labels.long(), found.labels):
            yield case.problem(f"its labels are not those of {found.task.dataset.name}", PREDICTIONS)
            return
        if len(odd := otherwise(teacher, found.logits)):
            yield case.problem(
                f"holds other answers of the teacher than it gives for {len(odd)} test images, first image {odd[0]}",
                PREDICTIONS,
            )
        if (case.folder / STUDENT).is_file():
            yield from self.student(case, found, stored)

    def student(self, case: Case, stand: TestBench, stored: dict[str, Tensor]) -> Iterator[Finding]:
        """The stored student gives the stored predictions and numbers."""
        try:
            digest, student = student_of(case.folder, stand.task, stand.device)
        except RunError as error:
            yield case.problem(str(error).partition(f"{STUDENT} ")[2], STUDENT)
            return
        if digest != (kept := case.result["digests"]["student"]):
            yield case.problem(f"its weights have digest {digest[:12]}, the record says {str(kept)[:12]}", STUDENT)
        s = logits_of(student, stand.images)
        made = predictions_of(s, stand.logits, stand.labels)
        exact = all(torch.equal(bits(v), bits(stored[k].cpu())) for k, v in made.items())
        self.students, self.exact = self.students + 1, self.exact + exact
        self.alike |= {case.record["hash"]} if exact else set()
        yield from answers(case, s, made, stored)
        view = view_of(case, stand, student, s)
        meant = registry.comparable(of_student(view), case.result, case.version)
        meant["accuracy"] = {"last": top1(s, stand.labels)}
        edges = TieShares() if exact else tie_shares(view)
        relative = EXACT if exact else NEAR
        gone = view.synthetic is None and case.result["samples"] is not None  # the images are not here
        for metric in registry.METRICS:
            if metric.key not in meant or (gone and metric.source == "samples"):
                continue
            file = SAMPLES if metric.source == "samples" else STUDENT
            for number, said, found in numbers(case.result.get(metric.key, "nothing"), meant[metric.key]):
                if not same(said, found, relative, metric.slack(number, edges)):
                    name = f"{metric.key}.{number}".rstrip(".")
                    yield case.problem(off(name, said, f"{file} gives", found))
        yield from self.of_others(case, view, edges, relative)

    @cached_property
    def others(self) -> dict[str, external.Installed]:
        """The metrics of other packages that are installed here, by name."""
        return {one.entry.name: one for one in external.installed()}

    def of_others(self, case: Case, view: View, edges: TieShares, relative: float) -> Iterator[Finding]:
        """The numbers of other packages' metrics, where the same code is installed here."""
        for name, said in case.record.get(external.KEY, {}).items():
            here, who = self.others.get(name), f"metric {name} of {said['owner']} {said['version']}"
            if here is None or here.metric is None:
                why = "is not installed here" if here is None else f"cannot be used here ({here.why})"
                yield case.note(f"{who} {why}: it was not computed again")
                continue
            if here.code != said[CODE]:
                yield case.note(f"the code of {who} is another here: it was not computed again")
                continue
            if not view.accuracies or (here.metric.source == "samples" and view.synthetic is None):
                continue  # a file is not here, as was said already
            try:
                numbers, _ = external.numbers_of(here.metric, view)
            except RunError as error:
                if str(error) != said["why"]:
                    yield case.note(f"{who} cannot be computed here: {error}")
                continue
            for column, value in said["values"].items():
                found = numbers.get(column)
                if not same(value, found, relative, here.metric.slack(column, edges)):
                    what = off(f"{external.KEY}.{name}.{column}", value, f"{who} gives", found)
                    yield case.problem(what) if value is not None else case.note(what)


def view_of(case: Case, stand: TestBench, student: Tapped, s: Tensor) -> View:
    """What metrics see of a run's stored files, with the logits `s` of its student on the test images."""
    try:
        rows = read_curves(case)
    except RunError:  # said already
        rows = []
    seen = curves_in(rows, top1(stand.logits, stand.labels))
    images = samples_of(case, stand.device) or (None, None)
    return View(
        seen.accuracies, seen.agreements, seen.student_images, seen.teacher_top1, stand.teacher, student, stand.logits,
        s, stand.labels, stand.images, *images,
    )  # fmt: skip


def numbers(said: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every number of a part that was worked out: (its name, "" for the part itself, as recorded, as found)."""
    if isinstance(found, dict) and isinstance(said, dict):
        yield from ((name, said.get(name, "nothing"), value) for name, value in found.items())
    else:
        yield "", said, found


def answers(case: Case, s: Tensor, made: dict[str, Tensor], stored: dict[str, Tensor]) -> Iterator[Finding]:
    """The student's classes and confidences are the stored ones, ties apart."""
    if len(odd := otherwise(stored["student"], s)):
        yield case.problem(
            f"holds other answers than {STUDENT} gives for {len(odd)} test images, first image {odd[0]}", PREDICTIONS
        )
        return
    mine, theirs = made["student_confidence"], stored["student_confidence"].cpu()
    far = (~torch.isclose(mine, theirs, rtol=0.0, atol=NEAR, equal_nan=True)).nonzero().flatten().tolist()
    if far:
        what = off("student_confidence", float(theirs[far[0]]), f"{STUDENT} gives", float(mine[far[0]]))
        yield case.problem(f"in {len(far)} test images, first image {far[0]}, {what}", PREDICTIONS)


def otherwise(classes: Tensor, logits: Tensor) -> list[int]:
    """Rows whose stored class is not the one of the logits (n, classes), and no tie explains it."""
    theirs = logits.gather(1, classes.long().clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
    known = (classes >= 0) & (classes < logits.shape[1])
    near = known & (logits.max(1).values - theirs < TIE)
    odd = (classes != logits.argmax(1)) & ~near
    return [int(k) for k in odd.nonzero().flatten().tolist()]


def bits(x: Tensor) -> Tensor:
    """A tensor as whole numbers, so that what is not a number equals itself."""
    return x.contiguous().view(torch.int32)


def near_tie(logits: Tensor) -> float:
    """Share of rows whose two largest logits are nearly the same."""
    top = logits.topk(2, 1).values
    return float((top[:, 0] - top[:, 1] < TIE).double().mean())


def tie_shares(view: View) -> TieShares:
    """How many images may count otherwise on a machine whose arithmetic is not the record's."""
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
    """The stored synthetic images, None where there are none. Raises `RunError` for a damaged file."""
    path = case.folder / SAMPLES
    if not path.is_file():
        return None
    try:
        return read_images([path], device, FINAL)
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{SAMPLES} cannot be read: {error}") from error


def generator(case: Case) -> Iterator[Finding]:
    """The kept networks can be read and have as many numbers as the record counts parameters."""
    path: Path = case.folder / GENERATOR
    if not path.is_file() or GENERATOR not in case.record.get("artifacts", {}):
        return
    try:
        held = sum(v.numel() for v in load_file(path).values())
    except (SafetensorError, ValueError) as error:
        yield case.problem(f"cannot be read: {error}", GENERATOR)
        return
    if held < case.result["generator_parameters"]:
        yield case.problem(off("generator_parameters", case.result["generator_parameters"], f"{GENERATOR} holds", held))
