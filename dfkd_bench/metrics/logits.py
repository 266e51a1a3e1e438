"""Logits of a network, top-1 accuracy and top-1 agreement."""

from __future__ import annotations

import torch
from torch import Tensor

from dfkd_bench.models.tapped import Tapped


@torch.no_grad()
def logits_of(model: Tapped, images: Tensor, batch_size: int = 512) -> Tensor:
    """Logits (n, classes) fp32 of images (n, channels, height, width), model in eval mode."""
    model.eval()
    parts = images.split(batch_size)
    return torch.cat([model(p.contiguous(memory_format=torch.channels_last)).float() for p in parts])


def top1(logits: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in percent of logits (n, classes) against labels (n,)."""
    return 100.0 * float((logits.argmax(1) == labels).double().mean())


def agreement(s: Tensor, t: Tensor) -> float:
    """Percent of rows with the same top-1 class in two sets of logits (n, classes)."""
    return top1(s, t.argmax(1))
