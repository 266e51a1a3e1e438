"""Bound: the student trained on real labels, without a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, RealData, StudentRecipe, setting


@dataclass(frozen=True)
class ScratchConfig:
    """Settings of supervised training."""

    label_smoothing: float = setting(0.0, "fraction of the target probability spread over all classes")
    student_steps: int = setting(5, "student updates per round")


class Scratch(Method):
    """Cross-entropy on augmented, labelled real images."""

    Config = ScratchConfig
    privileges = Privileges(real_data=True)
    paper = "plain supervised training"
    presets = {"default": {}}
    default_preset = "default"
    data: RealData

    @property
    def flags(self) -> Flags:
        """No synthesis and no teacher."""
        return Flags(synthesis_steps=0, student_steps=self.config.student_steps, teacher_in_distillation=False)

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
        """Real images with their labels."""
        return self.data.batch(n, self.context.stream("real"))

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """Cross-entropy against the true labels."""
        assert batch.labels is not None
        return F.cross_entropy(student.logits, batch.labels, label_smoothing=self.config.label_smoothing)
