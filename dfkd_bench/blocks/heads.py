"""Heads on features. Build them in `setup`, not within a step."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Two-layer MLP from features (n, d) to unit vectors (n, out). Source: Chen et al., ICML 2020."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, f: Tensor) -> Tensor:
        """Unit vectors (n, out)."""
        return F.normalize(self.layers(f), dim=1)
