"""DeepInversion ("Dreaming to Distill") and its adaptive form.

H. Yin et al., CVPR 2020, arXiv 1912.08795. Pixels are optimised from noise towards sampled labels y, with the teacher's
BatchNorm statistics and a smoothness prior; the adaptive form also maximises disagreement with the student:

    L(x) = w_oh CE(T(x), y) + alpha_f R_feature(x) + alpha_tv R_TV(x) + alpha_c R_compete(x)

T and S get the pixels after a random shift (jitter). R_TV has two forms, for the pixels before or after jitter;
R_compete is -JS(T(x), S(x)), or 1 - JS with JS clipped to [0, 1]. Finished batches are stored in a pool, on which the
student is distilled. The authors did not release the distillation, so no preset is called official. `datafree` follows
the re-implementation used for most published tables. `nvlabs` follows the authors' script for the inversion, and their
description for the rest (temperature 3, 1000 batches, one per 50 steps). `adaptive` is `nvlabs` with R_compete, which
is off by default in that script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.blocks.augmentation import random_roll
from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.disagreement import js_divergence
from dfkd_bench.blocks.inversion import Inverter, descend, invert
from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.blocks.priors import total_variation
from dfkd_bench.blocks.streaming import Terms, weighted
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class DeepInversionConfig:
    """Weights of the inversion loss first, then the inner loop, the pool and the student."""

    w_oh: float = setting(1.0, "weight of the cross-entropy against the sampled labels")
    alpha_f: float = setting(10.0, "weight of the BatchNorm statistics R_feature", privilege="bn_statistics")
    alpha_tv: float = setting(1e-3, "weight of total variation R_TV")
    tv: str = setting("l1", "R_TV: four mean absolute differences, or four Euclidean norms", choices=("l1", "l2"))
    tv_of: str = setting("pixels", "R_TV of pixels before or after jitter", choices=("pixels", "jittered"))
    alpha_c: float = setting(1.0, "weight of the competition R_compete")
    competition: str = setting("js", "R_compete: -JS, or 1 - JS clipped to [0, 1]", choices=("js", "confined"))
    iterations: int = setting(1000, "inner steps per batch")
    lr: float = setting(0.1, "learning rate of the pixels' Adam")
    beta1: float = setting(0.5, "first-moment decay of the pixels' Adam")
    beta2: float = setting(0.99, "second-moment decay of the pixels' Adam")
    jitter: float = setting(0.125, "largest cyclic shift per step, as a fraction of the image side")
    flip: bool = setting(True, "mirror the batch with probability 1/2 per step, if the task allows it")
    clip: bool = setting(True, "clip pixels to the valid range after each step")
    labels: str = setting("drawn", "target labels: random, or every class in turn", choices=("drawn", "in_turn"))
    store: str = setting("last", "stored images: of the last step, or of lowest loss", choices=("last", "best"))
    pool_size: int = setting(51200, "capacity of the image pool", unit="images")
    pool_bytes: str = setting("truncate", "rounding of pixels to bytes in the pool", choices=("truncate", "round"))
    temperature: float = setting(20.0, "softmax temperature of distillation")
    student_steps: int = setting(400, "student updates per round, i.e. per inverted batch")


class DeepInversion(Method):
    """Optimises pixels with BatchNorm statistics, stores the images in a pool, distils on the pool."""

    Config = DeepInversionConfig
    privileges = Privileges(gradients=True, bn_statistics=True)
    paper = "Yin et al.: Dreaming to Distill, CVPR 2020, arXiv 1912.08795"
    presets = {
        "datafree": {},
        "nvlabs": {
            "alpha_tv": 2.5e-5, "tv": "l2", "tv_of": "jittered", "alpha_c": 0.0, "competition": "confined",
            "iterations": 2000, "lr": 0.05, "beta1": 0.9, "beta2": 0.999, "jitter": 0.0625, "flip": False,
            "clip": False, "labels": "in_turn", "pool_size": 256000, "pool_bytes": "round", "temperature": 3.0,
            "student_steps": 50,
        },
        "adaptive": {
            "alpha_tv": 2.5e-5, "tv": "l2", "tv_of": "jittered", "alpha_c": 1.0, "competition": "confined",
            "iterations": 2000, "lr": 0.05, "beta1": 0.9, "beta2": 0.999, "jitter": 0.0625, "flip": False,
            "clip": False, "labels": "in_turn", "pool_size": 256000, "pool_bytes": "round", "temperature": 3.0,
            "student_steps": 50,
        },
    }  # fmt: skip
    default_preset = "datafree"
    task_settings = (("*", "digits16/*|*mnist/*|cifar10-16/*", {"iterations": 50}),)  # small images need fewer steps
    budget_settings = {"smoke": {"iterations": 20, "student_steps": 5}}
    search = {"lr": (0.05, 0.1), "alpha_f": (1.0, 10.0), "temperature": (4.0, 20.0)}

    config: DeepInversionConfig

    @property
    def flags(self) -> Flags:
        """One inverted batch per round, with the student in eval mode."""
        return Flags(synthesis_steps=1, student_steps=self.config.student_steps, rounds_per_epoch=1)

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 1e-4, cosine over 200 epochs, batch 256."""
        return StudentRecipe(weight_decay=1e-4, unit="epoch", batch_size=256, epochs=200)

    def setup(self, context: Context) -> None:
        """Build the image pool."""
        super().setup(context)
        self.inverter = Inverter(context, self.config.pool_size, self.config.pool_bytes)
        self.bn_running = context.teacher.bn_statistics if self.config.alpha_f else ()
        self.L = context.compile(self.inversion_loss)

    def inversion_loss(self, pixels: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Terms]:
        """L and its terms for images x (`pixels` after jitter) and labels y.

        The student is used only if alpha_c is not zero.
        """
        c = self.config
        teacher = self.context.teacher(x, moments=bool(c.alpha_f))
        parts = {"L_oh": (c.w_oh, F.cross_entropy(teacher.logits, y))}
        if c.alpha_f:
            parts["R_feature"] = c.alpha_f, bn_statistics_loss(teacher.moments, self.bn_running)
        if c.alpha_tv:
            parts["R_TV"] = c.alpha_tv, total_variation(pixels if c.tv_of == "pixels" else x, norm=c.tv)
        if c.alpha_c:
            JS = js_divergence(self.context.student(x).logits, teacher.logits)
            parts["R_compete"] = c.alpha_c, -JS if c.competition == "js" else 1.0 - JS.clamp(0.0, 1.0)
        return weighted(parts)

    def jittered(self, pixels: Tensor, stream: torch.Generator) -> Tensor:
        """The whole batch after one random shift and, with probability 1/2, mirrored."""
        c, task = self.config, self.context.task
        limit = round(c.jitter * task.image_shape[2])
        x = random_roll(pixels, limit, stream) if limit else pixels
        if c.flip and task.flip:
            mirror = torch.rand((), generator=stream, device=x.device) < 0.5
            x = torch.where(mirror, x.flip(3), x)
        return x.contiguous(memory_format=torch.channels_last)

    def dream(self, n: int, stream: torch.Generator) -> tuple[Tensor, Tensor, Terms]:
        """Invert `n` images from noise: images to store, their labels, and the log."""
        c, render, task, device = self.config, self.inverter.render, self.context.task, self.context.device
        in_turn = c.labels == "in_turn"
        y = torch.arange(n, device=device) % task.classes if in_turn else self.inverter.labels(n, stream).sort().values
        pixels = torch.randn((n, *task.image_shape), generator=stream, device=device).requires_grad_()
        adam = torch.optim.Adam([pixels], c.lr, (c.beta1, c.beta2))
        descent = descend(adam)

        def update(loss: Tensor) -> None:
            descent(loss)
            if c.clip:
                with torch.no_grad():
                    pixels.copy_(render.clip(pixels))

        best, log = invert(lambda: pixels, lambda x: self.L(x, self.jittered(x, stream), y), update, c.iterations)
        return best if c.store == "best" else pixels.detach(), y, log

    def synthesize(self) -> Mapping[str, Tensor]:
        """Invert one batch and store it in the pool."""
        x, y, log = self.dream(self.context.task.batch_size, self.context.stream("synthesis"))
        self.inverter.keep(x, y)
        return log

    def sample(self, n: int) -> Batch:
        """Augmented images from the pool."""
        return self.inverter.sample(n, self.context.stream("sample"))

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """KL at the method's temperature."""
        return kd_loss(student.logits, teacher.logits, temperature=self.config.temperature)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """Newly inverted images; changes no state."""
        return self.inverter.preview(n, stream, lambda m, s: self.dream(m, s)[:2])
