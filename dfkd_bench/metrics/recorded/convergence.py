"""Speed of convergence: images (and seconds) to reach a share of the teacher's accuracy, and area under the curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfkd_bench.metrics.base import Column, Curves, Metric

SHARES = (50, 80, 90, 95)  # percent of the teacher's accuracy


def first_reaching(accuracies: Sequence[float], at: Sequence[float], teacher_top1: float) -> dict[str, float | None]:
    """Per share of the teacher's accuracy, the `at` (images or seconds) of the first snapshot that reaches it, or None.

    `accuracies` and `at` have one value per snapshot.
    """
    reached: dict[str, float | None] = {}
    for share in SHARES:
        goal = teacher_top1 * share / 100.0
        reached[str(share)] = next((x for x, a in zip(at, accuracies, strict=True) if a >= goal), None)
    return reached


def area(accuracies: Sequence[float], images: Sequence[float]) -> float:
    """Mean accuracy in percent over student images, by the trapezoid rule; constant before the first snapshot."""
    total = accuracies[0] * images[0]
    for k in range(1, len(images)):
        total += (images[k] - images[k - 1]) * (accuracies[k] + accuracies[k - 1]) / 2.0
    return total / images[-1]


def compute(curves: Curves) -> dict[str, Any]:
    """`first_reaching` in student images, and `area`; the runner adds the seconds."""
    return {
        "student_images_to": first_reaching(curves.accuracies, curves.student_images, curves.teacher_top1),
        "area": area(curves.accuracies, curves.student_images),
    }


METRIC = Metric(
    "convergence",
    compute,
    (
        *(
            Column(
                f"images_to_{share}",
                f"student images until {share} % of the teacher's top-1; empty if never",
                "images",
                f"student_images_to {share}",
            )
            for share in SHARES
        ),
        *(
            Column(
                f"seconds_to_{share}",
                f"seconds of synthesis and distillation until {share} % of the teacher's top-1; empty if never",
                "s",
                f"seconds_to {share}",
                clock=True,
            )
            for share in SHARES
        ),
        Column("area", "mean test top-1 over student images (area under the curve)", "%"),
    ),
    source="curves",
    place=(1, 5),
)
