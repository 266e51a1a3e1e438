"""Bound: distillation on random noise, the floor that any synthesis must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_bench.method import Batch, Flags, Method, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class NoiseConfig:
    """Settings of the noise bound."""

    kind: str = setting(
        "normal", "N(0, I) in normalised space, or uniform in image space", choices=("normal", "uniform")
    )
    student_steps: int = setting(5, "student updates per round")


class Noise(Method):
    """KL(teacher || student) at temperature 1 on fresh random-noise images."""

    Config = NoiseConfig
    privileges = Privileges()
    paper = "floor of every table; published e.g. in Chen et al., ICCV 2019 (DAFL), table 1"
    presets = {"normal": {}, "uniform": {"kind": "uniform"}}
    default_preset = "normal"

    @property
    def flags(self) -> Flags:
        """No synthesis at all; rows are independent."""
        return Flags(synthesis_steps=0, student_steps=self.config.student_steps, rowwise=True)

    @property
    def recipe(self) -> StudentRecipe:
        """Distillation on noise has no published recipe; this is the field's usual one."""
        return StudentRecipe(weight_decay=1e-4, batch_size=256, epochs=200)

    def synthesize(self) -> Mapping[str, Tensor]:
        """Never called: noise needs no synthesis."""
        return {}

    def _draw(self, n: int, stream: torch.Generator) -> Tensor:
        task = self.context.task
        shape = (n, *task.image_shape)
        if self.config.kind == "normal":
            return torch.randn(shape, generator=stream, device=self.context.device)
        mean, std = (torch.tensor(v, device=self.context.device).view(1, -1, 1, 1) for v in (task.mean, task.std))
        return (torch.rand(shape, generator=stream, device=self.context.device) - mean) / std

    def sample(self, n: int) -> Batch:
        """Fresh noise."""
        return Batch(self._draw(n, self.context.stream("noise")))

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """Noise from `stream`."""
        return Batch(self._draw(n, stream))
