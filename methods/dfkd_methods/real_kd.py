"""Bound: distillation on the task's real training set, the reference for data-free methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, RealData, StudentRecipe, setting


@dataclass(frozen=True)
class RealKDConfig:
    """Settings of distillation on real data."""

    temperature: float = setting(4.0, "softmax temperature of the distillation loss")
    student_steps: int = setting(5, "student updates per round")


class RealKD(Method):
    """KL(teacher || student) on augmented real images (Hinton et al., 2015); no label is used."""

    Config = RealKDConfig
    privileges = Privileges(real_data=True)
    paper = "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531"
    presets = {"default": {}}
    default_preset = "default"
    data: RealData

    @property
    def flags(self) -> Flags:
        """No synthesis."""
        return Flags(synthesis_steps=0, student_steps=self.config.student_steps)

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1, cosine, batch 128, 200 epochs."""
        return StudentRecipe(weight_decay=5e-4, batch_size=128, epochs=200)

    def setup(self, context: Context) -> None:
        """Get the training set."""
        super().setup(context)
        self.data = context.grant("real_data")

    def synthesize(self) -> Mapping[str, Tensor]:
        """Not called: the images are real."""
        return {}

    def sample(self, n: int) -> Batch:
        """Real images, augmented as the task says."""
        return self.data.batch(n, self.context.stream("real"))

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """KL at the configured temperature."""
        return kd_loss(student.logits, teacher.logits, temperature=self.config.temperature)
