"""Fast BatchNorm with fixed statistics and weights, together with the moments of its input.

On a CPU, the time of a step depends on the number of passes over the activations. With gamma, beta and the running
moments m_r, v_r fixed, BatchNorm is y = a x + b with a = gamma / sqrt(v_r + eps) and b = beta - a m_r per channel: one
pass forward and, since only x needs a gradient, one pass backward. The moments of a batch of M values per channel,

    m = sum x / M,    v = sum (x - m)^2 / M,

have the gradient dL/dx = dL/dm / M + 2 (x - m) dL/dv / M, which is added to the gradient of y in the same pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SPACE = (0, 2, 3)


def is_fixed(layer: nn.BatchNorm2d, x: Tensor) -> bool:
    """Whether `layer` currently is a fixed affine map of x (n, c, h, w) and this module computes it faster than torch.

    False on a GPU, in bf16 and under `torch.compile`, where torch's kernels are faster, and for a layer with hooks.
    """
    if layer.training or layer.running_mean is None or x.dim() != 4:
        return False
    if layer._forward_hooks or layer._forward_pre_hooks:
        return False
    learned = layer.weight is not None and layer.weight.requires_grad and torch.is_grad_enabled()
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and layer.running_mean.dtype == x.dtype
    return plain and not learned and not torch.compiler.is_compiling()


def fixed_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Output of `layer` for x (n, c, h, w); requires `is_fixed(layer, x)`."""
    a, b = coefficients(layer)
    return torch.addcmul(b, x, a)


def observed_norm(layer: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output of `layer` for x (n, c, h, w), and mean and biased variance (c,) of x; requires `is_fixed(layer, x)`."""
    a, b = coefficients(layer)
    y, mean, variance = _Observed.apply(x, a, b)
    return y, mean, variance


def observed_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (c,) over batch and space of x (n, c, h, w), in the dtype of x; differentiable."""
    mean, variance = _Moments.apply(x)
    return mean, variance


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (c,) of x, for use inside the autograd functions below."""
    mean = x.mean(SPACE)
    return mean, (x - mean[:, None, None]).square_().mean(SPACE)


def moments_backward(x: Tensor, mean: Tensor, g_mean: Tensor, g_variance: Tensor) -> Tensor:
    """g_mean / M + 2 (x - m) g_variance / M, in one pass over x."""
    values = x.numel() // x.shape[1]
    slope = (2.0 / values) * g_variance
    start = g_mean / values - mean * slope
    return torch.addcmul(start[:, None, None], x, slope[:, None, None])


@torch.no_grad()
def coefficients(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """a and b (c, 1, 1) of y = a x + b."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    a = torch.rsqrt(layer.running_var + layer.eps)
    if layer.weight is not None:
        a = a * layer.weight
    b = -a * layer.running_mean
    if layer.bias is not None:
        b = b + layer.bias
    return a[:, None, None], b[:, None, None]


class _Observed(torch.autograd.Function):
    """y = a x + b, with mean and variance of x; differentiable in x, twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = moments(x)
        ctx.save_for_backward(x, a, mean)
        return torch.addcmul(b, x, a), mean, variance

    @staticmethod
    def backward(ctx: Any, g_y: Tensor, g_mean: Tensor, g_variance: Tensor) -> tuple[Tensor, None, None]:
        x, a, mean = ctx.saved_tensors
        return torch.addcmul(moments_backward(x, mean, g_mean, g_variance), g_y, a), None, None


class _Moments(torch.autograd.Function):
    """Mean and variance of x; differentiable twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = moments(x)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, g_mean: Tensor, g_variance: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        return moments_backward(x, mean, g_mean, g_variance)
