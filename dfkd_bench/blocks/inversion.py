"""Inversion with a pool: optimise a batch of images for some steps and store the images of lowest loss.

`invert` is the inner loop for any parameters: pixels, or a generator and its latents. `Inverter` holds the pool, from
which the student's batches are drawn and augmented.
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
    """Minimise `objective(draw())` for `steps` steps; returns a *copy* of the images with the lowest loss, and a log.

    draw: current images (n, c, h, w) in the teacher's input space; objective: images -> loss and terms; update: loss ->
    one optimiser step; lowest: lowest loss of earlier batches, if these count too: if no step is below it, the images
    of the first step are returned. The log has the terms of the last step and the lowest loss, on the device.
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
    """An image pool and the task's augmentation; `pool_bytes` is the rounding of pixels, see `ImagePool`."""

    def __init__(self, context: Context, capacity: int, pool_bytes: str = "truncate") -> None:
        self.context, self.render = context, Renderer(context)
        pool = ImagePool(capacity, context.task.image_shape, context.device, pool_bytes)
        self.pool = context.register("pool", pool)

    def labels(self, n: int, stream: torch.Generator, *, balanced: bool = False) -> Tensor:
        """Target labels (n,), drawn uniformly; `balanced`: classes in turn, equally often, only the rest drawn."""
        classes, device = self.context.task.classes, self.context.device
        whole = n - n % classes if balanced else 0
        drawn = torch.randint(0, classes, (n - whole,), generator=stream, device=device)
        return torch.cat([torch.arange(whole, device=device) % classes, drawn])

    def keep(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Store normalised images as bytes."""
        self.context.count(synthesised=len(x), stored=self.pool.add(self.render.pixels(x), labels))

    def augmented(self, x: Tensor, stream: torch.Generator) -> Tensor:
        """Normalised images after the task's augmentation; differentiable."""
        view = self.render.normalise(self.render.augment(self.render.pixels(x), stream))
        return view.contiguous(memory_format=torch.channels_last)

    def sample(self, n: int, stream: torch.Generator) -> Batch:
        """`n` stored images with the task's augmentation, normalised."""
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
        """`n` newly inverted images, rounded to bytes as in the pool but not stored; changes no state.

        `make(m, stream)` inverts m images and returns them with labels; it is called with at most `size` at a time (0
        means the batch size).
        """
        size = size or self.context.task.batch_size
        parts = [make(min(size, n - k), stream) for k in range(0, n, size)]
        x, y = (torch.cat(column) for column in zip(*parts, strict=True))
        pixels = self.pool.bytes_of(self.render.pixels(x)).float() / 255.0
        return Batch(self.render.normalise(pixels), labels=y)


class SmoothedMoments:
    """BatchNorm moments smoothed by a running average over synthesis calls.

    `blend` returns (1 - m) * batch + m * average, which also scales the gradient by 1 - m; `update`, called once per
    synthesis call, sets the average to that value. Before the first update, and with m = 0, `blend` returns the batch's
    moments. Source: Fang et al., AAAI 2022, section 3.3.
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
        """Update the average with the moments of a call's last step."""
        self.average = [(a.detach().clone(), b.detach().clone()) for a, b in self.blend(moments)]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Average means and variances per layer."""
        return {"mean": [a for a, _ in self.average], "variance": [b for _, b in self.average]}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Restore the averages."""
        self.average = list(zip(state["mean"], state["variance"], strict=True))
