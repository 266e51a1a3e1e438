"""Priors: what a synthetic image, or a batch of them, should look like to the teacher alone. All minimised.

`t` are teacher logits (n, classes), `x` images (n, channels, height, width). Gradients flow to every argument.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.blocks.precision import at_least_fp32


def one_hot_loss(t: Tensor) -> Tensor:
    """Cross-entropy of the teacher's prediction against its own arg-max, in nats: each image should be of one class.

    Source: Chen et al., ICCV 2019, L_oh.
    """
    return F.cross_entropy(t, t.argmax(1).detach())


def balance_loss(t: Tensor, *, base: float = math.e, temperature: float = 1.0) -> Tensor:
    """Negative entropy of the mean prediction, in logarithms to `base`: a batch should show all classes.

    -ln(classes) for a uniform mean, 0 for a batch of one class. A weight of 5 with base 10 is one of 2.17 with base e.
    Source: Chen et al., ICCV 2019, L_ie.
    """
    mean = F.softmax(t / temperature, dim=1).mean(0)
    # x log x is 0 at 0, but its gradient there is not: keep the logarithm away from it
    return (mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum() / math.log(base)


def activation_loss(f: Tensor) -> Tensor:
    """Minus the mean absolute penultimate feature of f (n, d): images should excite the teacher.

    Source: Chen et al., ICCV 2019, L_a.
    """
    return -at_least_fp32(f).abs().mean()


def total_variation(x: Tensor, *, norm: str = "l2") -> Tensor:
    """Roughness of x over four directions: right, down, and both diagonals.

    `l2`: sum of the four Euclidean norms of all differences of the batch; `l1`: sum of their four mean absolute values.
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
    """How far each latent of z (n, d) is from zero mean and unit variance: mean of m^2 + (s - 1)^2 over the batch."""
    deviation, mean = torch.std_mean(z, dim=1, correction=0)
    return (mean.square() + (deviation - 1.0).square()).mean()
