"""How near synthetic images are to real ones, to the teacher: Fréchet distance, precision, recall, density, coverage.

All of it compares two sets of penultimate features of the same teacher, so that it needs no network of ImageNet. The
numbers depend on how many images there are: compare runs of one task and one protocol only. The test images are read
after a method's life is over, and nothing is chosen by these numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkd_bench.metrics.base import Column, Metric, TieShares, View

if TYPE_CHECKING:
    from torch import Tensor

    from dfkd_bench.models.tapped import Tapped


def realism(teacher: Tapped, real: Tensor, made: Tensor) -> dict[str, float | None]:
    """Every distance between real and made images (n, channels, height, width), by name.

    All are None where a feature is not finite, as after a run that diverged.
    """
    from dfkd_bench.metrics.distances import SHARES, features_of, frechet_distance, neighbour_metrics

    r, f = features_of(teacher, real), features_of(teacher, made)
    if not (r.isfinite().all() and f.isfinite().all()):
        return dict.fromkeys(("frechet", *SHARES))
    return {"frechet": frechet_distance(r, f), **neighbour_metrics(r, f)}


def compute(view: View) -> dict[str, float | None] | None:
    """`realism` of the images of the end of the run beside the test images."""
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
