"""Test accuracy of students and their teacher on corrupted test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_bench.data.loading import Split, normalise
from dfkd_bench.metrics.corruptions import corrupted
from dfkd_bench.metrics.logits import agreement, logits_of, top1
from dfkd_bench.models.tapped import Tapped


@dataclass(frozen=True)
class Score:
    """One student under one corruption and severity; percent of the test images."""

    top1: float
    teacher_top1: float
    agreement: float  # same top-1 as the teacher on the same corrupted image


def corrupted_scores(
    teacher: Tapped, students: Sequence[Tapped], test: Split, corruption: str, severity: int
) -> list[Score]:
    """A score for each student, all on the same corrupted images.

    Raises `UsageError` for an unknown corruption or severity.
    """
    t, each = corrupted_logits(teacher, students, test, corruption, severity)
    teacher_top1 = top1(t, test.labels)
    return [Score(top1(s, test.labels), teacher_top1, agreement(s, t)) for s in each]


def corrupted_logits(
    teacher: Tapped, students: Sequence[Tapped], test: Split, corruption: str, severity: int
) -> tuple[Tensor, list[Tensor]]:
    """Logits (n, classes) of the teacher and of each student on the corrupted test images."""
    with torch.no_grad():
        images = normalise(corrupted(test.images, corruption, severity), test.facts)
        return logits_of(teacher, images), [logits_of(s, images) for s in students]
