"""The contract of an add-on, which wraps the `sample` and `distill_loss` of any method.

`dfkd-bench run --method M --with A --with B` wraps M in A, and the result in B. An add-on is a class with a frozen
config dataclass. Every method is optional; by default it calls the wrapped one. An add-on does not know which method it
wraps. It declares its own `Privileges` (a run has the union of all) and an entry point in the group
`dfkd_bench.addons`. Its settings are changed with `--set A.key=value`.
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
    """A `Context` with the add-on's own names, random streams and privileges."""

    def slow_student(self, name: str) -> SlowStudent:
        """A copy of the current student, registered under `name`. Call it in `setup`."""


class AddOn:
    """An add-on around a method. Class attributes describe it; by default every method calls the wrapped one."""

    Config: ClassVar[type[Any]]  # frozen dataclass, each field made with `setting`
    privileges: ClassVar[Privileges] = Privileges()
    paper: ClassVar[str] = ""
    distill_taps: ClassVar[tuple[str, ...]] = ()  # taps needed in `distill_loss`, in addition to the method's

    def __init__(self, config: Any) -> None:
        self.config = config

    def refuse(self, flags: Flags) -> str:
        """The reason why this add-on cannot wrap a method with these flags; empty if it can."""
        return ""

    def setup(self, context: AddOnContext) -> None:
        """Build what is needed and register it with `context`; called after the method's `setup`."""
        self.context = context

    def sample(self, n: int, inner: Sample) -> Batch:
        """`n` rows for the student, made from `inner(n)`; called under `no_grad`.

        If `inner` returns the same object as before, this must do so too: the teacher's output is then reused. If an
        add-on overrides `sample`, the method's `sample` is called for each step, even with `Flags.rowwise`.
        """
        return inner(n)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs, inner: Loss) -> Tensor:
        """The student's scalar loss, made from `inner(batch, student, teacher)`.

        Give `inner` all rows in the same order and all taps: they include those that the wrapped parts need.
        """
        return inner(batch, student, teacher)

    def after_distill_step(self, batch: Batch) -> None:
        """Called after each student update, after the method's `after_distill_step`."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first round of an epoch, after the method's `on_epoch_start`."""

    def on_epoch_end(self, epoch: int) -> None:
        """Called after the last round of an epoch, after the method's `on_epoch_end`."""
