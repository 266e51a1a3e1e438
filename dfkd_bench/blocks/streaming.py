"""Streaming synthesis: one generator, trained in alternation with the student; no images are stored.

`Stream` has the generator and its optimiser and draws latents; its loss is any function of the images. `Priors` is the
loss that several methods share with different weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dfkd_bench.blocks.bn_stats import bn_statistics_loss, kept_statistics
from dfkd_bench.blocks.disagreement import disagreement
from dfkd_bench.blocks.priors import activation_loss, balance_loss, one_hot_loss
from dfkd_bench.blocks.rendering import Renderer
from dfkd_bench.errors import RunError
from dfkd_bench.method import Batch, Context

Terms = dict[str, Tensor]
Objective = Callable[[Tensor, Tensor | None], tuple[Tensor, Terms]]
"""(images, labels or None) -> the loss to minimise, and its unweighted terms, detached, for the log."""
Through = Callable[[Tensor, Tensor | None], tuple[Tensor, Terms, Tensor]]
"""(latents, labels or None) -> loss, terms and images."""


class Stream:
    """A generator G with its Adam: draws latents, makes images, takes optimiser steps on an objective.

    `classes` > 0: class-conditional, G(z, y) with y uniform. `lr` and `betas` are Adam's; `clip` is the limit of the
    gradient norm, 0 for none.
    """

    def __init__(
        self,
        context: Context,
        generator: nn.Module,
        latent_dim: int,
        *,
        lr: float,
        betas: tuple[float, float],
        classes: int = 0,
        clip: float = 0.0,
    ) -> None:
        self.context, self.latent_dim, self.classes, self.clip = context, latent_dim, classes, clip
        self.G = context.register("generator", generator)
        self.render = Renderer(context)
        self.adam = context.register("generator_adam", torch.optim.Adam(self.G.parameters(), lr, betas))

    def draw(self, n: int, stream: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Latents z ~ N(0, I), (n, latent_dim), and for a conditional generator uniform labels (n,), else None."""
        z = torch.randn(n, self.latent_dim, generator=stream, device=self.context.device)
        if not self.classes:
            return z, None
        return z, torch.randint(0, self.classes, (n,), generator=stream, device=self.context.device)

    def images(self, z: Tensor, y: Tensor | None) -> Tensor:
        """G(z) or G(z, y) in the teacher's input space."""
        return self.render(self.G, z) if y is None else self.render(self.G, z, y)

    def through(self, objective: Objective) -> Through:
        """`objective` as a function of (z, y), including the generator; compiled under `--compile`."""

        def forward(z: Tensor, y: Tensor | None) -> tuple[Tensor, Terms, Tensor]:
            x = self.images(z, y)
            return *objective(x, y), x

        return cast(Through, self.context.compile(forward))

    def step(self, forward: Through, z: Tensor, y: Tensor | None = None) -> tuple[Terms, Tensor]:
        """One update of G on the given latents; returns loss and terms for the log, and the images."""
        self.G.train()
        loss, terms, x = forward(z, y)
        self.descend(loss)
        self.context.count(synthesised=len(z))
        return {"L_G": loss.detach(), **terms}, x.detach()

    def descend(self, loss: Tensor) -> None:
        """Backward and one step of Adam on G."""
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.G.parameters(), self.clip)
        self.adam.step()

    def cosine(self, lr: float) -> None:
        """Set Adam's learning rate to its current value on a cosine from `lr` to zero over the run."""
        rate = 0.5 * lr * (1.0 + math.cos(math.pi * self.context.progress.fraction))
        self.adam.param_groups[0]["lr"] = rate

    def sample(self, n: int, stream: torch.Generator, *, train: bool) -> Batch:
        """New images; G in train mode (batch statistics, running statistics are updated) or in eval mode."""
        z, y = self.draw(n, stream)
        self.G.train(train)
        return Batch(self.images(z, y), labels=y, latents=z)

    def preview(self, n: int, stream: torch.Generator, *, train: bool) -> Batch:
        """As `sample`, but restores running statistics and mode, so that no state changes."""
        mode = self.G.training
        with kept_statistics(self.G):
            batch = self.sample(n, stream, train=train)
        self.G.train(mode)
        return batch


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of `Priors`: L = oh L_oh + bn L_BN + bal L_bal + act L_act - adv D(s, t)."""

    oh: float = 0.0
    bn: float = 0.0
    bal: float = 0.0
    act: float = 0.0
    adv: float = 0.0


class Priors:
    """The shared objective: teacher priors and, if adv is not zero, disagreement with the student.

    Terms of weight zero are not computed, so without adv the student is not used. `log_base` is for the balance term,
    `form` is a name for `disagreement`.
    """

    def __init__(self, context: Context, weights: Weights, *, log_base: float = math.e, form: str = "kl") -> None:
        self.context, self.weights, self.log_base, self.form = context, weights, log_base, form
        self.running = context.teacher.bn_statistics if weights.bn else ()

    def __call__(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Terms]:
        """L and its terms for images x."""
        w = self.weights
        teacher = self.context.teacher(x, taps=("penultimate",) if w.act else (), moments=bool(w.bn))
        t = teacher.logits
        parts: dict[str, tuple[float, Tensor]] = {}
        if w.oh:
            parts["L_oh"] = w.oh, one_hot_loss(t)
        if w.bn:
            parts["L_bn"] = w.bn, bn_statistics_loss(teacher.moments, self.running)
        if w.bal:
            parts["L_bal"] = w.bal, balance_loss(t, base=self.log_base)
        if w.act:
            parts["L_act"] = w.act, activation_loss(teacher.features)
        if w.adv:
            parts["D"] = -w.adv, disagreement(self.context.student(x).logits, t, self.form)
        return weighted(parts)


def weighted(parts: Mapping[str, tuple[float, Tensor]]) -> tuple[Tensor, Terms]:
    """Sum of weight * value over named terms, and the values, detached. Raises `RunError` if there are no terms."""
    if not parts:
        raise RunError("all weights of the loss are zero: set at least one")
    total = torch.stack([weight * value for weight, value in parts.values()]).sum()
    return total, {name: value.detach() for name, (_, value) in parts.items()}
