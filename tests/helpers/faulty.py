"""Methods with faults that a plan must survive, and a slow correct one, whose runs are disturbed from outside."""

from __future__ import annotations

import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.method import Batch, Context, Flags, Method, Privileges, setting

HOARD: list[Tensor] = []  # the memory that `Leaks` never frees


@dataclass(frozen=True)
class SlowConfig:
    """Settings."""

    pause: float = setting(0.15, "sleep in each synthesis step", unit="s")
    wrong_from: int = setting(5, "round from which on a misbehaving method misbehaves")


class Slow(Method):
    """A one-layer generator with a pause in each step, which uses everything that a checkpoint must save."""

    Config = SlowConfig
    privileges = Privileges(gradients=True)

    @property
    def flags(self) -> Flags:
        """Short rounds, so that a run has many."""
        return Flags(synthesis_steps=1, student_steps=1)

    def setup(self, context: Context) -> None:
        """Generator, optimiser, and a count."""
        super().setup(context)
        self.G = context.register("generator", nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh()))
        self.adam = context.register("adam", torch.optim.Adam(self.G.parameters(), 0.01))
        self.seen = context.state("seen", 0)

    def make(self, n: int, stream: torch.Generator) -> Batch:
        """Images and labels from `stream`."""
        task = self.context.task
        z = torch.randn(n, *task.image_shape, generator=stream)
        y = torch.randint(0, task.classes, (n,), generator=stream)
        return Batch(self.G(z).mean(1, keepdim=True) + z, labels=y)

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of Adam, after a pause."""
        select.select([], [], [], self.config.pause)  # time.sleep fails under a faked clock
        batch = self.make(16, self.context.stream("synthesis"))
        loss = F.cross_entropy(self.context.teacher(batch.images).logits, batch.labels)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.seen.value += 1
        if self.context.progress.round >= self.config.wrong_from:
            loss = self.misbehave(loss)
        return {"loss": loss.detach()}

    def misbehave(self, loss: Tensor) -> Tensor:
        """Overridden by the faulty methods."""
        return loss

    def sample(self, n: int) -> Batch:
        """New images, shifted by a count that only a complete checkpoint restores."""
        batch = self.make(n, self.context.stream("sample"))
        return Batch(batch.images + 0.01 * self.seen.value, labels=batch.labels)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """As `sample`, from `stream`."""
        return self.make(n, stream)


class Hangs(Slow):
    """Loops for ever in Python code."""

    def misbehave(self, loss: Tensor) -> Tensor:
        """Does not return."""
        while True:
            pass


class NaN(Slow):
    """Returns a NaN loss."""

    def misbehave(self, loss: Tensor) -> Tensor:
        """NaN."""
        return loss * float("nan")


class Leaves(Slow):
    """Ends the process."""

    def misbehave(self, loss: Tensor) -> Tensor:
        """Calls sys.exit."""
        sys.exit(3)


class Leaks(Slow):
    """Allocates 40 MB in every step and never frees them."""

    def misbehave(self, loss: Tensor) -> Tensor:
        """Allocates."""
        HOARD.append(torch.ones(10_000_000))
        return loss
