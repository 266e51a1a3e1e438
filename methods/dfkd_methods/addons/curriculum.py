"""Self-paced learning: the student starts with easy rows of each batch, and harder rows are added during the run.

M. P. Kumar, B. Packer, D. Koller, NeurIPS 2010: the loss of row i has weight v_i = 1 if its difficulty d_i is at most a
threshold lambda, else 0; lambda increases. The values of d differ between methods and decrease during training, so
lambda is a quantile of each batch, with a pacing function as in G. Hacohen, D. Weinshall, ICML 2019:

    v_i = 1[d_i <= lambda(r)],    lambda(r) = q(r)-quantile of d,    q(r) = min(1, start + (1 - start) r / full)

with r the fraction of the run that is done. d_i is KL(teacher || student) in nats, or the teacher's entropy. So that it
works with any loss, the gradient of row i of the student's outputs (logits and taps) is multiplied by v_i n / sum v.
For a loss that is a mean over rows, this gives the gradient of the mean over the admitted rows. The value of the loss
is that of the whole batch; companions (modules trained with the student) learn from every row. From r = full on,
nothing is changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.addon import AddOn, AddOnContext, Loss
from dfkd_bench.blocks.disagreement import kl_per_sample
from dfkd_bench.method import Batch, Flags, Outputs, Privileges, setting


@dataclass(frozen=True)
class CurriculumConfig:
    """Difficulty, then pacing."""

    difficulty: str = setting(
        "disagreement", "KL(teacher || student), or the teacher's entropy", choices=("disagreement", "entropy")
    )
    start: float = setting(0.5, "fraction of each batch that is admitted at the start")
    full: float = setting(0.5, "fraction of the run after which all rows are admitted")


class Curriculum(AddOn):
    """The easiest rows of each batch first, by disagreement or by the teacher's entropy."""

    Config = CurriculumConfig
    privileges = Privileges()
    paper = "Kumar et al.: Self-Paced Learning for Latent Variable Models, NeurIPS 2010; Hacohen, Weinshall, ICML 2019"

    config: CurriculumConfig

    def refuse(self, flags: Flags) -> str:
        """Both difficulties need the teacher's logits."""
        return "" if flags.teacher_in_distillation else "it does not use the teacher in distillation"

    def setup(self, context: AddOnContext) -> None:
        """Check the settings."""
        super().setup(context)
        c = self.config
        if not (0.0 < c.start <= 1.0 and 0.0 <= c.full <= 1.0):
            raise ValueError("start must be in (0, 1], full in [0, 1]")

    def admitted(self, n: int) -> int:
        """Number of admitted rows of `n` in this round, at least one."""
        c, r = self.config, self.context.progress.fraction
        return n if r >= c.full else min(n, max(1, math.ceil((c.start + (1.0 - c.start) * r / c.full) * n)))

    def difficulty(self, s: Tensor, t: Tensor) -> Tensor:
        """d of each row (n,), in nats."""
        if self.config.difficulty == "entropy":
            log_p = F.log_softmax(t, dim=1)
            return -(log_p.exp() * log_p).sum(1)
        return kl_per_sample(s, t)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs, inner: Loss) -> Tensor:
        """The method's loss, with gradients only from the admitted rows."""
        n = len(student.logits)
        k = self.admitted(n)
        if k == n:
            return inner(batch, student, teacher)
        with torch.no_grad():
            d = self.difficulty(student.logits, teacher.logits)
            v = (d <= d.sort().values[k - 1]).to(d.dtype)
            v = v * (n / v.sum())

        def weighted(x: Tensor) -> Tensor:
            detached = x.detach()
            return detached + v.view(-1, *[1] * (x.dim() - 1)).to(x.dtype) * (x - detached)

        taps = {name: weighted(tap) for name, tap in student.taps.items()}
        return inner(batch, Outputs(weighted(student.logits), taps, student.moments), teacher)
