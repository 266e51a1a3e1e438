"""DFAD: data-free adversarial distillation.

G. Fang et al., 2019, arXiv 1912.11006. A min-max game on the mean absolute difference of logits:

    min over the student, max over G:   L_MAE(G) = E | T(G(z)) - S(G(z)) |

There is no prior on the images. A round has five student steps, then one generator step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dfkd_bench.blocks.disagreement import l1_loss
from dfkd_bench.blocks.generators import SMALL, Generator
from dfkd_bench.blocks.streaming import Priors, Stream, Weights
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class DFADConfig:
    """The generator, then the steps of a round."""

    latent_dim: int = setting(256, "size of the latent z")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(1e-3, "learning rate of the generator's Adam, with the schedule of the published student")
    synthesis_steps: int = setting(1, "generator updates per round")
    student_steps: int = setting(5, "student updates per round")
    student_recipe: str = setting("cifar", "recipe track: of the paper on CIFAR or MNIST", choices=("cifar", "mnist"))


class DFAD(Method):
    """Only an adversarial game on the L1 distance of logits, student first."""

    Config = DFADConfig
    privileges = Privileges(gradients=True)
    paper = "Fang et al.: Data-Free Adversarial Distillation, 2019, arXiv 1912.11006"
    presets = {"official": {}}
    default_preset = "official"
    task_settings = (("*", "*mnist/*", {"latent_dim": 100, "student_recipe": "mnist"}),)
    pinned = {"generator_width": "generator_width"}
    search = {"gen_lr": (3e-4, 1e-3), "synthesis_steps": (1, 2), "student_steps": (2, 5)}

    config: DFADConfig

    @property
    def flags(self) -> Flags:
        """The student stays in train mode in the generator step, as in the authors' code."""
        c = self.config
        return Flags(
            synthesis_steps=c.synthesis_steps, student_steps=c.student_steps, rounds_per_epoch=50,
            order="distill_first", student_mode="train",
        )  # fmt: skip

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 5e-4, x0.1 at 100 and 200 of 500 epochs, batch 256.

        MNIST: 0.01 / 0.9 / 1e-4, 40 epochs, batch 512.
        """
        if self.config.student_recipe == "mnist":
            return StudentRecipe(lr=0.01, weight_decay=1e-4, schedule="constant", batch_size=512, epochs=40)
        return StudentRecipe(
            schedule="multistep", unit="epoch", stepping="before", milestones=(0.2, 0.4), batch_size=256, epochs=500
        )

    def setup(self, context: Context) -> None:
        """Build G; its loss is the negative disagreement."""
        super().setup(context)
        c = self.config
        G = Generator(
            context.task.image_shape, c.latent_dim, c.generator_width, plan=SMALL, output="tanh_bn", bias=True
        )
        self.stream = Stream(context, G, c.latent_dim, lr=c.gen_lr, betas=(0.9, 0.999))
        self.forward = self.stream.through(Priors(context, Weights(adv=1.0), form="l1"))

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of G on -L_MAE."""
        now = self.context.progress
        rate = replace(self.recipe, lr=self.config.gen_lr).rate(now.round, now.rounds)
        self.stream.adam.param_groups[0]["lr"] = rate
        z, _ = self.stream.draw(self.context.task.batch_size, self.context.stream("synthesis"))
        return self.stream.step(self.forward, z)[0]

    def sample(self, n: int) -> Batch:
        """New images, G in train mode."""
        return self.stream.sample(n, self.context.stream("sample"), train=True)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """L_MAE."""
        return l1_loss(student.logits, teacher.logits)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """As `sample`."""
        return self.stream.preview(n, stream, train=True)
