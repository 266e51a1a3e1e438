"""Distances between two sets of images in the features of one network: Fréchet, precision, recall, density, coverage.

They depend on the number of images: compare only sets of the same sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dfkd_bench.models.tapped import Tapped

SHARES = ("precision", "recall", "density", "coverage")
NEIGHBOURS = 5  # k nearest neighbours, as in Naeem et al.
AT_A_TIME = 512  # rows of the distance matrix computed at once


@torch.no_grad()
def features_of(model: Tapped, images: Tensor, batch_size: int = 512) -> Tensor:
    """Penultimate features (n, d), fp64, of images (n, channels, height, width), model in eval mode."""
    model.eval()
    parts = images.split(batch_size)
    like = torch.channels_last
    return torch.cat(
        [model.observe(p.contiguous(memory_format=like), ("penultimate",)).features for p in parts]
    ).double()


def frechet_distance(real: Tensor, made: Tensor) -> float | None:
    """||m_r - m_f||^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)) of features (n, d) and (m, d); None if n or m is below 2.

    m_r, m_f are means, C_r, C_f covariances with n - 1. With centred rows A = (real - m_r) / sqrt(n - 1) and B
    likewise, C_r = A'A, and the trace of the matrix root is the sum of the singular values of AB'. That holds at any
    rank and takes no square root of a rounding error. Source: Dowson & Landau, 1982; for generators: Heusel et al.,
    NeurIPS 2017.
    """
    if min(len(real), len(made)) < 2:
        return None
    (m_r, A), (m_f, B) = (centred(x) for x in (real, made))
    root = torch.linalg.svdvals(qr_factor(A) @ qr_factor(B).T).sum()
    return float((m_r - m_f).square().sum() + A.square().sum() + B.square().sum() - 2.0 * root)


def centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) of features (n, d), and the features minus the mean, divided by sqrt(n - 1)."""
    mean = x.mean(0)
    return mean, (x - mean) / (len(x) - 1) ** 0.5


def qr_factor(x: Tensor) -> Tensor:
    """R of x = QR, with min(n, d) rows: smaller than x, with the same singular values in products A B'."""
    r: Tensor = torch.linalg.qr(x, mode="r").R
    return r


def neighbour_metrics(real: Tensor, made: Tensor, k: int = NEIGHBOURS) -> dict[str, float | None]:
    """Precision, recall, density and coverage of made features (m, d) against real ones (n, d).

    The ball of a feature has the distance to the k-th nearest feature of the same set as radius. precision: share of
    made features inside a real ball; recall: share of real features inside a made ball; density: mean number of real
    balls around a made feature, divided by k (less sensitive to outliers than precision); coverage: share of real balls
    that contain a made feature. All None if n or m is at most k. Sources: Kynkäänniemi et al., NeurIPS 2019 (precision,
    recall); Naeem et al., ICML 2020 (density, coverage).
    """
    if min(len(real), len(made)) <= k:
        return dict.fromkeys(SHARES)
    radius_r, radius_f = radii(real, k), radii(made, k)
    balls = torch.zeros(len(made), dtype=torch.float64, device=made.device)  # number of real balls around each
    recalled = covered = 0
    for rows, distance in distances(real, made):
        inside = distance < radius_r[rows, None]
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distance < radius_f).any(1).sum())
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": recalled / len(real),
        "density": float(balls.mean()) / k,
        "coverage": covered / len(real),
    }


def radii(x: Tensor, k: int) -> Tensor:
    """Distance (n,) of each row of x (n, d) to its k-th nearest other row."""
    parts = [distance.topk(k + 1, dim=1, largest=False).values[:, k] for _, distance in distances(x, x)]
    return torch.cat(parts)  # k + 1: the nearest one is the row itself


def distances(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Row indices of a (n, d), with the Euclidean distances of these rows to all rows of b (m, d), in chunks."""
    for rows in torch.arange(len(a), device=a.device).split(AT_A_TIME):
        yield rows, torch.cdist(a[rows], b)
