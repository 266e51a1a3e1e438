"""Self-paced learning: the student begins with what is easy, and harder rows are admitted as the run goes on.

M. P. Kumar, B. Packer, D. Koller, NeurIPS 2010: the loss of row i counts with weight v_i = 1 where its difficulty d_i
is at most a threshold lambda, else 0, and lambda rises. Absolute values of d differ between methods and fall as the
student learns, so lambda is a quantile of each batch, a pacing function as in G. Hacohen, D. Weinshall, ICML 2019:

    v_i = 1[d_i <= lambda(r)],    lambda(r) = q(r)-quantile of d,    q(r) = min(1, start + (1 - start) r / full)

with r the share of the run that is done. d_i is KL(teacher || student) in nats, or the teacher's entropy. A method's
loss need not be a sum over rows, nor know of weights: row i of the student's outputs (logits and taps) is passed on
with its gradient times v_i n / sum v, which for a mean over rows is the mean over those admitted. The value of the loss
stays that of the whole batch; modules that learn with the student (companions) learn from every row. From r = full on,
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
    """Difficulty, then pace."""

    difficulty: str = setting(
        "disagreement", "KL(teacher || student), or the teacher's entropy", choices=("disagreement", "entropy")
    )
    start: float = setting(0.5, "share of each batch that is admitted at first")
    full: float = setting(0.5, "share of the run after which every row is admitted")


class Curriculum(AddOn):
    """The easiest rows of each batch first, by disagreement or by the teacher's confidence."""

    Config = CurriculumConfig
    privileges = Privileges()
    paper = "Kumar et al.: Self-Paced Learning for Latent Variable Models, NeurIPS 2010; Hacohen, Weinshall, ICML 2019"

    config: CurriculumConfig

    def refuse(self, flags: Flags) -> str:
        """Both difficulties need the teacher's answer."""
        return "" if flags.teacher_in_distillation else "it asks no teacher how hard an image is"

    def setup(self, context: AddOnContext) -> None:
        """Nothing to build."""
        super().setup(context)
        c = self.config
        if not (0.0 < c.start <= 1.0 and 0.0 <= c.full <= 1.0):
            raise ValueError("start lies above 0 and at most at 1, full between 0 and 1")

    def admitted(self, n: int) -> int:
        """How many of `n` rows are admitted at this round, one at least."""
        c, r = self.config, self.context.progress.fraction
        return n if r >= c.full else min(n, max(1, math.ceil((c.start + (1.0 - c.start) * r / c.full) * n)))

    def difficulty(self, s: Tensor, t: Tensor) -> Tensor:
        """d of each row (n,), in nats."""
        if self.config.difficulty == "entropy":
            log_p = F.log_softmax(t, dim=1)
            return -(log_p.exp() * log_p).sum(1)
        return kl_per_sample(s, t)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs, inner: Loss) -> Tensor:
        """The method's loss, with the gradient of the admitted rows alone."""
        n = len(student.logits)
        k = self.admitted(n)
        if k == n:
            return inner(batch, student, teacher)
        with torch.no_grad():
            d = self.difficulty(student.logits, teacher.logits)
            v = (d <= d.sort().values[k - 1]).to(d.dtype)
            v = v * (n / v.sum())

        def paced(x: Tensor) -> Tensor:
            still = x.detach()
            return still + v.view(-1, *[1] * (x.dim() - 1)).to(x.dtype) * (x - still)

        taps = {name: paced(tap) for name, tap in student.taps.items()}
        return inner(batch, Outputs(paced(student.logits), taps, student.moments), teacher)
