"""Priors on synthetic images that use only the teacher. All are minimised.

`t` are teacher logits (n, classes), `x` images (n, channels, height, width). Gradients flow to every argument.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.blocks.precision import at_least_fp32


def one_hot_loss(t: Tensor) -> Tensor:
    """Cross-entropy of the teacher's prediction with its arg-max, in nats: each image should clearly show one class.

    Source: Chen et al., ICCV 2019, L_oh.
    """
    return F.cross_entropy(t, t.argmax(1).detach())


def balance_loss(t: Tensor, *, base: float = math.e, temperature: float = 1.0) -> Tensor:
    """Negative entropy of the batch's mean prediction, with logarithms to `base`: a batch should contain all classes.

    -log(classes) for a uniform mean, 0 for a batch of one class. Weight 5 with base 10 equals weight 2.17 with base e.
    Source: Chen et al., ICCV 2019, L_ie.
    """
    mean = F.softmax(t / temperature, dim=1).mean(0)
    # x log x is 0 at 0, but its gradient is infinite there: the logarithm is clamped
    return (mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum() / math.log(base)


def activation_loss(f: Tensor) -> Tensor:
    """Negative mean absolute value of the penultimate features f (n, d): images should give large activations.

    Source: Chen et al., ICCV 2019, L_a.
    """
    return -at_least_fp32(f).abs().mean()


def total_variation(x: Tensor, *, norm: str = "l2") -> Tensor:
    """Total variation of x: differences of neighbouring pixels in four directions (right, down, both diagonals).

    `l2`: sum over directions of the Euclidean norm over the whole batch; `l1`: sum of the mean absolute differences.
    Raises `ValueError` for another norm. Source: Yin et al., CVPR 2020, R_TV.
    """
    differences = (
        x[..., :, :-1] - x[..., :, 1:],
        x[..., :-1, :] - x[..., 1:, :],
        x[..., 1:, :-1] - x[..., :-1, 1:],
        x[..., :-1, :-1] - x[..., 1:, 1:],
    )
    if norm == "l2":
        return torch.stack([torch.linalg.vector_norm(d) for d in differences]).sum()
    if norm == "l1":
        return torch.stack([d.abs().mean() for d in differences]).sum()
    raise ValueError(f"unknown norm {norm!r}: l2 or l1")


def unit_moments(z: Tensor) -> Tensor:
    """Mean over the latents z (n, d) of m^2 + (s - 1)^2, where m and s are mean and deviation of each latent."""
    deviation, mean = torch.std_mean(z, dim=1, correction=0)
    return (mean.square() + (deviation - 1.0).square()).mean()
