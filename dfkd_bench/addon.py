"""The contract of an add-on: what wraps any method's `sample` and `distill_loss`, on one page.

`dfkd-bench run --method M --with A --with B` trains with B around A around M. An add-on is a class with a frozen config
dataclass beside it, built by the harness; every verb is optional and passes on what is inside. It never learns which
method it wraps, declares its own `Privileges` (the run's card is the union), and is declared by its package under the
entry-point group `dfkd_bench.addons`. Its settings are changed with `--set A.key=value`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from dfkd_bench.method import Batch, Context, Flags, Network, Outputs, Privileges

__all__ = ["AddOn", "AddOnContext", "Loss", "Sample", "SlowStudent"]

Sample = Callable[[int], Batch]
Loss = Callable[[Batch, Outputs, Outputs], Tensor]


@dataclass(frozen=True)
class SlowStudent:
    """An exponential moving average of the student: weights and BatchNorm statistics, in eval mode, checkpointed."""

    network: Network  # its forwards count as the student's
    update: Callable[[float], None]  # one step: slow = momentum * slow + (1 - momentum) * student


class AddOnContext(Context, Protocol):
    """A method's context, with names and random streams of the add-on's own, closed to what it did not declare."""

    def slow_student(self, name: str) -> SlowStudent:
        """A copy of the student as it is now, registered under `name`. Call it in `setup`."""


class AddOn:
    """Something around a method. Class attributes describe it; a verb that is not written passes everything on."""

    Config: ClassVar[type[Any]]  # frozen dataclass, each field made with `setting`
    privileges: ClassVar[Privileges] = Privileges()
    paper: ClassVar[str] = ""
    distill_taps: ClassVar[tuple[str, ...]] = ()  # taps wanted in `distill_loss`, beside the method's own

    def __init__(self, config: Any) -> None:
        self.config = config

    def refuse(self, flags: Flags) -> str:
        """Why this add-on cannot go around a method of these flags, in a few words; empty where it can."""
        return ""

    def setup(self, context: AddOnContext) -> None:
        """After the method's own: build what is needed, register it with `context`."""
        self.context = context

    def sample(self, n: int, inner: Sample) -> Batch:
        """`n` rows for the student, made of `inner(n)`; called under `no_grad`.

        Where `inner` returns the same object again, so must this: the teacher's output is then used again. A method
        whose rows may be drawn a round at a time is asked step by step instead once an add-on has a `sample`.
        """
        return inner(n)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs, inner: Loss) -> Tensor:
        """The student's scalar loss, made of `inner(batch, student, teacher)`. Pass on every row, in its place.

        `student` and `teacher` hold the taps that this add-on and the parts inside it asked for: pass on all of them.
        """
        return inner(batch, student, teacher)

    def after_distill_step(self, batch: Batch) -> None:
        """Called after each student update, after the method's."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first round of an epoch, after the method's."""

    def on_epoch_end(self, epoch: int) -> None:
        """Called after the last round of an epoch, after the method's."""
