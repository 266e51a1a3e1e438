"""The precision in which losses and statistics are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """`x` in fp32; fp64 stays fp64, so that gradients can be checked numerically."""
    return x if x.dtype == torch.float64 else x.float()
