"""Golden losses: the fixed state that they start from, the rounds that make them, and the file that keeps them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))  # run as a script, there is no conftest

from tiny import arithmetic, make_job

from dfkd_bench.method import Method
from dfkd_bench.models.cnn import CNN
from dfkd_bench.training.loop import Job, distill

ROUNDS, BATCH, CLASSES, IMAGE = 3, 32, 10, (1, 16, 16)  # the default task's shapes
Rows = list[dict[str, float]]


def fixed_job(method: Method, dtype: torch.dtype = torch.float32, student_features: int = 6) -> Job:
    """A CNN under a CNN, every weight set: the same in fp64, but for the rounding of the weights.

    Teacher features have width 8. Whatever draws afterwards belongs inside `arithmetic(dtype)`, too.
    """
    torch.set_num_threads(1)
    with arithmetic(dtype):
        job = make_job(
            method, CNN(4, CLASSES, 1, 8), CNN(2, CLASSES, 1, student_features),
            classes=CLASSES, image_shape=IMAGE, batch_size=BATCH, rounds=ROUNDS,
        )  # fmt: skip
    job.schedule = dataclasses.replace(job.schedule, warmup_rounds=method.flags.warmup_rounds)
    return job


def losses(job: Job, dtype: torch.dtype) -> Rows:
    """Mean losses of each round of the real loop, those of its warm-up first."""
    with arithmetic(dtype):
        distill(job)
    rows: Rows = job.storage.rows  # type: ignore[attr-defined]
    return rows


def check(found: Rows, golden: Rows, tolerance: float) -> None:
    """Fail unless every loss of every round is the golden one."""
    assert len(found) == len(golden)
    for number, (row, expected) in enumerate(zip(found, golden, strict=True)):
        assert row == pytest.approx(expected, rel=tolerance), f"round {number}"


def main(file: Path, cases: Iterable[str], verify: Callable[[str], None], compute: Callable[[str], Rows]) -> None:
    """`--write`: compute all `cases` and write `file`, once `verify` has found each to agree with the reference."""
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: python {sys.argv[0]} --write")
    cases = list(cases)
    for case in cases:
        verify(case)
    file.write_text(json.dumps({case: compute(case) for case in cases}, indent=1) + "\n")
