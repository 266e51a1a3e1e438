"""Losses of three rounds from a fixed state against those of the files, and these against the NumPy references."""

from __future__ import annotations

import json
from types import ModuleType

import golden_cpsc
import golden_pool
import golden_streaming
import pytest
import torch
from common import ROUNDS, Rows, check

FAMILIES = (golden_cpsc, golden_pool, golden_streaming)
EVERY = [pytest.param(family, case, id=case) for family in FAMILIES for case in family.CASES]


def golden(family: ModuleType) -> dict[str, Rows]:
    """What the file of a family holds."""
    found: dict[str, Rows] = json.loads(family.FILE.read_text())
    return found


@pytest.mark.parametrize(("family", "case"), EVERY)
def test_first_objectives_are_those_of_the_reference(family: ModuleType, case: str) -> None:
    family.verify(case)


@pytest.mark.parametrize(("family", "case"), EVERY)
def test_losses_are_the_golden_ones(family: ModuleType, case: str) -> None:
    check(family.rounds(case, torch.float64), golden(family)[case], 1e-5)


@pytest.mark.parametrize(("family", "case"), [case for case in EVERY if case.values[0] is not golden_pool])
def test_in_fp32_they_are_within_the_room_that_rounding_needs(family: ModuleType, case: str) -> None:
    """Which `golden_cpsc.py` explains. A pool of bytes is held to fp64 alone."""
    check(family.rounds(case, torch.float32), golden(family)[case], 1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_moves_and_no_two_cases_are_the_same(family: ModuleType) -> None:
    """Were the golden values insensitive, they would prove nothing."""
    found = golden(family)
    assert set(found) == set(family.CASES)
    for case, rows in found.items():
        warmup = 2 if case == "cgdd/v1" else 0
        assert len(rows) == ROUNDS + warmup
        assert all(("student" in row) is (k >= warmup) for k, row in enumerate(rows))
        moving = {name for name in rows[-1] if abs(rows[-3][name] - rows[-1][name]) > 1e-3 * abs(rows[-1][name])}
        assert {family.TOTAL, "student"} <= moving, case
    assert len({json.dumps(rows[-1], sort_keys=True) for rows in found.values()}) == len(found)


def test_every_streaming_method_has_a_case_with_its_default_preset() -> None:
    methods = golden_streaming.METHODS
    assert {case.split("/")[0] for case in golden_streaming.CASES} == set(methods)
    assert {f"{name}/{kind.default_preset}" for name, kind in methods.items()} <= set(golden_streaming.CASES)
