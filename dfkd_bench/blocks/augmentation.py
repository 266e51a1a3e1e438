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
