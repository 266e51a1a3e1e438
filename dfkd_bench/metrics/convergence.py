"""How soon a student gets where: images (and seconds) to a share of the teacher's accuracy, area under the curve."""

from __future__ import annotations

from collections.abc import Sequence

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
