"""CMI: contrastive model inversion for data-free knowledge distillation.

G. Fang et al., IJCAI 2021, arXiv 2105.08584. In each round a generator is reinitialised and optimised together with a
batch of latents z towards sampled labels y. A contrastive loss with a bank of earlier images makes each batch different
from earlier ones:

    L(G, z) = alpha L_bn + beta L_cls + w_adv L_adv + w_cr L_cr

L_cr compares a local view (random resized crop) with a global view (crop) of the same image, in a learned projection h
of the teacher's BatchNorm inputs. The images of lowest loss are stored in a pool, on which the student is distilled,
and their features in the bank. `scratch` starts with an empty pool; published variants that start from images of
another inversion are not comparable.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.blocks.augmentation import random_flip, random_resized_crop
from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.disagreement import masked_kl
from dfkd_bench.blocks.generators import SMALL, Generator, reinitialise
from dfkd_bench.blocks.heads import ProjectionHead
from dfkd_bench.blocks.inversion import Inverter, descend, invert
from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.blocks.pool import FeatureBank
from dfkd_bench.blocks.streaming import Terms, weighted
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class CMIConfig:
    """Weights of the inversion loss first, then the contrast, the generator, the pool and the student."""

    alpha: float = setting(1.0, "weight of the BatchNorm statistics L_bn, on the global view")
    beta: float = setting(1.0, "weight of the cross-entropy L_cls against the sampled labels")
    w_adv: float = setting(0.5, "weight of the disagreement on images for which both predict the same class")
    w_cr: float = setting(0.8, "weight of the contrast L_cr")
    tau: float = setting(0.1, "temperature of the contrast")
    bank_size: int = setting(40960, "capacity of the feature bank", unit="images")
    bank_draw: int = setting(4096, "features drawn from the bank per step", unit="images")
    head_dim: int = setting(256, "size of the projection h")
    crop_scale: float = setting(0.25, "smallest fraction of the image area in a local view")
    iterations: int = setting(200, "inner steps per batch")
    synthesis_batch: int = setting(256, "images inverted at a time", unit="images")
    latent_dim: int = setting(256, "size of the latent z")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(1e-3, "learning rate of both Adams: of G and z, and of the head")
    gen_beta1: float = setting(0.5, "first-moment decay of the Adam of G and z")
    pool_size: int = setting(51200, "capacity of the image pool", unit="images")
    pool_bytes: str = setting("truncate", "rounding of pixels to bytes in the pool", choices=("truncate", "round"))
    temperature: float = setting(20.0, "softmax temperature of distillation")
    student_steps: int = setting(400, "student updates per round, i.e. per inverted batch")


class CMI(Method):
    """A generator reinitialised in each round, a contrastive loss with earlier rounds, an image pool."""

    Config = CMIConfig
    privileges = Privileges(gradients=True, bn_statistics=True, stage_maps=True)
    paper = "Fang et al.: Contrastive Model Inversion for Data-Free Knowledge Distillation, IJCAI 2021"
    presets = {"scratch": {}}
    default_preset = "scratch"
    # small images need fewer steps, and the bank is proportional to the batch
    task_settings = (
        ("*", "digits16/*|*mnist/*|cifar10-16/*", {"iterations": 50, "bank_draw": 512}),
        # tuned on digits16
        ("*", "digits16/*|*mnist/*|cifar10-16/*", {"gen_lr": 3e-3, "iterations": 25, "temperature": 4.0}),
    )
    budget_settings = {"smoke": {"iterations": 20, "student_steps": 5}}
    pinned = {"generator_width": "generator_width", "synthesis_batch": "batch_size"}
    search = {"gen_lr": (1e-3, 3e-3), "iterations": (25, 50), "temperature": (4.0, 20.0)}

    config: CMIConfig

    @property
    def flags(self) -> Flags:
        """One inverted batch per round, with the student in eval mode."""
        return Flags(synthesis_steps=1, student_steps=self.config.student_steps, rounds_per_epoch=1)

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 1e-4, cosine over 200 epochs, batch 128."""
        return StudentRecipe(weight_decay=1e-4, unit="epoch", batch_size=128, epochs=200)

    def setup(self, context: Context) -> None:
        """Build G, the head h with its Adam, the bank and the image pool."""
        super().setup(context)
        c, task = self.config, context.task
        self.G: nn.Module = context.register(
            "generator",
            Generator(task.image_shape, c.latent_dim, c.generator_width, plan=SMALL, output="sigmoid"),
        )
        self.bn_running = context.teacher.bn_statistics
        dim = sum(len(mean) for mean, _ in self.bn_running)
        self.head: nn.Module = context.register("head", ProjectionHead(dim, dim, c.head_dim))
        # with torch's default betas, unlike the Adam of G and z
        self.head_adam = context.register("head_adam", torch.optim.Adam(self.head.parameters(), c.gen_lr))
        self.bank = context.register("bank", FeatureBank(c.bank_size, dim, 2, context.device))
        self.inverter = Inverter(context, c.pool_size, c.pool_bytes)

    def L_cr(self, head: nn.Module, local: Tensor, glob: Tensor, cached: tuple[Tensor, ...]) -> Tensor:
        """Contrastive loss of local and global views (n, d): mean over current rows plus mean over `cached` rows.

        The positive of a local view is the global view of the same image; all other global views are negatives. No
        gradient flows through the global views.
        """
        n = len(local)
        h_local = head(torch.cat([local, cached[0]]))
        h_global = head(torch.cat([glob, cached[1]])).detach()
        per_row = -F.log_softmax(h_local @ h_global.T / self.config.tau, dim=1).diagonal()
        now, before = per_row[:n].mean(), per_row[n:]
        return now + before.mean() if len(before) else now

    def invert(
        self, n: int, stream: torch.Generator, G: nn.Module, head: nn.Module, head_adam: torch.optim.Adam | None
    ) -> tuple[Tensor, Tensor, Terms, Tensor]:
        """Reinitialise G and optimise it with `n` latents: best images, labels, log, their raw features (2, n, d)."""
        c, context = self.config, self.context
        reinitialise(G, 0.02, stream)
        y = self.inverter.labels(n, stream).sort().values
        z = torch.randn(n, c.latent_dim, generator=stream, device=context.device).requires_grad_()
        adam = torch.optim.Adam([*G.parameters(), z], c.gen_lr, (c.gen_beta1, 0.999))
        features, lowest = (torch.full((), fill, device=context.device) for fill in (0.0, math.inf))

        def objective(x: Tensor) -> tuple[Tensor, Terms]:
            nonlocal features, lowest
            pixels = self.inverter.render.pixels(x)
            part = random_resized_crop(pixels, (c.crop_scale, 1.0), stream)
            part = random_flip(part, stream) if context.task.flip else part
            views = self.inverter.augmented(x, stream), self.inverter.render.normalise(part)
            whole = context.teacher(views[0], taps=("bn_means",), moments=True)
            t = whole.logits
            local = context.teacher(views[1], taps=("bn_means",)).taps["bn_means"]
            cached = self.bank.draw(c.bank_draw, stream)
            parts = {
                "L_bn": (c.alpha, bn_statistics_loss(whole.moments, self.bn_running)),
                "L_cls": (c.beta, F.cross_entropy(t, y)),
                "L_cr": (c.w_cr, self.L_cr(head, local, whole.taps["bn_means"], cached)),
            }
            if c.w_adv:
                parts["D_agree"] = -c.w_adv, masked_kl(context.student(views[0]).logits, t)
            loss, terms = weighted(parts)
            now = torch.stack([local, whole.taps["bn_means"]]).detach()
            features = torch.where(loss.detach() < lowest, now, features)  # of the images that `invert` keeps
            lowest = torch.minimum(loss.detach(), lowest)
            return loss, terms

        G.train()
        update = descend(adam, head_adam) if head_adam else descend(adam)
        best, log = invert(lambda: self.inverter.render(G, z), objective, update, c.iterations)
        return best, y, log, features

    def synthesize(self) -> Mapping[str, Tensor]:
        """Invert one batch; store its images in the pool and its features in the bank."""
        n, stream = self.config.synthesis_batch, self.context.stream("synthesis")
        best, y, log, features = self.invert(n, stream, self.G, self.head, self.head_adam)
        self.bank.push(*features)
        self.inverter.keep(best, y)
        return log

    def sample(self, n: int) -> Batch:
        """Augmented images from the pool."""
        return self.inverter.sample(n, self.context.stream("sample"))

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """KL at the method's temperature."""
        return kd_loss(student.logits, teacher.logits, temperature=self.config.temperature)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """Newly inverted images, from copies of G and of the head without gradients; changes no state."""
        G, head = copy.deepcopy(self.G), copy.deepcopy(self.head).requires_grad_(False)
        size = self.config.synthesis_batch
        return self.inverter.preview(n, stream, lambda m, s: self.invert(m, s, G, head, None)[:2], size)
