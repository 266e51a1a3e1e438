"""DFQ-gen: the generator of data-free network quantisation, used as a distillation baseline.

After Y. Choi, J. Choi, M. El-Khamy, J. Lee, CVPR workshops 2020, arXiv 2005.04136, in the variant that later papers
use as a baseline: DAFL's one-hot and balance priors, a BatchNorm prior, and an adversarial term. Nothing is quantised,
hence the name. The paper's own method is different (warm-up of G, instance entropy, several generators).

    L_G = w_oh L_oh + w_bn L_BN + w_bal L_bal - w_adv KL(T(x) || S(x))      (minimised over G)
    L_S = KL(T(x) || S(x))                                                  (minimised over the student)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_bench.blocks.generators import LARGE, Generator
from dfkd_bench.blocks.streaming import Priors, Stream, Weights
from dfkd_bench.method import Batch, Context, Flags, Method, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class DFQGenConfig:
    """Weights first, then the generator."""

    w_oh: float = setting(1.0, "weight of the one-hot loss")
    w_bn: float = setting(1.0, "weight of the BatchNorm statistics", privilege="bn_statistics")
    w_bal: float = setting(20.0, "weight of the balance loss, natural logarithm")
    w_adv: float = setting(1.0, "weight of the adversarial term")
    latent_dim: int = setting(256, "size of the latent z")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(1e-3, "learning rate of the generator's Adam")
    gen_beta1: float = setting(0.5, "first-moment decay of the generator's Adam")
    synthesis_steps: int = setting(1, "generator updates per round")
    student_steps: int = setting(10, "student updates per round")
    student_lr: float = setting(0.1, "recipe track: the student's first learning rate")


class DFQGen(Method):
    """Teacher priors, BatchNorm statistics and a KL game; the student's images come from G in eval mode."""

    Config = DFQGenConfig
    privileges = Privileges(gradients=True, bn_statistics=True)
    paper = "after Choi et al.: Data-Free Network Quantization with Adversarial KD, CVPR workshops 2020"
    presets = {"datafree": {}}
    default_preset = "datafree"
    task_settings = (
        ("*", "cifar100/resnet34-resnet18", {"student_lr": 0.05}),
        # tuned on digits16
        ("*", "digits16/*|*mnist/*|cifar10-16/*", {"gen_lr": 3e-3, "w_bal": 2.0, "student_steps": 1}),
    )
    pinned = {"generator_width": "generator_width"}
    search = {"gen_lr": (1e-3, 3e-3), "w_bal": (2.0, 20.0), "student_steps": (1, 2)}

    config: DFQGenConfig

    @property
    def flags(self) -> Flags:
        """One generator step, ten student steps; rows of a batch are independent."""
        c = self.config
        return Flags(
            synthesis_steps=c.synthesis_steps, student_steps=c.student_steps, rounds_per_epoch=40, rowwise=True
        )

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 1e-4, cosine over 200 epochs, batch 256."""
        return StudentRecipe(lr=self.config.student_lr, weight_decay=1e-4, unit="epoch", batch_size=256, epochs=200)

    def setup(self, context: Context) -> None:
        """Build G and L_G."""
        super().setup(context)
        c = self.config
        G = Generator(context.task.image_shape, c.latent_dim, c.generator_width, plan=LARGE, output="sigmoid")
        self.stream = Stream(context, G, c.latent_dim, lr=c.gen_lr, betas=(c.gen_beta1, 0.999))
        weights = Weights(oh=c.w_oh, bn=c.w_bn, bal=c.w_bal, adv=c.w_adv)
        self.forward = self.stream.through(Priors(context, weights))

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of G."""
        z, _ = self.stream.draw(self.context.task.batch_size, self.context.stream("synthesis"))
        return self.stream.step(self.forward, z)[0]

    def sample(self, n: int) -> Batch:
        """New images, G in eval mode."""
        return self.stream.sample(n, self.context.stream("sample"), train=False)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """As `sample`."""
        return self.stream.preview(n, stream, train=False)
