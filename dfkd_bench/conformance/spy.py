"""Between the loop and a method: passes every verb on, and writes down what it changed and what it returned."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfkd_bench.checkpoint import digest
from dfkd_bench.conformance.report import Report
from dfkd_bench.loop import Job
from dfkd_bench.method import Batch, Flags, Outputs
from dfkd_bench.models.tapped import Tapped


def global_streams() -> tuple[Any, ...]:
    """The state of Python's, NumPy's and torch's global random streams."""
    legacy: Any = np.random.get_state()
    cuda = [s.numpy().tobytes() for s in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    return random.getstate(), legacy[1].tobytes(), legacy[2:], torch.get_rng_state().numpy().tobytes(), cuda


def hooks_on(module: nn.Module) -> int:
    """Number of forward and backward hooks in `module`."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in module.modules() for kind in kinds)


@dataclass(frozen=True)
class View:
    """What no verb may change."""

    teacher: str
    student_weights: str
    student_buffers: str
    streams: tuple[Any, ...]

    @classmethod
    def of(cls, teacher: Tapped, student: Tapped) -> View:
        """As it is now."""
        weights, buffers = dict(student.named_parameters()), dict(student.named_buffers())
        return cls(digest(teacher.state_dict()), digest(weights), digest(buffers), global_streams())


def compare(verb: str, old: View, teacher: Tapped, student: Tapped, mode: str, report: Report) -> None:
    """Note what `verb` changed of teacher, student and global random streams since `old`."""
    new = View.of(teacher, student)
    report.expect("teacher-unchanged", new.teacher == old.teacher, f"{verb} changed the teacher's weights or buffers")
    still = not teacher.training and not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    report.expect("teacher-unchanged", still, f"{verb} left the teacher in train mode or with gradients")
    report.expect("teacher-unchanged", not hooks_on(teacher), f"{verb} left a hook on the teacher")
    same = new.student_weights == old.student_weights
    report.expect("student-unchanged", same, f"{verb} changed the student's weights")
    report.expect("student-unchanged", not hooks_on(student), f"{verb} left a hook on the student")
    # with train_keep_stats the loop itself puts the statistics back when the synthesis of the round is over
    may_move = verb == "synthesize" and mode in ("train", "train_keep_stats")
    moved = new.student_buffers != old.student_buffers
    report.expect("student-statistics", may_move or not moved, f"{verb} moved the student's BatchNorm statistics")
    if verb != "setup":
        report.expect("randomness", new.streams == old.streams, f"{verb} drew from a global random stream")


class Spy:
    """Stands in for the method in a job. With a report it looks closely, without one it keeps the images' hashes."""

    def __init__(self, job: Job, teacher: Tapped, report: Report | None = None) -> None:
        self.method, self.job, self.teacher, self.report = job.method, job, teacher, report
        self.privileges = job.method.privileges
        self.calls: list[str] = []
        self.verb = ""  # the one in progress; still set after it raised
        self.sampled: list[str] = []
        self.rows: set[str] = set()  # of every image sampled
        self._flags = job.method.flags
        self._last: tuple[Batch, str] | None = None

    @property
    def flags(self) -> Flags:
        """The method's, which may not change."""
        flags = self.method.flags
        if self.report:
            self.report.expect("flags", flags == self._flags, "flags changed during the run")
        return flags

    def _call(self, verb: str, *arguments: Any) -> Any:
        self.calls.append(verb)
        self.verb = verb
        student = self.job.student
        before = View.of(self.teacher, student) if self.report else None
        result = getattr(self.method, verb)(*arguments)
        self.verb = ""
        if self.report and before:
            compare(verb, before, self.teacher, student, self._flags.student_mode, self.report)
        return result

    def on_epoch_start(self, epoch: int) -> None:
        """Passed on."""
        self._call("on_epoch_start", epoch)

    def on_epoch_end(self, epoch: int) -> None:
        """Passed on."""
        self._call("on_epoch_end", epoch)

    def after_distill_step(self, batch: Batch) -> None:
        """Passed on."""
        self._call("after_distill_step", batch)

    def synthesize(self) -> Mapping[str, Tensor]:
        """Passed on; the losses are looked at."""
        losses: Mapping[str, Tensor] = self._call("synthesize")
        if self.report is None:
            return losses
        if self.report.expect("synthesize", isinstance(losses, Mapping), f"returned a {type(losses).__name__}"):
            for name, value in losses.items():
                scalar = isinstance(value, Tensor) and value.dim() == 0
                if self.report.expect("synthesize", scalar, f"{name} is no scalar tensor"):
                    self.report.expect("synthesize", not value.requires_grad, f"{name} is not detached")
                    self.report.expect(
                        "synthesize", bool(torch.isfinite(value.detach())), f"{name} is {float(value.detach())}"
                    )
        return losses

    def sample(self, n: int) -> Batch:
        """Passed on; the batch is looked at and its hash kept."""
        batch: Batch = self._call("sample", n)
        if self.report:
            check_sample(batch, n, self.job, self.report)
        if isinstance(batch, Batch):
            found = digest([batch.images, batch.labels])
            if self.report and self._last and self._last[0] is batch:
                self.report.expect("batch-reuse", self._last[1] == found, "the same Batch came back with other content")
            self._last = (batch, found)
            self.sampled.append(found)
            self.rows |= {digest(row) for row in batch.images.float()}
        return batch

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """Passed on; the loss is looked at."""
        loss: Tensor = self._call("distill_loss", batch, student, teacher)
        if self.report is None:
            return loss
        scalar = isinstance(loss, Tensor) and loss.dim() == 0
        if not self.report.expect("distill-loss", scalar, "returned no scalar tensor"):
            return loss
        self.report.expect("distill-loss", bool(torch.isfinite(loss.detach())), f"returned {float(loss.detach())}")
        if self.report.expect("distill-loss", loss.requires_grad, "the loss has no gradient"):
            weights = list(self.job.student.parameters())
            found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            self.report.expect("distill-loss", any(g is not None for g in found), "no gradient reaches the student")
        return loss

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """Passed on, unwatched: whoever asks for a preview compares what it left."""
        return self.method.preview(n, stream)


def check_sample(batch: Batch, n: int, job: Job, report: Report, verb: str = "sample") -> None:
    """Rows, shape, type, device and range of what `verb(n)` returned."""
    if not report.expect("sample", isinstance(batch, Batch), f"{verb}({n}) returned a {type(batch).__name__}"):
        return
    images, labels, classes = batch.images, batch.labels, job.context.task.classes
    wanted = (n, *job.context.task.image_shape)
    shape = tuple(images.shape)
    report.expect("sample", shape == wanted, f"{verb}({n}) returned images {shape}, expected {wanted}")
    report.expect("sample", images.is_floating_point(), f"images are {images.dtype}")
    report.expect("sample", images.device.type == job.context.device.type, f"images are on {images.device}")
    report.expect("sample", bool(torch.isfinite(images).all()), "images are not finite")
    if labels is not None:
        typed = labels.dtype == torch.int64 and tuple(labels.shape) == (n,)
        seen = f"labels are {labels.dtype} {tuple(labels.shape)}"
        if report.expect("labels", typed, seen):
            low, high = int(labels.min()), int(labels.max())
            report.expect(
                "labels", low >= 0 and high < classes, f"labels run from {low} to {high} of {classes} classes"
            )
    for name in ("weights", "latents"):
        value = getattr(batch, name)
        report.expect("labels", value is None or len(value) == n, f"{name} have another number of rows than {n}")
    for name in ("images", "labels", "weights", "latents"):
        value = getattr(batch, name)
        report.expect("no-grad", value is None or not value.requires_grad, f"{name} require a gradient")
