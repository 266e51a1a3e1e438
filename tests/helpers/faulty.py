"""Methods that misbehave, for the faults that a sweep must survive; and a slow one, to be disturbed in the midst of."""

from __future__ import annotations

import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.method import Batch, Context, Flags, Method, Privileges, setting

HOARD: list[Tensor] = []  # what the leaking one never lets go of


@dataclass(frozen=True)
class SlowConfig:
    """Settings."""

    pause: float = setting(0.15, "sleep in each synthesis step", unit="s")
    wrong_from: int = setting(5, "round from which on a misbehaving method misbehaves")


class Slow(Method):
    """A one-layer generator that takes its time, and uses all that a checkpoint must hold."""

    Config = SlowConfig
    privileges = Privileges(gradients=True)

    @property
    def flags(self) -> Flags:
        """Short rounds, so that there is a middle to be disturbed in."""
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
        """Not this one."""
        return loss

    def sample(self, n: int) -> Batch:
        """Fresh images, shifted by a count that only a whole checkpoint restores."""
        batch = self.make(n, self.context.stream("sample"))
        return Batch(batch.images + 0.01 * self.seen.value, labels=batch.labels)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """As `sample`, from `stream`."""
        return self.make(n, stream)


class Hangs(Slow):
    """Never comes back, and never lets go of the interpreter."""

    def misbehave(self, loss: Tensor) -> Tensor:
        """For ever."""
        while True:
            pass


class NaN(Slow):
    """Its loss is not a number."""

    def misbehave(self, loss: Tensor) -> Tensor:
        """Not a number."""
        return loss * float("nan")


class Leaves(Slow):
    """Wants to end the process."""

    def misbehave(self, loss: Tensor) -> Tensor:
        """As a script would."""
        sys.exit(3)


class Leaks(Slow):
    """Takes 40 MB more with every step."""

    def misbehave(self, loss: Tensor) -> Tensor:
        """And keeps them."""
        HOARD.append(torch.ones(10_000_000))
        return loss
