"""Augmentation per sample, on the device, by one gather; differentiable where the images are floating point."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop(images: Tensor, padding: int, stream: torch.Generator) -> Tensor:
    """Zero-pad images (n, c, h, w) by `padding` on each side and crop each back at an offset of its own.

    Zero is black for uint8 images: pad before normalising.
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


def random_resized_crop(images: Tensor, scale: tuple[float, float], stream: torch.Generator) -> Tensor:
    """A square window of each image (n, c, h, w), of a share in `scale` of its area, enlarged to the full size.

    Bilinear, differentiable; window sizes and places are drawn per sample.
    """
    n, c, h, w = images.shape
    draws = torch.rand(3, n, generator=stream, device=images.device)
    side = (scale[0] + (scale[1] - scale[0]) * draws[0]).sqrt()
    theta = torch.zeros(n, 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    # in coordinates of [-1, 1] a window of half-width `side` may lie anywhere within +-(1 - side)
    theta[:, 0, 2], theta[:, 1, 2] = ((2.0 * d - 1.0) * (1.0 - side) for d in draws[1:])
    grid = F.affine_grid(theta, [n, c, h, w], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def random_roll(images: Tensor, limit: int, stream: torch.Generator) -> Tensor:
    """The whole batch (n, c, h, w) shifted cyclically by one draw of up to `limit` pixels each way, differentiable."""
    h, w = images.shape[2:]
    shift = torch.randint(-limit, limit + 1, (2,), generator=stream, device=images.device)
    rows = (torch.arange(h, device=images.device) - shift[0]) % h
    columns = (torch.arange(w, device=images.device) - shift[1]) % w
    return images[:, :, rows][:, :, :, columns]
