"""PRE-DFKD: robust and resource-efficient data-free knowledge distillation by generative pseudo replay.

K. Binici et al., AAAI 2022, arXiv 2201.03019. A streaming generator G makes images for the student, and a small
variational autoencoder (the memory) learns to reproduce earlier images, so that the student does not forget them. No
images are stored.

    L_G = w_oh L_oh + w_bal L_bal + w_act L_act + w_adv (1 - JS(T(x), S(x)))     (teacher detached in JS)
    L_M = |x - x'|_1 + |T(x) - T(x')|_1 + w_kl KL(q(u|x) || N(0, I))             (x' = the autoencoder's copy of x)
    L_S = |T(x) - S(x)|_1 on fresh images and on replayed ones

Replay draws u ~ N(0, I) and takes one Adam step on u towards images that the teacher finds one-hot and balanced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.blocks.disagreement import js_divergence, l1_loss
from dfkd_bench.blocks.generators import SMALL, Generator
from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.blocks.priors import activation_loss, balance_loss, one_hot_loss, unit_moments
from dfkd_bench.blocks.streaming import Stream, Terms, weighted
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class PREDFKDConfig:
    """Weights of L_G first, then the memory, then the generator."""

    w_oh: float = setting(1.0, "weight of the one-hot loss")
    w_bal: float = setting(5.0, "weight of the balance loss, logarithm to base 10")
    w_act: float = setting(0.1, "weight of the activation loss")
    w_adv: float = setting(1.0, "weight of 1 - JS")
    w_kl: float = setting(1e-5, "weight of the divergence in the memory's loss")
    replay: float = setting(0.125, "replayed images per fresh one in a student batch")
    memory_steps: int = setting(4, "memory updates per round, one after each of the first student steps")
    memory_dim: int = setting(256, "size of the memory's latent u")
    memory_lr: float = setting(0.025, "learning rate of the memory's Adam, as a fraction of the generator's")
    replay_lr: float = setting(0.05, "size of the one Adam step on replay latents")
    latent_dim: int = setting(1000, "size of the latent z")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(0.02, "learning rate of the generator's Adam")
    synthesis_steps: int = setting(1, "generator updates per round")
    student_steps: int = setting(10, "student updates per round")


class Memory(nn.Module):
    """Variational autoencoder of images in the teacher's input space: latent u (n, dim), decoder like the generator."""

    def __init__(self, image_shape: tuple[int, int, int], dim: int, width: int) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(2 * width * (height // 4) * (width_px // 4), 2 * dim),
        )  # fmt: skip
        self.decoder = Generator(image_shape, dim, width, plan=SMALL, output="tanh_bn", bias=True)
        self.output_space = self.decoder.output_space

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(u|x), each (n, dim)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance

    def forward(self, u: Tensor) -> Tensor:
        """Images for latents u (n, dim)."""
        image: Tensor = self.decoder(u)
        return image


class PREDFKD(Method):
    """Streaming generator with priors and a JS game; a variational autoencoder replays earlier images."""

    Config = PREDFKDConfig
    privileges = Privileges(gradients=True, penultimate=True)
    paper = "Binici et al.: Robust and Resource-Efficient DFKD by Generative Pseudo Replay, AAAI 2022"
    presets = {"official": {}}
    default_preset = "official"
    task_settings = (
        # tuned on digits16
        ("*", "digits16/*|*mnist/*|cifar10-16/*", {"gen_lr": 5e-3, "w_bal": 20.0, "student_steps": 5}),
    )
    pinned = {"generator_width": "generator_width"}
    search = {"gen_lr": (0.005, 0.02), "w_bal": (5.0, 20.0), "student_steps": (2, 5)}

    config: PREDFKDConfig

    @property
    def flags(self) -> Flags:
        """One generator step, ten student steps."""
        c = self.config
        return Flags(synthesis_steps=c.synthesis_steps, student_steps=c.student_steps, rounds_per_epoch=36)

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 5e-4, cosine over 400 epochs, batch 1024 + 128."""
        return StudentRecipe(unit="epoch", batch_size=1152, epochs=400)

    def setup(self, context: Context) -> None:
        """Build G with spectral norm, and the memory with its Adam."""
        super().setup(context)
        c, shape = self.config, context.task.image_shape
        G = Generator(shape, c.latent_dim, c.generator_width, plan=SMALL, output="tanh_bn", bias=True, spectral=True)
        self.stream = Stream(context, G, c.latent_dim, lr=c.gen_lr, betas=(0.9, 0.999))
        self.forward = self.stream.through(self.L_G)
        self.M: Memory = context.register("memory", Memory(shape, c.memory_dim, c.generator_width))
        rate = c.gen_lr * c.memory_lr
        self.memory_adam = context.register("memory_adam", torch.optim.Adam(self.M.parameters(), rate))
        self.t = torch.empty(0)  # the teacher's logits of the student's last batch

    def L_G(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Terms]:
        """L_G on images x."""
        c = self.config
        teacher = self.context.teacher(x, taps=("penultimate",) if c.w_act else ())
        t = teacher.logits
        parts = {"L_oh": (c.w_oh, one_hot_loss(t)), "L_bal": (c.w_bal, balance_loss(t, base=10.0))}
        if c.w_act:
            parts["L_act"] = c.w_act, activation_loss(teacher.features)
        if c.w_adv:
            parts["L_adv"] = c.w_adv, 1.0 - js_divergence(self.context.student(x).logits, t.detach())
        return weighted(parts)

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of G."""
        z, _ = self.stream.draw(self.context.task.batch_size, self.context.stream("synthesis"))
        return self.stream.step(self.forward, z)[0]

    def split(self, n: int) -> tuple[int, int]:
        """Numbers of new and of replayed images in a batch of `n`."""
        replayed = round(n * self.config.replay / (1.0 + self.config.replay))
        return n - replayed, replayed

    def sample(self, n: int) -> Batch:
        """New images (G in train mode), followed by replayed ones."""
        fresh, replayed = self.split(n)
        images = [self.stream.sample(fresh, self.context.stream("sample"), train=True).images]
        if replayed:
            images.append(self.remember(replayed, self.context.stream("replay")))
        return Batch(torch.cat(images).contiguous(memory_format=torch.channels_last))

    def remember(self, n: int, stream: torch.Generator) -> Tensor:
        """`n` replayed images: latents u ~ N(0, I) after one Adam step on one-hot, balance and unit moments."""
        self.M.eval()
        u = torch.randn(n, self.config.memory_dim, generator=stream, device=self.context.device)
        with torch.enable_grad():
            u.requires_grad_()
            t = self.context.teacher(self.stream.render(self.M, u)).logits
            (gradient,) = torch.autograd.grad(one_hot_loss(t) + balance_loss(t) + unit_moments(u), u)
        with torch.no_grad():
            # the first step of a new Adam is the learning rate times the sign of the gradient
            u = u - self.config.replay_lr * gradient / (gradient.abs() + 1e-8)
            return self.stream.render(self.M, u)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """L_S."""
        self.t = teacher.logits
        return l1_loss(student.logits, teacher.logits)

    def after_distill_step(self, batch: Batch) -> None:
        """In the first steps of a round: one memory update on half of the new images and on the replayed ones."""
        done = (self.context.progress.student_step - 1) % self.config.student_steps
        if done >= self.config.memory_steps:
            return
        fresh, _ = self.split(len(batch.images))
        rows = torch.cat([torch.arange(fresh // 2), torch.arange(fresh, len(batch.images))]).to(self.context.device)
        x, t = batch.images[rows].contiguous(memory_format=torch.channels_last), self.t[rows]
        self.M.train()
        self.memory_adam.zero_grad(set_to_none=True)
        self.L_M(x, t).backward()
        self.memory_adam.step()

    def L_M(self, x: Tensor, t: Tensor) -> Tensor:
        """The memory's loss on images x with teacher logits t."""
        with self.context.autocast():
            mean, log_variance = self.M.encode(x)
        mean, log_variance = at_least_fp32(mean), at_least_fp32(log_variance)
        noise = torch.randn(mean.shape, generator=self.context.stream("memory"), device=mean.device)
        copy = self.stream.render(self.M, mean + noise * (0.5 * log_variance).exp())
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
        t_copy = self.context.teacher(copy).logits
        return F.l1_loss(copy, x) + F.l1_loss(t_copy, t) + self.config.w_kl * divergence

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """New images of G only."""
        return self.stream.preview(n, stream, train=True)
