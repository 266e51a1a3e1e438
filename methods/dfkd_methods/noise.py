"""Bound: distillation on random noise, a lower bound that any synthesis should exceed.

`dfad-recipe` trains the student as DFAD does (its loss, and on the recipe track its optimiser, learning rates and
length), so that only the images differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_bench.blocks.disagreement import l1_loss
from dfkd_bench.method import Batch, Flags, Method, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class NoiseConfig:
    """Settings of the noise bound."""

    kind: str = setting(
        "normal", "N(0, I) in normalised space, or uniform in image space", choices=("normal", "uniform")
    )
    loss: str = setting("kl", "of the student: KL at temperature 1, or L1 of logits", choices=("kl", "l1"))
    student_steps: int = setting(5, "student updates per round")
    student_recipe: str = setting(
        "usual", "recipe track: the field's usual one, or DFAD's on CIFAR or MNIST",
        choices=("usual", "dfad-cifar", "dfad-mnist"),
    )  # fmt: skip


class Noise(Method):
    """KL(teacher || student) at temperature 1, or the L1 distance of logits, on fresh random-noise images."""

    Config = NoiseConfig
    privileges = Privileges()
    paper = "floor of every table; published e.g. in Chen et al., ICCV 2019 (DAFL), table 1"
    presets = {
        "normal": {},
        "uniform": {"kind": "uniform"},
        "dfad-recipe": {"loss": "l1", "student_recipe": "dfad-cifar"},
    }
    default_preset = "normal"
    task_settings = (("dfad-recipe", "*mnist/*", {"student_recipe": "dfad-mnist"}),)

    @property
    def flags(self) -> Flags:
        """No synthesis at all; rows are independent."""
        return Flags(synthesis_steps=0, student_steps=self.config.student_steps, rowwise=True)

    @property
    def recipe(self) -> StudentRecipe:
        """The field's usual recipe, or that of DFAD; distillation on noise has no published recipe."""
        if self.config.student_recipe == "dfad-cifar":
            return StudentRecipe(
                schedule="multistep", unit="epoch", stepping="before", milestones=(0.2, 0.4), batch_size=256, epochs=500
            )
        if self.config.student_recipe == "dfad-mnist":
            return StudentRecipe(lr=0.01, weight_decay=1e-4, schedule="constant", batch_size=512, epochs=40)
        return StudentRecipe(weight_decay=1e-4, batch_size=256, epochs=200)

    def synthesize(self) -> Mapping[str, Tensor]:
        """Not called: noise needs no synthesis."""
        return {}

    def _draw(self, n: int, stream: torch.Generator) -> Tensor:
        task = self.context.task
        shape = (n, *task.image_shape)
        if self.config.kind == "normal":
            return torch.randn(shape, generator=stream, device=self.context.device)
        mean, std = (torch.tensor(v, device=self.context.device).view(1, -1, 1, 1) for v in (task.mean, task.std))
        return (torch.rand(shape, generator=stream, device=self.context.device) - mean) / std

    def sample(self, n: int) -> Batch:
        """New noise."""
        return Batch(self._draw(n, self.context.stream("noise")))

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """KL or L1."""
        if self.config.loss == "l1":
            return l1_loss(student.logits, teacher.logits)
        return super().distill_loss(batch, student, teacher)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """Noise from `stream`."""
        return Batch(self._draw(n, stream))
