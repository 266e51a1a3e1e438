"""Verify that a registered teacher has the bytes and the accuracy of its entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dfkd_bench.data.home import is_present
from dfkd_bench.errors import BenchError
from dfkd_bench.teachers.registry import Teacher, facts_for, load_teacher
from dfkd_bench.teachers.train import measure_top1

TOLERANCE = 0.01  # percentage points between registered and measured top-1


@dataclass(frozen=True)
class Verdict:
    """Result of one verification."""

    teacher: Teacher
    measured: float | None  # top-1 in percent, None if it was not measured
    problem: str  # empty if there is none


def verify(entry: Teacher, device: torch.device, bytes_suffice: bool = False) -> Verdict:
    """Check the hash, then load the teacher and measure its top-1 on the test split.

    With `bytes_suffice`, only the bytes are checked if the dataset is not on this machine.
    """
    try:
        model, facts = load_teacher(entry, device), facts_for(entry)
        if bytes_suffice and not is_present(facts):
            return Verdict(entry, None, "")
        measured = measure_top1(model, facts, device)
    except BenchError as error:
        return Verdict(entry, None, str(error))
    if not abs(measured - entry.top1) <= TOLERANCE:
        return Verdict(
            entry, measured, f"teacher {entry.name}: top-1 is {measured:.2f} %, registered {entry.top1:.2f} %"
        )
    return Verdict(entry, measured, "")
