"""The shared loop takes exactly the steps of a loop written by hand: every loss and the student, bit for bit."""

from __future__ import annotations

import pytest
import torch
from loop_overhead import LOOPS, TASK, Losses, check_same, measure

from dfkd_bench.models.tapped import Tapped
from dfkd_bench.teachers.registry import load_teacher, teacher_for

Found = dict[str, tuple[Losses, Tapped]]
CPU = torch.device("cpu")
SIZES = {"rounds": 3, "batch": 16, "width": 4}


@pytest.fixture
def found() -> Found:
    teacher = load_teacher(teacher_for(TASK), CPU)
    return {name: measure(teacher, name, CPU, **SIZES)[2:] for name in LOOPS}


def test_the_loop_equals_the_hand_written_one(found: Found) -> None:
    assert check_same(found) == 3 * (6 * 6 + 5)
    losses = [step["student"].item() for step in found["loop"][0] if "student" in step]
    assert len(set(losses)) == 15  # something happens between steps


def test_the_comparison_sees_one_bit(found: Found) -> None:
    losses, student = found["loop"]
    last = losses[-1]["student"]
    losses[-1]["student"] = torch.nextafter(last, last + 1)
    with pytest.raises(AssertionError, match="step 32: student"):
        check_same(found)
    losses[-1]["student"] = last
    with torch.no_grad():
        weight = student.get_submodule("head").get_parameter("bias")
        weight[0] = torch.nextafter(weight[0], weight[0] + 1)
    with pytest.raises(AssertionError, match=r"student head\.bias"):
        check_same(found)
