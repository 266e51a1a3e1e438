"""From a generator's output to the teacher's input: the only module that normalises synthetic images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dfkd_bench.blocks.augmentation import random_crop, random_flip
from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.errors import RunError
from dfkd_bench.method import Context


class Renderer:
    """Makes images in the teacher's normalised input space from the output of any generator.

    A generator's attribute `output_space` is `image01` (pixels in [0, 1], which are normalised here) or `normalised`
    (already in the teacher's space).
    """

    def __init__(self, context: Context) -> None:
        self.context, task = context, context.task
        self.mean, self.std = (torch.tensor(v, device=context.device).view(1, -1, 1, 1) for v in (task.mean, task.std))
        self.low, self.high = self.normalise(torch.zeros_like(self.mean)), self.normalise(torch.ones_like(self.mean))

    def __call__(self, generator: nn.Module, *inputs: Any) -> Tensor:
        """G(*inputs), normalised, fp32, channels_last. Raises `RunError` for another `output_space`."""
        space = getattr(generator, "output_space", None)
        if space not in ("image01", "normalised"):
            raise RunError(f"{type(generator).__name__}.output_space is {space!r}: set it to image01 or normalised")
        with self.context.autocast():
            x: Tensor = at_least_fp32(generator(*inputs))
        return (self.normalise(x) if space == "image01" else x).contiguous(memory_format=torch.channels_last)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] to the teacher's input space."""
        return (pixels - self.mean) / self.std

    def pixels(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return x * self.std + self.mean

    def clip(self, x: Tensor) -> Tensor:
        """Normalised images, clipped to the range of pixels in [0, 1]."""
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def augment(self, pixels: Tensor, stream: torch.Generator) -> Tensor:
        """The task's augmentation, per sample: random crop (padded with black) and, if the task allows it, flip.

        For pixels in [0, 1] (differentiable) or uint8.
        """
        task = self.context.task
        if task.crop_padding:
            pixels = random_crop(pixels, task.crop_padding, stream)
        return random_flip(pixels, stream) if task.flip else pixels
