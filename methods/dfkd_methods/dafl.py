"""DAFL: data-free learning of student networks.

H. Chen et al., ICCV 2019, arXiv 1904.01186. A generator G is trained with three priors that use only the teacher. With
y_T = T(G(z)) the teacher's logits and f_T its penultimate features:

    L_Total = w_oh L_oh + alpha L_a + beta L_ie        (minimised over G)
    L_KD    = KL(y_T || y_S) at temperature 1           (minimised over the student)

In the authors' code both networks share one backward pass, but images and teacher logits are detached inside L_KD: a
generator step, then a student step on the same batch, is an equal update. `official` follows that code, including the
epsilon of 0.8 in two of the generator's batch-norms. `datafree` follows the re-implementation used for most published
tables (five student steps on new images per generator step).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_bench.blocks.generators import LARGE, SMALL, Generator
from dfkd_bench.blocks.streaming import Priors, Stream, Weights
from dfkd_bench.method import Batch, Context, Flags, Method, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class DAFLConfig:
    """Weights of L_Total first, then the generator and its schedule."""

    w_oh: float = setting(0.05, "weight of the one-hot loss L_oh")
    alpha: float = setting(0.01, "weight of the activation loss L_a")
    beta: float = setting(5.0, "weight of the information entropy loss L_ie")
    log_base: str = setting("10", "base of the logarithm in L_ie", choices=("10", "e"))
    latent_dim: int = setting(1000, "size of the latent z")
    generator: str = setting(
        "small_tanh",
        "small_tanh ends in tanh and batch-norm, large_sigmoid in pixels of [0, 1]",
        choices=("small_tanh", "large_sigmoid"),
    )
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(0.02, "learning rate of the generator's Adam")
    gen_beta1: float = setting(0.9, "first-moment decay of the generator's Adam")
    student_batch: str = setting(
        "same", "same: the generator step's batch; fresh: new latents, G in eval mode", choices=("same", "fresh")
    )
    synthesis_steps: int = setting(1, "generator updates per round")
    student_steps: int = setting(1, "student updates per round")
    student_recipe: str = setting(
        "cifar", "recipe track: the paper's on CIFAR or MNIST, or datafree's", choices=("cifar", "mnist", "datafree")
    )


class DAFL(Method):
    """Generator trained with one-hot, activation and entropy priors; the student is distilled on its images."""

    Config = DAFLConfig
    privileges = Privileges(gradients=True, penultimate=True)
    paper = "Chen et al.: Data-Free Learning of Student Networks, ICCV 2019, arXiv 1904.01186"
    presets = {
        "official": {},
        "datafree": {
            "w_oh": 1.0,
            "alpha": 0.001,
            "beta": 20.0,
            "log_base": "e",
            "latent_dim": 512,
            "generator": "large_sigmoid",
            "gen_lr": 1e-3,
            "gen_beta1": 0.5,
            "student_batch": "fresh",
            "student_steps": 5,
            "student_recipe": "datafree",
        },
    }
    default_preset = "official"
    task_settings = (
        ("official", "cifar100/*", {"w_oh": 0.5, "alpha": 0.1, "beta": 20.0}),
        (
            "official",
            "*mnist/*",
            {"w_oh": 1.0, "alpha": 0.1, "latent_dim": 100, "gen_lr": 0.2, "student_recipe": "mnist"},
        ),
        ("official", "digits16/*", {"w_oh": 1.0, "alpha": 0.1}),  # the weights of MNIST
        # tuned on digits16; MNIST keeps the settings of its script
        ("official", "digits16/*|cifar10-16/*", {"beta": 20.0, "gen_lr": 5e-3}),
    )
    pinned = {"generator_width": "generator_width"}
    search = {"gen_lr": (0.005, 0.02), "beta": (5.0, 20.0), "student_steps": (1, 2)}

    config: DAFLConfig

    @property
    def flags(self) -> Flags:
        """Student batches of new images are made by G in eval mode, so their rows are independent."""
        c = self.config
        return Flags(
            synthesis_steps=c.synthesis_steps, student_steps=c.student_steps,
            rounds_per_epoch=120 if c.student_batch == "same" else 80, rowwise=c.student_batch == "fresh",
        )  # fmt: skip

    @property
    def recipe(self) -> StudentRecipe:
        """official: SGD 0.1, x0.1 after 800 and 1600 of 2000 epochs, batch 1024.

        On MNIST: Adam 2e-3, 200 epochs, batch 512. datafree: SGD 0.1, cosine over 200 epochs, batch 256.
        """
        if self.config.student_recipe == "datafree":
            return StudentRecipe(weight_decay=1e-4, unit="epoch", batch_size=256, epochs=200)
        if self.config.student_recipe == "mnist":
            return StudentRecipe(
                optimiser="adam", lr=2e-3, weight_decay=0.0, schedule="constant", batch_size=512, epochs=200
            )
        return StudentRecipe(
            weight_decay=5e-4, schedule="multistep", unit="epoch", milestones=(0.4, 0.8), batch_size=1024, epochs=2000
        )

    def setup(self, context: Context) -> None:
        """Build G and L_Total."""
        super().setup(context)
        c, shape = self.config, context.task.image_shape
        small = c.generator == "small_tanh"
        G = Generator(
            shape, c.latent_dim, c.generator_width,
            plan=SMALL if small else LARGE, output="tanh_bn" if small else "sigmoid", bias=small,
            eps=0.8 if small else 1e-5,
        )  # fmt: skip
        self.stream = Stream(context, G, c.latent_dim, lr=c.gen_lr, betas=(c.gen_beta1, 0.999))
        weights = Weights(oh=c.w_oh, act=c.alpha, bal=c.beta)
        self.forward = self.stream.through(Priors(context, weights, log_base=10.0 if c.log_base == "10" else math.e))
        self.batch = Batch(torch.empty(0))  # of the last generator step; used only within its round

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of G on L_Total."""
        z, _ = self.stream.draw(self.context.task.batch_size, self.context.stream("synthesis"))
        terms, x = self.stream.step(self.forward, z)
        self.batch = Batch(x)
        return terms

    def sample(self, n: int) -> Batch:
        """The batch of the last generator step (the same object for the whole round), or new images."""
        if self.config.student_batch == "fresh":
            return self.stream.sample(n, self.context.stream("sample"), train=False)
        return self.batch

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """New images, with G in the mode used for the student."""
        return self.stream.preview(n, stream, train=self.config.student_batch == "same")
