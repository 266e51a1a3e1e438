"""A proxy between the loop and a method: it passes every verb on, and checks its results and side effects."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfkd_bench.conformance.report import Report
from dfkd_bench.method import Batch, Flags, Outputs
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.training.loop import Job
from dfkd_bench.utils.checkpoint import digest

VERBS = ("synthesize", "sample", "distill_loss", "after_distill_step", "on_epoch_start", "on_epoch_end")


def global_streams() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's global random streams."""
    legacy: Any = np.random.get_state()
    cuda = [s.numpy().tobytes() for s in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    return {
        "Python": random.getstate(), "NumPy": (legacy[1].tobytes(), legacy[2:]),
        "torch": torch.get_rng_state().numpy().tobytes(), "CUDA": cuda,
    }  # fmt: skip


def hooks_on(module: nn.Module) -> int:
    """Number of forward and backward hooks in `module`."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in module.modules() for kind in kinds)


@dataclass(frozen=True)
class View:
    """Digests of everything that no verb may change."""

    teacher: str
    student_weights: str
    student_buffers: str
    streams: dict[str, Any]

    @classmethod
    def of(cls, teacher: Tapped, student: Tapped) -> View:
        """The present state."""
        weights, buffers = dict(student.named_parameters()), dict(student.named_buffers())
        return cls(digest(teacher.state_dict()), digest(weights), digest(buffers), global_streams())


def compare(verb: str, old: View, teacher: Tapped, student: Tapped, mode: str, report: Report) -> None:
    """Report what `verb` changed in teacher, student and global random streams since `old`."""
    new = View.of(teacher, student)
    same = new.teacher == old.teacher
    report.expect("teacher-unchanged", same, f"{verb} changed the teacher's weights or buffers", "the bits of before")
    report.expect("teacher-unchanged", not teacher.training, f"{verb} left the teacher in train mode", "eval mode")
    report.expect("teacher-unchanged", not hooks_on(teacher), f"{verb} left a hook on the teacher", "no hook")
    for name, weight in teacher.named_parameters():
        report.expect("teacher-gradients", weight.grad is None, f"{verb} left a gradient on {name}", "grad None")
        asks = f"after {verb} {name} asks for a gradient"
        report.expect("teacher-gradients", not weight.requires_grad, asks, "requires_grad False, as it was given")
    same = new.student_weights == old.student_weights
    report.expect("student-unchanged", same, f"{verb} changed the student's weights", "the bits of before")
    report.expect("student-unchanged", not hooks_on(student), f"{verb} left a hook on the student", "no hook")
    # with train_keep_stats the loop restores the statistics after the synthesis of the round
    may_move = verb == "synthesize" and mode in ("train", "train_keep_stats")
    moved = new.student_buffers != old.student_buffers
    seen, expected = f"{verb} moved the student's BatchNorm statistics", f"the bits of before, with student_mode {mode}"
    report.expect("student-statistics", may_move or not moved, seen, expected)
    if verb != "setup":
        for name, state in new.streams.items():
            seen = f"{verb} drew from {name}'s global random stream"
            report.expect("global-rng", state == old.streams[name], seen, "draws from context.stream(name) alone")


class Spy:
    """Replaces the method in a job. With a report it checks every verb; else it only stores digests of the images."""

    def __init__(self, job: Job, teacher: Tapped, report: Report | None = None) -> None:
        self.method, self.job, self.teacher, self.report = job.method, job, teacher, report
        self.privileges = job.method.privileges
        self.calls: list[str] = []
        self.verb = ""  # the verb in progress; stays set if it raises
        self._inside = False  # True while a verb of the method runs
        self.sampled: list[str] = []
        self.rows: set[str] = set()  # digest of every sampled image
        self._flags = job.method.flags
        self._last: tuple[Batch, str] | None = None
        if report:
            self._watch_inner_calls(report)

    @property
    def flags(self) -> Flags:
        """The method's flags; reports a change."""
        flags = self.method.flags
        if self.report:
            self.report.expect("flags", flags == self._flags, "flags changed during the run")
        return flags

    def _watch_inner_calls(self, report: Report) -> None:
        """Wrap each verb of this instance, to report verbs that the method calls inside another verb.

        `super().verb(...)` does not use an instance's attributes, so calling a default that way is allowed.
        """

        def wrapped(verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def watched(*arguments: Any, **options: Any) -> Any:
                seen = f"{self.verb} called {verb} itself"
                expected = "code that two verbs share in a method of another name"
                report.expect("verb-order", not self._inside, seen, expected)
                before, self._inside = self._inside, True
                try:
                    return call(*arguments, **options)
                finally:
                    self._inside = before

            return watched

        for verb in VERBS:
            setattr(self.method, verb, wrapped(verb, getattr(self.method, verb)))

    def _call(self, verb: str, *arguments: Any) -> Any:
        self.calls.append(verb)
        self.verb = verb
        student = self.job.student
        before = View.of(self.teacher, student) if self.report else None
        result = getattr(self.method, verb)(*arguments)
        self.verb = ""
        if self.report and before:
            mode = self._flags.mode(self.job.context.progress.synthesis_step)
            compare(verb, before, self.teacher, student, mode, self.report)
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
        """Passed on; checks the losses."""
        losses: Mapping[str, Tensor] = self._call("synthesize")
        report = self.report
        if report is None:
            return losses
        mapping, kind = isinstance(losses, Mapping), type(losses).__name__
        report.require("synthesize", mapping, f"returned a {kind}", "a mapping of names to losses")
        for name, value in losses.items():
            scalar = isinstance(value, Tensor) and value.dim() == 0
            report.require("synthesize", scalar, f"{name} is {describe(value)}", "a tensor of shape ()")
            expected = f"{name}.detach(), so that the log holds no graph"
            report.expect("synthesize", not value.requires_grad, f"{name} carries a gradient", expected)
            finite, number = bool(torch.isfinite(value.detach())), float(value.detach())
            report.expect("finite", finite, f"synthesize returned {name} = {number}", "a finite loss")
        return losses

    def sample(self, n: int) -> Batch:
        """Passed on; checks the batch and stores its digest."""
        batch: Batch = self._call("sample", n)
        if self.report:
            check_sample(batch, n, self.job, self.report)
        if isinstance(batch, Batch):
            content = digest([batch.images, batch.labels])
            if self.report and self._last and self._last[0] is batch:
                seen = "the same Batch object came back with other content"
                self.report.expect("batch-reuse", self._last[1] == content, seen, "a new Batch for new content")
            self._last = (batch, content)
            self.sampled.append(content)
            self.rows |= {digest(row) for row in batch.images.float()}
        return batch

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """Passed on; checks the loss and its gradient."""
        loss: Tensor = self._call("distill_loss", batch, student, teacher)
        report = self.report
        if report is None:
            return loss
        scalar = isinstance(loss, Tensor) and loss.dim() == 0
        report.require("distill-loss", scalar, f"returned {describe(loss)}", "a tensor of shape ()")
        number = float(loss.detach())
        report.expect("finite", math.isfinite(number), f"distill_loss returned {number}", "a finite loss")
        expected = "a loss through which a gradient reaches the student"
        report.require("distill-loss", loss.requires_grad, "the loss has no gradient", expected)
        weights = list(self.job.student.parameters())
        gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        reaches = any(g is not None for g in gradients)
        report.expect("distill-loss", reaches, "no gradient reaches the student", expected)
        return loss

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """Passed on without checks; `check_preview` compares the state before and after."""
        return self.method.preview(n, stream)


def describe(value: Any) -> str:
    """`a tensor of shape (3,)` or `a list`."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def check_sample(batch: Batch, n: int, job: Job, report: Report, verb: str = "sample") -> None:
    """Check the batch that `verb(n)` returned. Raises `Broken` if the loop could not continue with it."""
    report.require("sample", isinstance(batch, Batch), f"{verb}({n}) returned a {type(batch).__name__}", "a Batch")
    parts = {"images": batch.images, "labels": batch.labels, "weights": batch.weights, "latents": batch.latents}
    given = {name: value for name, value in parts.items() if value is not None}
    for name, value in given.items():
        tensor = isinstance(value, Tensor)
        report.require("sample", tensor, f"{verb}({n}) returned {name} as {describe(value)}", "a tensor")
        shape = tuple(value.shape)
        required: tuple[int, ...] = (n, *job.context.task.image_shape) if name == "images" else (n,)
        right = shape[:1] == required if name == "latents" else shape == required
        expected = f"{name} {required}" if name != "latents" else f"latents of {n} rows"
        report.require("shapes", right, f"{verb}({n}) returned {name} {shape}", expected)
    for name, dtype in (("images", torch.float32), ("labels", torch.int64)):
        if name in given:
            report.require("dtype", given[name].dtype == dtype, f"{name} are {given[name].dtype}", f"{name} {dtype}")
    device = job.context.device
    for name, value in given.items():
        report.require("device", value.device.type == device.type, f"{name} are on {value.device}", f"on {device}")
        report.expect("no-grad", not value.requires_grad, f"{name} carry a gradient", f"{name}.detach()")
    bad = int((~torch.isfinite(batch.images)).sum())
    report.expect("finite", not bad, f"{verb}({n}) returned {bad} pixels that are not finite", "finite images")
    if batch.labels is not None and n:
        low, high, classes = int(batch.labels.min()), int(batch.labels.max()), job.context.task.classes
        report.expect("labels", 0 <= low <= high < classes, f"labels from {low} to {high}", f"from 0 to {classes - 1}")
