"""A small method that keeps every rule. `test_rules.py` breaks it in one place at a time."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class GoodConfig:
    """Settings."""

    width: int = setting(4, "channels of the generator", unit="channels")
    lr: float = setting(0.01, "learning rate of the generator")
    kind: str = setting("normal", "distribution of the latents", choices=("normal", "uniform"))


class Good(Method):
    """A one-layer generator that looks for images of high teacher entropy."""

    Config = GoodConfig
    privileges = Privileges(gradients=True)
    paper = "none"
    presets = {"default": {}, "wide": {"width": 8}}
    default_preset = "default"
    task_settings = (("wide", "digits16/*", {"lr": 0.02}),)
    pinned = {"width": "generator_width"}

    @property
    def flags(self) -> Flags:
        """Two and two."""
        return Flags(synthesis_steps=1, student_steps=2)

    @property
    def recipe(self) -> StudentRecipe:
        """The usual."""
        return StudentRecipe()

    def setup(self, context: Context) -> None:
        """A generator with its optimiser, and a count."""
        super().setup(context)
        self.G = context.register("generator", nn.Sequential(nn.Conv2d(1, self.config.width, 3, padding=1), nn.Tanh()))
        self.adam = context.register("adam", torch.optim.Adam(self.G.parameters(), self.config.lr))
        self.seen = context.state("seen", 0)

    def make(self, n: int, stream: torch.Generator) -> Batch:
        """Images and labels from `stream`."""
        device, task = self.context.device, self.context.task
        z = torch.randn(n, *task.image_shape, generator=stream, device=device)
        y = torch.randint(0, task.classes, (n,), generator=stream, device=device)
        x = self.G(z).mean(1, keepdim=True) + z
        return Batch(x, labels=y)

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of Adam."""
        batch = self.make(16, self.context.stream("synthesis"))
        loss = F.cross_entropy(self.context.teacher(batch.images).logits, batch.labels)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.seen.value += 1
        return {"loss": loss.detach()}

    def sample(self, n: int) -> Batch:
        """Fresh images, shifted by a count that only a whole checkpoint restores."""
        batch = self.make(n, self.context.stream("sample"))
        return Batch(batch.images + 0.01 * self.seen.value, labels=batch.labels)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """Mean squared error of logits."""
        return F.mse_loss(student.logits, teacher.logits)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """As `sample`, from `stream`."""
        return self.make(n, stream)
