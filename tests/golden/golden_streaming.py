"""Losses of three rounds of the eight streaming methods from a fixed state, against the numbers in `streaming.json`.

    python tests/golden/golden_streaming.py --write

writes the file anew, which is right only after a change that is meant to change numbers (say so in the changelog).

How the values came about: the default task's shapes (1x16x16, ten classes, a CNN under a CNN whose features are
narrower) at small widths, batch 32; weights and buffers, those of companions and slow copies too, and the first content
of a queue from NumPy's frozen legacy stream (`tiny.fill`), so that no initialiser matters; latents, labels, projections
and the memory's noise from the run's own streams; three rounds of the real loop on CPU with each preset's own number of
steps, after the two warm-up rounds that one case has. A value is the mean of a loss over a round's steps. They are not
taken on trust: before any other step, the first generator objective with all its terms and the first student loss are
recomputed by the NumPy reference (`reference_streaming.py`, written from the formulas) from what plain hooks see in the
networks, here and at each writing. Later rounds pin down the updates: Adam and its rates, clipping, the student's SGD,
BatchNorm statistics, the queue, the slow copy, the memory, and the curricula, which three rounds pass through.

The numbers are of a run in fp64, and of random numbers drawn in fp32 as always. The fp32 run is held to the same
numbers with as much room as its rounding needs: Adam's first steps turn the sign of a gradient near zero into a whole
step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from common import Rows, fixed_job, losses, main

# isort: split
import reference_streaming as ref  # `common` has made these importable for a script
from hooks import array
from stream_jobs import METHODS, expected_step, expected_student, student_batch, synthesis
from tiny import arithmetic

from dfkd_bench.training.loop import Job

FILE = Path(__file__).with_name("streaming.json")
TOTAL = "L_G"  # the loss of synthesis in the file
SMALL: dict[str, dict[str, Any]] = {
    "cgdd": {"embedding_dim": 6}, "adadfkd": {"queue_size": 64}, "pre-dfkd": {"memory_dim": 8},
}  # fmt: skip
# method/preset, and what is set beside: small numbers, so that a curriculum or a warm-up shows in three rounds
CASES: dict[str, dict[str, Any]] = {
    "dafl/official": {},
    "dafl/datafree": {},
    "dfad/official": {},
    "zskt/official": {"gen_clip": 0.05},
    "zskt/datafree": {},
    "dfq-gen/datafree": {},
    "cgdd/v4": {"lambda_at": 1.0},
    "cgdd/v1": {"warmup_steps": 2, "ce_mask": False},
    "adadfkd/official": {},
    "adadfkd/readme": {},
    "adadfkd/textbook": {},
    "pre-dfkd/official": {},
    "mad/official": {"conditional": "yes"},
    "mad/few classes": {},
}


def job(case: str, dtype: torch.dtype = torch.float64) -> Job:
    """The fixed state of one case."""
    name, preset = case.split("/")
    kind = METHODS[name]
    preset = preset if preset in kind.presets else kind.default_preset
    small = {"latent_dim": 16, "generator_width": 4, **SMALL.get(name, {})}
    fixed = fixed_job(kind(kind.Config(**{**kind.presets[preset], **small, **CASES[case]})), dtype)
    if "queue" in fixed.context.registered:
        queue = fixed.context.registered["queue"]
        draws = torch.from_numpy(np.random.RandomState(0).standard_normal(tuple(queue.columns.shape)))
        queue.columns = F.normalize(draws, dim=0).to(dtype)
    return fixed


def rounds(case: str, dtype: torch.dtype = torch.float64) -> Rows:
    """Mean losses of each round."""
    return losses(job(case, dtype), dtype)


def verify(case: str) -> None:
    """Fail unless the reference finds the same first objectives."""
    fixed = job(case)
    method: Any = fixed.method
    projections: list[Any] = []
    if hasattr(method, "map_S"):
        map_S = method.map_S
        method.map_S = lambda *a, **k: projections.append(map_S(*a, **k)) or projections[-1]
    with arithmetic(torch.float64):
        step = synthesis(fixed)
        batch, seen, loss = student_batch(fixed)
    features: list[Any] = [
        None if pair is None else v.f_s @ array(pair[0]).T + array(pair[1])
        for v, pair in zip((step.seen, seen), projections, strict=False)
    ]
    expected = expected_step(fixed, step, *features[:1])
    assert step.losses == pytest.approx(expected, rel=1e-6), case
    if len(features) > 1:
        student = ref.adadfkd_student(method.config, seen, method.config.lambda_0, features[1])
    else:
        student = expected_student(fixed, batch, seen)
    assert loss.item() == pytest.approx(student, rel=1e-6), case


if __name__ == "__main__":
    main(FILE, CASES, verify, rounds)
