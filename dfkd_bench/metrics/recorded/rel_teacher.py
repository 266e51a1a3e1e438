"""The student's test accuracy as a share of the teacher's."""

from __future__ import annotations

from dfkd_bench.metrics.base import Column, Metric, View


def compute(view: View) -> float:
    """Test top-1 of the student divided by the teacher's. Raises `ZeroDivisionError` if the teacher's is 0."""
    from dfkd_bench.metrics.logits import top1

    return top1(view.student_logits, view.labels) / view.teacher_top1


METRIC = Metric(
    "rel_teacher",
    compute,
    (Column("rel_teacher", "last over the teacher's test top-1", "ratio", ""),),
    tolerance={"": lambda edges: 2.0 * edges.test},
    place=(3, 1),
)
