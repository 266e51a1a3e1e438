"""Distances between two sets of images in the features of one network: Fréchet, precision, recall, density, coverage.

They depend on how many images there are: compare sets of one size only.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dfkd_bench.models.tapped import Tapped

SHARES = ("precision", "recall", "density", "coverage")
NEIGHBOURS = 5  # k of the manifolds, as in Naeem et al.
AT_A_TIME = 512  # rows of a table of distances


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
    """||m_r - m_f||^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)) of features (n, d) and (m, d); None below two of either.

    m are means, C covariances with n - 1. With centred rows A = (real - m_r) / sqrt(n - 1) and B likewise, C_r = A'A
    and the trace of the root is the sum of the singular values of AB', which holds at any rank and takes no root of a
    rounding error. Source: Dowson & Landau, 1982; as a score of generators Heusel et al., NeurIPS 2017.
    """
    if min(len(real), len(made)) < 2:
        return None
    (m_r, A), (m_f, B) = (centred(x) for x in (real, made))
    root = torch.linalg.svdvals(qr_factor(A) @ qr_factor(B).T).sum()
    return float((m_r - m_f).square().sum() + A.square().sum() + B.square().sum() - 2.0 * root)


def centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) of features (n, d), and what is left of them over sqrt(n - 1)."""
    mean = x.mean(0)
    return mean, (x - mean) / (len(x) - 1) ** 0.5


def qr_factor(x: Tensor) -> Tensor:
    """R of x = QR: as many rows as x has, d at most, with the same singular values against anything of the kind."""
    r: Tensor = torch.linalg.qr(x, mode="r").R
    return r


def neighbour_metrics(real: Tensor, made: Tensor, k: int = NEIGHBOURS) -> dict[str, float | None]:
    """Precision, recall, density and coverage of made features (m, d) against real ones (n, d); None up to k of either.

    A ball lies around every feature, as wide as its distance to the k-th nearest of its own set. precision: share of
    made features in a real ball; recall: share of real ones in a made ball; density: real balls around a made feature,
    over k, which outliers among the real ones cannot inflate; coverage: share of real balls with a made feature in
    them. Sources: Kynkäänniemi et al., NeurIPS 2019 (precision, recall); Naeem et al., ICML 2020 (density, coverage).
    """
    if min(len(real), len(made)) <= k:
        return dict.fromkeys(SHARES)
    width_r, width_f = radii(real, k), radii(made, k)
    around = torch.zeros(len(made), dtype=torch.float64, device=made.device)  # real balls around each
    recalled = covered = 0
    for rows, distance in distances(real, made):
        inside = distance < width_r[rows, None]
        around += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distance < width_f).any(1).sum())
    return {
        "precision": float((around > 0).double().mean()),
        "recall": recalled / len(real),
        "density": float(around.mean()) / k,
        "coverage": covered / len(real),
    }


def radii(x: Tensor, k: int) -> Tensor:
    """Distance (n,) of each of x (n, d) to its k-th nearest neighbour among the others."""
    found = [distance.topk(k + 1, dim=1, largest=False).values[:, k] for _, distance in distances(x, x)]
    return torch.cat(found)  # itself is the first, at zero


def distances(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of a (n, d), and their Euclidean distances to all of b (m, d): a few rows at a time."""
    for rows in torch.arange(len(a), device=a.device).split(AT_A_TIME):
        yield rows, torch.cdist(a[rows], b)
