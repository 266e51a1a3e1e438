"""FastDFKD: up to 100x faster data-free knowledge distillation.

G. Fang et al., AAAI 2022, arXiv 2112.06253. A meta-generator learns an initialisation from which a few steps invert a
batch. In each round a copy of it and a batch of latents z take k steps on

    L(G, z) = w_oh CE(T(x), y) + w_bn L_bn(m) - w_adv KL(T(x) || S(x)) [T and S agree]

The copy's gradients of all k steps are summed, and the meta-generator takes one step with them at k times the learning
rate (first-order MAML). The best images are stored in a pool. L_bn(m) smooths the batch's BatchNorm moments with
momentum m. The warm-up rounds have no distillation; the adversarial term starts in the last of them. Later the
meta-generator's first layers are reinitialised once. Presets are named after k; `no-meta` trains one generator
throughout instead.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.disagreement import masked_kl
from dfkd_bench.blocks.generators import SMALL, Generator, reinitialise
from dfkd_bench.blocks.inversion import Inverter, SmoothedMoments, invert
from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.blocks.meta import MetaLearner
from dfkd_bench.blocks.streaming import Terms, weighted
from dfkd_bench.method import Batch, Context, Flags, Method, Moments, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class FastDFKDConfig:
    """Weights of the inversion loss first, then the meta-learning, the pool and the student."""

    w_oh: float = setting(0.5, "weight of the cross-entropy against the sampled labels")
    w_bn: float = setting(10.0, "weight of the BatchNorm statistics", privilege="bn_statistics")
    w_adv: float = setting(1.33, "weight of the disagreement where both predict the same class, after the warm-up")
    bn_momentum: float = setting(0.9, "m: weight of past rounds in the BatchNorm moments")
    k: int = setting(5, "inner steps per batch")
    meta: str = setting("fomaml", "meta-learning of the generator", choices=("fomaml", "reptile", "none"))
    gen_lr: float = setting(3e-3, "inner learning rate of the generator; the outer one is k times that")
    z_lr: float = setting(0.01, "inner learning rate of the latents")
    gen_beta1: float = setting(0.5, "first-moment decay of every Adam")
    latent_dim: int = setting(256, "size of the latent z")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    warmup: float = setting(0.1, "additional rounds without distillation, as a fraction of the others")
    redraw: float = setting(0.6, "round that reinitialises the first layers, as a fraction of all; 1 for none")
    pool_size: int = setting(56320, "capacity of the image pool", unit="images")
    temperature: float = setting(20.0, "softmax temperature of distillation")
    student_steps: int = setting(400, "student updates per round, i.e. per inverted batch")


class FastDFKD(Method):
    """A meta-generator from which k steps invert a batch; an image pool."""

    Config = FastDFKDConfig
    privileges = Privileges(gradients=True, bn_statistics=True)
    paper = "Fang et al.: Up to 100x Faster Data-Free Knowledge Distillation, AAAI 2022, arXiv 2112.06253"
    presets = {
        "fast5": {},
        "fast2": {"k": 2, "gen_lr": 5e-3, "z_lr": 0.015},
        "fast10": {"k": 10, "gen_lr": 2e-3, "z_lr": 0.01},
        "no-meta": {"meta": "none"},
    }
    default_preset = "fast5"
    task_settings = (
        ("*", "*/wrn*", {"w_oh": 0.4, "w_adv": 1.1}),
        ("*", "*/vgg*", {"w_adv": 1.0}),
        # tuned on digits16
        ("fast5", "digits16/*|*mnist/*|cifar10-16/*", {"gen_lr": 1e-2, "w_adv": 0.5, "student_steps": 10}),
    )
    budget_settings = {"smoke": {"student_steps": 5}}
    pinned = {"generator_width": "generator_width"}
    search = {"gen_lr": (3e-3, 1e-2), "w_adv": (0.5, 1.33), "student_steps": (5, 10)}

    config: FastDFKDConfig

    @property
    def flags(self) -> Flags:
        """One inverted batch per round; the warm-up is a fraction of the run."""
        c = self.config
        return Flags(synthesis_steps=1, student_steps=c.student_steps, rounds_per_epoch=1, warmup_fraction=c.warmup)

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.2 / 0.9 / 1e-4, cosine to 2e-4 over 200 epochs, batch 256."""
        return StudentRecipe(lr=0.2, weight_decay=1e-4, unit="epoch", floor=2e-4, batch_size=256, epochs=200)

    def setup(self, context: Context) -> None:
        """Build the generator, its meta-learner with Adam, the smoothed moments and the image pool."""
        super().setup(context)
        c = self.config
        G = Generator(context.task.image_shape, c.latent_dim, c.generator_width, plan=SMALL, output="sigmoid")
        self.G: Generator = context.register("generator", G)
        self.meta = None
        if c.meta != "none":
            adam = torch.optim.Adam(self.G.parameters(), c.gen_lr * c.k, (c.gen_beta1, 0.999))
            self.meta = MetaLearner(self.G, context.register("generator_adam", adam), c.meta)
        self.moments = context.register("moments", SmoothedMoments(c.bn_momentum))
        self.redrawn = context.state("redrawn", False)
        self.bn_running = context.teacher.bn_statistics
        self.inverter = Inverter(context, c.pool_size)

    def invert(
        self, n: int, stream: torch.Generator, G: nn.Module, meta: MetaLearner | None
    ) -> tuple[Tensor, Tensor, Terms, tuple[Moments, ...]]:
        """k steps of G and `n` latents: best images, labels, log, and the BatchNorm moments of the last step."""
        c, context = self.config, self.context
        y = self.inverter.labels(n, stream)
        z = torch.randn(n, c.latent_dim, generator=stream, device=context.device).requires_grad_()
        groups: list[dict[str, Any]] = [{"params": G.parameters()}, {"params": [z], "lr": c.z_lr}]
        adam = torch.optim.Adam(groups, c.gen_lr, (c.gen_beta1, 0.999))
        seen: tuple[Moments, ...] = ()

        def objective(x: Tensor) -> tuple[Tensor, Terms]:
            nonlocal seen
            view = self.inverter.augmented(x, stream)
            teacher = context.teacher(view, moments=bool(c.w_bn))
            seen = teacher.moments
            parts = {"L_oh": (c.w_oh, F.cross_entropy(teacher.logits, y))}
            if c.w_bn:
                parts["L_bn"] = c.w_bn, bn_statistics_loss(self.moments.blend(seen), self.bn_running)
            if c.w_adv and context.progress.round >= -1:
                parts["D_agree"] = -c.w_adv, masked_kl(context.student(view).logits, teacher.logits)
            return weighted(parts)

        def update(loss: Tensor) -> None:
            adam.zero_grad(set_to_none=True)
            loss.backward()
            if meta:
                meta.collect()
            adam.step()

        G.train()
        best, log = invert(lambda: self.inverter.render(G, z), objective, update, c.k)
        return best, y, log, seen

    def synthesize(self) -> Mapping[str, Tensor]:
        """k steps from the meta-generator, store the best batch in the pool, one meta-step."""
        c, progress, stream = self.config, self.context.progress, self.context.stream("synthesis")
        due = c.redraw < 1.0 and progress.round + 1 >= c.redraw * progress.rounds
        if self.meta and due and not self.redrawn.value:
            reinitialise(nn.ModuleList([self.G.fc, self.G.bn0]), 0.02, stream)
            with torch.no_grad():  # as published, the batch-norm scales are also drawn with mean 0
                self.G.bn0.weight.normal_(0.0, 0.02, generator=stream)
            self.redrawn.value = True
        start = self.meta.start() if self.meta else self.G
        best, y, log, seen = self.invert(self.context.task.batch_size, stream, start, self.meta)
        if self.meta:
            self.meta.finish()
        self.moments.update(seen)
        self.inverter.keep(best, y)
        return log

    def sample(self, n: int) -> Batch:
        """Augmented images from the pool."""
        return self.inverter.sample(n, self.context.stream("sample"))

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """KL at the method's temperature."""
        return kd_loss(student.logits, teacher.logits, temperature=self.config.temperature)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """Newly inverted images from copies of the generator; changes no state."""
        return self.inverter.preview(n, stream, lambda m, s: self.invert(m, s, copy.deepcopy(self.G), None)[:2])
