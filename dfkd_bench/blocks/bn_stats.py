"""BatchNorm statistics: as a prior on synthetic images, and saving or scaling the update of running statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from dfkd_bench.errors import RunError
from dfkd_bench.method import Moments


def bn_statistics_loss(
    batch: Sequence[Moments],
    running: Sequence[Moments],
    *,
    norm: Literal["l2", "mse"] = "l2",
    reduce: Literal["sum", "mean"] = "sum",
) -> Tensor:
    """Distance between a synthetic batch's moments and the running ones, over all BatchNorm layers.

    norm `l2`: ||v - v_B||_2 + ||m - m_B||_2 per layer, not squared, as in most published methods; `mse`: mean over
    channels of the squared differences. Layers are summed or averaged. The gradient of the norm at a difference of zero
    is zero. Raises `RunError` for a teacher without BatchNorm and for different numbers of layers.
    Source: Yin et al., CVPR 2020; norms without square as in Shao et al., Pattern Recognition 143, 2023.
    """
    if not running:
        raise RunError("the teacher has no BatchNorm layers, which this loss needs: set its weight to 0")
    if len(batch) != len(running):
        raise RunError(f"{len(batch)} layers of batch moments against {len(running)} stored ones")
    terms = []
    for (mean, variance), (stored_mean, stored_variance) in zip(batch, running, strict=True):
        if norm == "l2":
            # linalg.vector_norm has subgradient 0 at 0, where a square root of a sum would give NaN
            terms.append(torch.linalg.vector_norm(variance - stored_variance))
            terms.append(torch.linalg.vector_norm(mean - stored_mean))
        else:
            terms.append((variance - stored_variance).square().mean())
            terms.append((mean - stored_mean).square().mean())
    total = torch.stack(terms).sum()
    return total / len(running) if reduce == "mean" else total


def bn_buffers(module: nn.Module) -> list[Tensor]:
    """Buffers that a forward in train mode changes: running statistics, counters, vectors of spectral norms."""
    return [
        buffer
        for m in module.modules()
        for name, buffer in m.named_buffers(recurse=False)
        if name in ("running_mean", "running_var", "num_batches_tracked", "_u", "_v")
    ]


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Restore the running statistics of `module` at the end, whatever ran in train mode within."""
    buffers = bn_buffers(module)
    saved = [b.clone() for b in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(buffers, saved, strict=True):
                buffer.copy_(old)


@contextmanager
def repeated(module: nn.Module, times: int) -> Iterator[None]:
    """Make one forward in train mode update running statistics as `times` forwards of the same batch would.

    The momentum m becomes 1 - (1 - m)^times. Layers with `momentum` None (cumulative average) are not changed.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    shares = [(layer, layer.momentum) for layer in layers if layer.momentum is not None]
    try:
        for layer, share in shares:
            layer.momentum = 1.0 - (1.0 - share) ** times
        yield
    finally:
        for layer, share in shares:
            layer.momentum = share
