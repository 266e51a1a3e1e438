"""Distances of synthetic images to test images: Fréchet distance, precision, recall, density, coverage.

They compare penultimate features of the teacher, so no ImageNet network is needed. The numbers depend on the number of
images: compare only runs of one task and one protocol. They are computed after training, and nothing is selected by
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkd_bench.metrics.base import Column, Metric, TieShares, View

if TYPE_CHECKING:
    from torch import Tensor

    from dfkd_bench.models.tapped import Tapped


def realism(teacher: Tapped, real: Tensor, made: Tensor) -> dict[str, float | None]:
    """The distances between real and made images (n, channels, height, width), by name.

    All are None if a feature is not finite, as after a diverged run.
    """
    from dfkd_bench.metrics.distances import SHARES, features_of, frechet_distance, neighbour_metrics

    r, f = features_of(teacher, real), features_of(teacher, made)
    if not (r.isfinite().all() and f.isfinite().all()):
        return dict.fromkeys(("frechet", *SHARES))
    return {"frechet": frechet_distance(r, f), **neighbour_metrics(r, f)}


def compute(view: View) -> dict[str, float | None] | None:
    """`realism` of the synthetic images of the end of the run, against the test images."""
    return None if view.synthetic is None else realism(view.teacher, view.images, view.synthetic)


def _balls(edges: TieShares) -> float:
    return edges.balls


METRIC = Metric(
    "realism",
    compute,
    (
        Column("frechet", "Frechet distance to the test images in teacher features"),
        Column("image_precision", "synthetic images among the test images", "share", "precision"),
        Column("image_recall", "test images among the synthetic ones", "share", "recall"),
        Column("image_density", "test images around a synthetic one, over k = 5", at="density"),
        Column("image_coverage", "test images with a synthetic one near", "share", "coverage"),
    ),
    source="samples",
    tolerance=dict.fromkeys(("precision", "recall", "density", "coverage"), _balls),
    since="0.1.0",
    place=(5, 4),
)
