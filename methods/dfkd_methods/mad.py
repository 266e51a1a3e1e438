"""MAD: momentum adversarial distillation.

K. Do et al., NeurIPS 2022, arXiv 2209.10359. A student of a streaming generator forgets earlier images. MAD also keeps
an exponential moving average G~ of the generator and distils on images of both. With many classes G is conditional: its
input is the sum of latent and class embedding e_y. With few classes its input is the latent, and y is the teacher's
arg-max:

    L_G = w_nll CE(T(x), y) + w_bn L_bn + w_bal L_bal - w_adv KL(T(x) || S(x)) + w_norm |e_y|^2
    L_S = mix KL(T(x) || S(x)) + (1 - mix) KL(T(x~) || S(x~)),    x = G(z + e_y), x~ = G~(z + e_y)

We found no official code: the two generators, the embedding and its penalty, and the momentum are from the paper, as
cited by others; the balance loss, the weights, the generator and the schedule are our choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.disagreement import kl_per_sample
from dfkd_bench.blocks.ema import EMA
from dfkd_bench.blocks.generators import LARGE, Generator
from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.blocks.priors import balance_loss, one_hot_loss
from dfkd_bench.blocks.streaming import Stream, Terms, weighted
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class MADConfig:
    """Weights first, then the slow copy, then the generator."""

    w_nll: float = setting(1.0, "weight of the cross-entropy against the label")
    w_bn: float = setting(1.0, "weight of the BatchNorm statistics", privilege="bn_statistics")
    w_bal: float = setting(2.0, "weight of the balance loss, for an unconditional generator only")
    w_adv: float = setting(1.0, "weight of the disagreement, which G maximises")
    w_norm: float = setting(0.01, "weight of the squared norm of the class embeddings")
    conditional: str = setting("auto", "auto: conditional from 100 classes on", choices=("auto", "yes", "no"))
    momentum: float = setting(0.95, "alpha: decay of the moving average per generator step")
    mix: float = setting(0.5, "weight of the generator's images in L_S; the slow copy's images have the rest")
    latent_dim: int = setting(256, "size of the latent z and of the embeddings")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(1e-3, "learning rate of the generator's Adam")
    gen_beta1: float = setting(0.5, "its first-moment decay")
    synthesis_steps: int = setting(1, "generator updates per round")
    student_steps: int = setting(5, "student updates per round")


class AddedLabel(nn.Module):
    """A conditional generator whose input is the sum of latent and class embedding: G(z + e_y)."""

    def __init__(self, generator: nn.Module, latent_dim: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, latent_dim)
        self.generator = generator
        self.output_space: str = generator.output_space  # type: ignore[assignment]

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images for latents z (n, d) and labels y (n,)."""
        image: Tensor = self.generator(z + self.embedding(y))
        return image


class MAD(Method):
    """Adversarial generator, and its moving average as a second source of images for the student."""

    Config = MADConfig
    privileges = Privileges(gradients=True, bn_statistics=True)
    paper = "Do et al.: Momentum Adversarial Distillation, NeurIPS 2022, arXiv 2209.10359"
    presets = {"official": {}}
    default_preset = "official"
    task_settings = (
        # tuned on digits16
        ("*", "digits16/*|*mnist/*|cifar10-16/*", {"gen_lr": 3e-3, "student_steps": 1}),
    )
    pinned = {"generator_width": "generator_width"}
    search = {"gen_lr": (1e-3, 3e-3), "w_bal": (2.0, 20.0), "student_steps": (1, 2)}

    config: MADConfig

    @property
    def flags(self) -> Flags:
        """One generator step, five student steps."""
        c = self.config
        return Flags(synthesis_steps=c.synthesis_steps, student_steps=c.student_steps, rounds_per_epoch=80)

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 5e-4, cosine over 200 epochs, batch 256 (our choice)."""
        return StudentRecipe(unit="epoch", batch_size=256, epochs=200)

    def setup(self, context: Context) -> None:
        """Build G and its slow copy."""
        super().setup(context)
        c, task = self.config, context.task
        G: nn.Module = Generator(task.image_shape, c.latent_dim, c.generator_width, plan=LARGE, output="sigmoid")
        self.conditional = c.conditional == "yes" or (c.conditional == "auto" and task.classes >= 100)
        if self.conditional:
            G = AddedLabel(G, c.latent_dim, task.classes)
        self.stream = Stream(
            context, G, c.latent_dim,
            lr=c.gen_lr, betas=(c.gen_beta1, 0.999), classes=task.classes if self.conditional else 0,
        )  # fmt: skip
        self.slow = context.register("slow", EMA(self.stream.G, c.momentum))
        self.forward = self.stream.through(self.L_G)
        self.bn_running = context.teacher.bn_statistics

    def L_G(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Terms]:
        """L_G on images x with labels y, or without labels."""
        c = self.config
        teacher = self.context.teacher(x, moments=bool(c.w_bn))
        t = teacher.logits
        parts = {"L_nll": (c.w_nll, one_hot_loss(t) if y is None else F.cross_entropy(t, y))}
        if c.w_bn:
            parts["L_bn"] = c.w_bn, bn_statistics_loss(teacher.moments, self.bn_running)
        parts["D"] = -c.w_adv, kl_per_sample(self.context.student(x).logits, t).mean()
        if y is None:
            parts["L_bal"] = c.w_bal, balance_loss(t)
        else:
            embedding = self.stream.G.get_submodule("embedding")(y)
            parts["L_norm"] = c.w_norm, embedding.square().sum(1).mean()
        return weighted(parts)

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of G and one update of its moving average."""
        z, y = self.stream.draw(self.context.task.batch_size, self.context.stream("synthesis"))
        terms, _ = self.stream.step(self.forward, z, y)
        self.slow.update()
        return terms

    def sample(self, n: int) -> Batch:
        """Half from G in train mode, half from the slow copy in eval mode; the weights of rows implement `mix`."""
        half, mix = max(1, n // 2), self.config.mix
        z, y = self.stream.draw(n, self.context.stream("sample"))
        self.stream.G.train()
        self.slow.module.eval()
        if y is None:
            x, x_slow = self.stream.images(z[:half], None), self.stream.render(self.slow.module, z[half:])
        else:
            x, x_slow = self.stream.images(z[:half], y[:half]), self.stream.render(self.slow.module, z[half:], y[half:])
        first, second = mix * n / half, (1.0 - mix) * n / max(1, n - half)
        weights = torch.cat([z.new_full((half,), first), z.new_full((n - half,), second)])
        return Batch(torch.cat([x, x_slow]).contiguous(memory_format=torch.channels_last), y, weights, z)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """L_S."""
        return kd_loss(student.logits, teacher.logits, weights=batch.weights)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """New images of G only."""
        return self.stream.preview(n, stream, train=True)
