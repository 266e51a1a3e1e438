"""Verification: a registered teacher has the bytes and the accuracy that its entry says."""

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
    """What became of one verification; `problem` is empty if all that was looked at is as registered."""

    teacher: Teacher
    measured: float | None  # top-1 in percent, None if it never came to that
    problem: str


def verify(entry: Teacher, device: torch.device, bytes_suffice: bool = False) -> Verdict:
    """Check the hash first; then load the teacher and measure it on the test split.

    With `bytes_suffice`, a dataset that does not lie here is no problem, and nothing is measured.
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
