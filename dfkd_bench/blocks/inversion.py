"""The invert-and-pool synthesiser: optimise a batch of images for some steps, keep its best iterate, store it.

`invert` is the inner loop, whatever is optimised: pixels, or a generator and its latents. `Inverter` holds the pool and
what methods do with it: the student's batches are augmented draws of everything stored so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dfkd_bench.blocks.pool import ImagePool
from dfkd_bench.blocks.rendering import Renderer
from dfkd_bench.blocks.streaming import Terms
from dfkd_bench.method import Batch, Context, Moments

INFINITE = torch.tensor(math.inf)


def invert(
    draw: Callable[[], Tensor],
    objective: Callable[[Tensor], tuple[Tensor, Terms]],
    update: Callable[[Tensor], None],
    steps: int,
    lowest: Tensor = INFINITE,
) -> tuple[Tensor, Terms]:
    """Lower `objective(draw())` for `steps` steps; returns a *copy* of the images with the lowest loss, and a log.

    draw: the images (n, c, h, w) of the moment, in the teacher's input space; objective: loss and terms; update: given
    the loss, one step of whatever is optimised; lowest: of earlier batches, where their losses count as well: images
    that are not below it leave the first ones in their place. The log holds the terms of the last step and the lowest
    loss. The comparison stays on the device.
    """
    best = torch.empty(0)
    terms: Terms = {}
    with torch.enable_grad():
        for step in range(steps):
            x = draw()
            loss, terms = objective(x)
            now, value = x.detach(), loss.detach()
            best = now.clone() if step == 0 else torch.where(value < lowest, now, best)
            lowest = torch.minimum(value, lowest)
            update(loss)
    return best, {"L_inv": lowest, **terms}


def descend(*optimisers: torch.optim.Optimizer) -> Callable[[Tensor], None]:
    """An `update` for `invert`: backward, then one step of each optimiser."""

    def update(loss: Tensor) -> None:
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()

    return update


class Inverter:
    """An image pool with the task's augmentation in front of it; `pool_bytes` says how pixels become bytes."""

    def __init__(self, context: Context, capacity: int, pool_bytes: str = "truncate") -> None:
        self.context, self.render = context, Renderer(context)
        pool = ImagePool(capacity, context.task.image_shape, context.device, pool_bytes)
        self.pool = context.register("pool", pool)

    def labels(self, n: int, stream: torch.Generator, *, balanced: bool = False) -> Tensor:
        """Target labels (n,): uniform draws, or every class equally often, in turn, and uniform draws for the rest."""
        classes, device = self.context.task.classes, self.context.device
        whole = n - n % classes if balanced else 0
        drawn = torch.randint(0, classes, (n - whole,), generator=stream, device=device)
        return torch.cat([torch.arange(whole, device=device) % classes, drawn])

    def keep(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Store normalised images as bytes."""
        self.context.count(synthesised=len(x), stored=self.pool.add(self.render.pixels(x), labels))

    def augmented(self, x: Tensor, stream: torch.Generator) -> Tensor:
        """Normalised images after the task's augmentation, differentiable."""
        view = self.render.normalise(self.render.augment(self.render.pixels(x), stream))
        return view.contiguous(memory_format=torch.channels_last)

    def sample(self, n: int, stream: torch.Generator) -> Batch:
        """`n` stored images, augmented as the task allows, normalised."""
        stored, labels = self.pool.draw(n, stream)
        pixels = self.render.augment(stored, stream).float() / 255.0
        return Batch(self.render.normalise(pixels).contiguous(memory_format=torch.channels_last), labels=labels)

    def preview(
        self,
        n: int,
        stream: torch.Generator,
        make: Callable[[int, torch.Generator], tuple[Tensor, Tensor]],
        size: int = 0,
    ) -> Batch:
        """Images inverted to be looked at, in bytes as the pool's: `make(m, stream)` -> m images and labels.

        At most `size` at a time; 0 stands for the batch size.
        """
        size = size or self.context.task.batch_size
        parts = [make(min(size, n - k), stream) for k in range(0, n, size)]
        x, y = (torch.cat(column) for column in zip(*parts, strict=True))
        pixels = self.pool.bytes_of(self.render.pixels(x)).float() / 255.0
        return Batch(self.render.normalise(pixels), labels=y)


class SmoothedMoments:
    """BatchNorm moments blended with a running average over synthesis calls.

    `blend` replaces a batch's moments by (1 - m) * batch + m * average, whose gradient is thereby scaled by 1 - m;
    `update`, once per call, moves the average to (1 - m) * batch + m * average. Before the first update nothing is
    blended. With m = 0 it does nothing. Source: Fang et al., AAAI 2022, section 3.3.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.average: list[Moments] = []

    def blend(self, moments: Sequence[Moments]) -> tuple[Moments, ...]:
        """Moments for the loss."""
        if not self.average or not self.momentum:
            return tuple(moments)
        m = self.momentum
        pairs = zip(moments, self.average, strict=True)
        return tuple(((1 - m) * a + m * c, (1 - m) * b + m * d) for (a, b), (c, d) in pairs)

    @torch.no_grad()
    def update(self, moments: Sequence[Moments]) -> None:
        """Take in the moments of a call's last step."""
        self.average = [(a.detach().clone(), b.detach().clone()) for a, b in self.blend(moments)]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Means and variances, layer by layer."""
        return {"mean": [a for a, _ in self.average], "variance": [b for _, b in self.average]}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Go on with these."""
        self.average = list(zip(state["mean"], state["variance"], strict=True))
