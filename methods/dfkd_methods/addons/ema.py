"""Mean teacher: a consistency loss between the student and an exponential moving average (EMA) of the student.

A. Tarvainen, H. Valpola, NeurIPS 2017, arXiv 1703.01780. With theta' the EMA of the student's weights (and BatchNorm
statistics), updated after each student step t, and p, p' the class probabilities of both on the student's batch:

    theta'_t = alpha_t theta'_{t-1} + (1 - alpha_t) theta_t,    alpha_t = min(alpha, 1 - 1 / (t + 1))
    L = L_method + w(r) mean |p - p'|^2,    w(r) = weight exp(-5 (1 - min(1, r / ramp))^2)

r is the fraction of the run that is done; the mean is over rows and classes, as in the authors' code. Both get the same
images, the student in train mode, the copy in eval mode. The paper's input noise and its evaluation of the copy are
left out: the benchmark evaluates the last *student*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.addon import AddOn, AddOnContext, Loss
from dfkd_bench.method import Batch, Outputs, Privileges, setting


@dataclass(frozen=True)
class EMAConfig:
    """Symbols of the formulas above."""

    decay: float = setting(0.99, "alpha: decay of the moving average per student step, lower in the first steps")
    weight: float = setting(10.0, "weight of the consistency term after the ramp")
    ramp: float = setting(0.3, "fraction of the run in which the weight increases")


class MeanTeacher(AddOn):
    """Consistency with an exponential moving average of the student."""

    Config = EMAConfig
    privileges = Privileges()
    paper = "Tarvainen, Valpola: Mean teachers are better role models, NeurIPS 2017, arXiv 1703.01780"

    config: EMAConfig

    def setup(self, context: AddOnContext) -> None:
        """The slow copy."""
        super().setup(context)
        c = self.config
        if not (0.0 <= c.decay <= 1.0 and c.weight >= 0.0 and 0.0 <= c.ramp <= 1.0):
            raise ValueError("decay and ramp must be in [0, 1], and weight must not be negative")
        self.slow = context.slow_student("slow")

    def weight(self) -> float:
        """w(r) at this round."""
        c, r = self.config, self.context.progress.fraction
        return c.weight * (math.exp(-5.0 * (1.0 - r / c.ramp) ** 2) if r < c.ramp else 1.0)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs, inner: Loss) -> Tensor:
        """L."""
        with torch.no_grad():
            p_slow = F.softmax(self.slow.network(batch.images).logits, dim=1)
        consistency = F.mse_loss(F.softmax(student.logits, dim=1), p_slow)
        return inner(batch, student, teacher) + self.weight() * consistency

    def after_distill_step(self, batch: Batch) -> None:
        """Update theta'."""
        t = self.context.progress.student_step  # already counted: 1 after the first step
        self.slow.update(min(self.config.decay, 1.0 - 1.0 / (t + 1)))
