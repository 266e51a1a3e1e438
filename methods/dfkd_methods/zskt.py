"""ZSKT: zero-shot knowledge transfer via adversarial belief matching.

P. Micaelli, A. Storkey, NeurIPS 2019, arXiv 1905.09768. G is trained to make images on which student and teacher
differ. The student is trained to match the teacher on them, in its logits and in attention maps f_l of every stage l:

    L_G = -D_KL(T(x) || S(x))                                                   (minimised over G)
    L_S =  D_KL(T(x) || S(x)) + beta sum_l | f_l^T / |f_l^T| - f_l^S / |f_l^S| |^2   (minimised over the student)

`official`: one generator step on a batch of latents, then ten student steps on the images of the updated G for the same
latents. The divergence is averaged over batch *and classes*, as in the authors' code, and the attention term over
positions. The maps are the outputs of the groups of a WRN, the third before the network's last BatchNorm and ReLU.
`datafree` follows the re-implementation used for most published tables: no attention, new latents, batch mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_bench.blocks.attention import attention_loss
from dfkd_bench.blocks.bn_stats import repeated
from dfkd_bench.blocks.disagreement import kl_per_sample
from dfkd_bench.blocks.generators import LARGE, SMALL, Generator
from dfkd_bench.blocks.streaming import Stream, Terms
from dfkd_bench.method import Batch, Context, Flags, Method, Network, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class ZSKTConfig:
    """Symbols of the losses first, then the generator."""

    beta: float = setting(250.0, "weight of attention transfer, in its mean form", privilege="stage_maps")
    maps: str = setting(
        "raw", "maps for attention: before (raw) or after (activated) a last BatchNorm and ReLU after all blocks",
        choices=("raw", "activated"),
    )  # fmt: skip
    kl_reduction: str = setting("mean", "mean of D_KL over batch and classes, or batch", choices=("mean", "batchmean"))
    reuse: bool = setting(True, "make images of the generator step's latents once and use them for the whole round")
    latent_dim: int = setting(100, "size of the latent z")
    generator: str = setting(
        "small_bn", "small_bn ends in a trainable batch-norm, large_sigmoid in pixels of [0, 1]",
        choices=("small_bn", "large_sigmoid"),
    )  # fmt: skip
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(1e-3, "learning rate of the generator's Adam")
    gen_beta1: float = setting(0.9, "first-moment decay of the generator's Adam")
    gen_cosine: bool = setting(True, "cosine schedule to zero for the generator's learning rate")
    gen_clip: float = setting(5.0, "limit of the generator's gradient norm, 0 for none")
    student_mode: str = setting(
        "train", "the student's mode in generator steps", choices=("train", "eval", "train_keep_stats")
    )
    synthesis_steps: int = setting(1, "generator updates per round")
    student_steps: int = setting(10, "student updates per round")


class ZSKT(Method):
    """Adversarial belief matching: KL game, with attention transfer for the student."""

    Config = ZSKTConfig
    privileges = Privileges(gradients=True, stage_maps=True)
    paper = "Micaelli, Storkey: Zero-shot Knowledge Transfer via Adversarial Belief Matching, NeurIPS 2019"
    presets = {
        "official": {},
        "datafree": {
            "beta": 0.0,
            "kl_reduction": "batchmean",
            "reuse": False,
            "latent_dim": 256,
            "generator": "large_sigmoid",
            "gen_beta1": 0.5,
            "gen_cosine": False,
            "gen_clip": 0.0,
            "student_mode": "eval",
            "student_steps": 5,
        },
    }
    default_preset = "official"
    task_settings = (
        # tuned on digits16
        (
            "official",
            "digits16/*|*mnist/*|cifar10-16/*",
            {"beta": 25.0, "kl_reduction": "batchmean", "student_steps": 2},
        ),
    )
    pinned = {"generator_width": "generator_width"}
    search = {"kl_reduction": ("mean", "batchmean"), "beta": (25.0, 250.0), "student_steps": (1, 2)}

    config: ZSKTConfig

    @property
    def flags(self) -> Flags:
        """Stage maps are needed only for attention."""
        c = self.config
        return Flags(
            synthesis_steps=c.synthesis_steps, student_steps=c.student_steps, rounds_per_epoch=80,
            student_mode=c.student_mode,  # type: ignore[arg-type]
            rowwise=not c.reuse, distill_taps=("stages_raw" if c.maps == "raw" else "stages",) if c.beta else (),
        )  # fmt: skip

    @property
    def recipe(self) -> StudentRecipe:
        """official: Adam 2e-3 with cosine and clip 5 over 80,000 rounds of batch 128; datafree: SGD 0.1, 200 epochs."""
        if self.config.reuse:
            return StudentRecipe(
                optimiser="adam", lr=2e-3, weight_decay=0.0, unit="round", clip=5.0, batch_size=128, epochs=1000
            )
        return StudentRecipe(weight_decay=1e-4, unit="epoch", batch_size=256, epochs=200)

    def setup(self, context: Context) -> None:
        """Build G."""
        super().setup(context)
        c = self.config
        small = c.generator == "small_bn"
        G = Generator(
            context.task.image_shape, c.latent_dim, c.generator_width,
            plan=SMALL if small else LARGE, output="bn" if small else "sigmoid", bias=small,
        )  # fmt: skip
        self.stream = Stream(context, G, c.latent_dim, lr=c.gen_lr, betas=(c.gen_beta1, 0.999), clip=c.gen_clip)
        self.forward = self.stream.through(self.L_G)
        self.z = torch.empty(0)  # latents of the round
        self.batch: Batch | None = None

    def D_KL(self, s: Tensor, t: Tensor) -> Tensor:
        """KL(T || S) at temperature 1, reduced as the setting says."""
        divergence = kl_per_sample(s, t).mean()
        return divergence / s.shape[1] if self.config.kl_reduction == "mean" else divergence

    def L_G(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Terms]:
        """-D_KL on images x."""
        divergence = self.D_KL(self.context.student(x).logits, self.context.teacher(x).logits)
        return -divergence, {"D": divergence.detach()}

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of G on new latents, which are kept for the round."""
        if self.config.gen_cosine:
            self.stream.cosine(self.config.gen_lr)
        self.z, _ = self.stream.draw(self.context.task.batch_size, self.context.stream("synthesis"))
        self.batch = None
        return self.stream.step(self.forward, self.z)[0]

    def sample(self, n: int) -> Batch:
        """Images of the updated G for the round's latents, made once; or new images from G in eval mode."""
        if not self.config.reuse:
            return self.stream.sample(n, self.context.stream("sample"), train=False)
        if self.batch is None:
            self.stream.G.train()
            # the authors' code makes these images again at each student step, which only updates G's running statistics
            with repeated(self.stream.G, self.config.student_steps):
                self.batch = Batch(self.stream.images(self.z, None), latents=self.z)
        return self.batch

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """L_S."""
        L_S = self.D_KL(student.logits, teacher.logits)
        if self.config.beta:
            f_S, f_T = self.f(student, self.context.student), self.f(teacher, self.context.teacher)
            L_S = L_S + self.config.beta * attention_loss(f_S, f_T, positions="mean")
        return L_S

    def f(self, outputs: Outputs, network: Network) -> list[Tensor]:
        """Feature maps f_l of every stage l, from input to output."""
        raw = network.raw_taps if self.config.maps == "raw" else {}
        return [outputs.taps[raw.get(name, name)] for name in network.tap_names[:-1]]

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """New images, with G in the mode used for the student."""
        return self.stream.preview(n, stream, train=self.config.reuse)
