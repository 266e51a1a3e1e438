"""How soon a student gets where: images (and seconds) to a share of the teacher's accuracy, area under the curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfkd_bench.metrics.base import Column, Curves, Metric

SHARES = (50, 80, 90, 95)  # percent of the teacher's accuracy


def first_reaching(accuracies: Sequence[float], at: Sequence[float], teacher_top1: float) -> dict[str, float | None]:
    """Per share of the teacher's accuracy, the value of `at` (images or seconds) of the first snapshot there."""
    found: dict[str, float | None] = {}
    for share in SHARES:
        goal = teacher_top1 * share / 100.0
        found[str(share)] = next((x for x, a in zip(at, accuracies, strict=True) if a >= goal), None)
    return found


def area(accuracies: Sequence[float], images: Sequence[float]) -> float:
    """Mean accuracy in percent over the run by the trapezoid rule on student images; flat before the first snapshot."""
    total = accuracies[0] * images[0]
    for k in range(1, len(images)):
        total += (images[k] - images[k - 1]) * (accuracies[k] + accuracies[k - 1]) / 2.0
    return total / images[-1]


def compute(curves: Curves) -> dict[str, Any]:
    """Student images to each share of the teacher's accuracy, and the area; the runner measures the seconds."""
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
