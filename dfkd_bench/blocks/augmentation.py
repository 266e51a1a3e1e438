"""Augmentation per sample, on the device; differentiable where the images are floating point."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop(images: Tensor, padding: int, stream: torch.Generator) -> Tensor:
    """Zero-pad images (n, c, h, w) by `padding` on each side and crop each to (h, w) at its own random offset.

    Zero is black only before normalisation, so crop unnormalised images.
    """
    n, c, h, w = images.shape
    offsets = torch.randint(0, 2 * padding + 1, (2, n), generator=stream, device=images.device)
    padded = F.pad(images, (padding,) * 4)
    rows = offsets[0][:, None] + torch.arange(h, device=images.device)
    columns = offsets[1][:, None] + torch.arange(w, device=images.device)
    index = rows[:, None, :, None] * padded.shape[3] + columns[:, None, None, :]
    return padded.flatten(2).gather(2, index.flatten(2).expand(n, c, h * w)).view(n, c, h, w)


def random_flip(images: Tensor, stream: torch.Generator) -> Tensor:
    """Mirror each image (n, c, h, w) left to right with probability one half."""
    flip = torch.rand(len(images), generator=stream, device=images.device) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def random_resized_crop(
    images: Tensor, scale: tuple[float, float], stream: torch.Generator, ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Tensor:
    """A random window of each image (n, c, h, w), enlarged bilinearly to the full size; differentiable.

    Per sample: fraction of the area uniform in `scale`, width / height log-uniform in `ratio`, sides rounded to whole
    pixels, position uniform. The first of ten such draws that fits into the image is used; if none fits, the whole
    image. Source: Szegedy et al., CVPR 2015, as torchvision's RandomResizedCrop.
    """
    n, _, h, w = images.shape
    area = (scale[0] + (scale[1] - scale[0]) * torch.rand(n, 10, generator=stream, device=images.device)) * (h * w)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * torch.rand(n, 10, generator=stream, device=images.device)).exp()
    sides = torch.stack([area / aspect, area * aspect], dim=2).sqrt().round().clamp(min=1.0)  # (n, 10, 2)
    whole = torch.tensor([h, w], device=images.device)
    fits = (sides <= whole).all(2)
    first = sides[torch.arange(n, device=images.device), fits.int().argmax(1)]
    side = torch.where(fits.any(1, keepdim=True), first, whole)  # height and width, (n, 2)
    corner = (torch.rand(n, 2, generator=stream, device=images.device) * (whole - side + 1.0)).floor()
    corner, side = corner.to(images.dtype), side.to(images.dtype)
    rows, columns = (stretched(corner[:, k], side[:, k], full)[:, None] for k, full in ((0, h), (1, w)))
    return rows @ images @ columns.mT


def stretched(start: Tensor, length: Tensor, full: int) -> Tensor:
    """Matrices (n, full, full) that resize `length` values from position `start` to `full`, by linear interpolation.

    `start` and `length` are (n,), in whole pixels. Positions beyond the ends take the value at the end.
    """
    pixels = torch.arange(full, device=start.device)
    at = ((pixels + 0.5) * (length[:, None] / full) - 0.5).clamp(min=0.0).minimum(length[:, None] - 1.0)
    return (1.0 - (start[:, None, None] + at[:, :, None] - pixels).abs()).clamp(min=0.0)


def random_roll(images: Tensor, limit: int, stream: torch.Generator) -> Tensor:
    """The whole batch (n, c, h, w) shifted cyclically by one random offset of at most `limit` pixels per axis."""
    h, w = images.shape[2:]
    shift = torch.randint(-limit, limit + 1, (2,), generator=stream, device=images.device)
    rows = (torch.arange(h, device=images.device) - shift[0]) % h
    columns = (torch.arange(w, device=images.device) - shift[1]) % w
    return images[:, :, rows][:, :, :, columns]
