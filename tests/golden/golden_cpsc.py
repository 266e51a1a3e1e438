"""Losses of three rounds of CPSC from a fixed state, both presets, against the numbers in `cpsc.json`.

    python tests/golden/golden_cpsc.py --write

writes the file anew, which is right only after a change that is meant to change numbers (say so in the changelog).

How the values came about: the default task's shapes (1x16x16, ten classes, a CNN under a CNN) at small widths; weights
and buffers from NumPy's frozen legacy stream (`tiny.fill`), so that no initialiser matters; latents and labels from the
run's own streams; three rounds of the real loop (six generator and five student steps each) on CPU. A value is the mean
of a loss over a round's steps. They are not taken on trust: before any step, the first generator objective and the
first student objective are recomputed by the NumPy reference (`reference_numpy.py`, written from the formulas) from
plain forwards of the networks, here and at each writing. Later rounds pin down the updates: the sign descent, the
student's SGD and its rate, the statistics of the BatchNorm layers.

The numbers are of a run in fp64. Another CPU adds in another order, and sign descent turns the rounding of a gradient
near zero into a whole step: in fp32 that moves the third round by up to 2e-3, in fp64 it is out of sight. The fp32 run
is held to the same numbers with as much room as that needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common import Rows, fixed_job, losses, main
from torch import Tensor

# isort: split
import reference_numpy as ref  # `common` has made these importable for a script
from hooks import look, running

from dfkd_bench.training.loop import Job
from dfkd_methods.cpsc import CPSC

FILE = Path(__file__).with_name("cpsc.json")
TOTAL = "J_G"  # the loss of synthesis in the file
CASES = CPSC.presets


def job(preset: str, dtype: torch.dtype = torch.float32) -> Job:
    """The fixed state of one preset."""
    method = CPSC(CPSC.Config(**{**CPSC.presets[preset], "latent_dim": 16, "generator_width": 4}))
    return fixed_job(method, dtype)


def rounds(preset: str, dtype: torch.dtype = torch.float64) -> Rows:
    """Mean losses of each round."""
    return losses(job(preset, dtype), dtype)


def first_objectives(preset: str) -> tuple[dict[str, float], dict[str, float]]:
    """J_G, its terms and J_S on the first batch: as the method computes them, and by the reference."""
    fixed = job(preset)
    method: Any = fixed.method
    teacher, student = fixed.context.teacher._module, fixed.student
    student.train(method.flags.student_mode != "eval").requires_grad_(False)
    z, y = method.draw(32, fixed.context.stream("synthesis"))

    with torch.no_grad():
        x: Tensor = method.G(z, y)
    (s, _, h_s), (t, inputs, h_t) = look(student, x), look(teacher, x)
    tables = [p.detach().double().numpy() for p in method.adapter.parameters()]
    ce_input = "probs" if preset == "official" else "logits"
    h_s = ref.adapter(ref.unit(h_s), *tables)
    h_s = h_s if preset == "official" else ref.unit(h_s)
    terms = ref.generator_terms(s, t, t, inputs, running(teacher), h_s, ref.unit(h_t), y.tolist(), ce_input=ce_input)
    expected = {"J_G": ref.generator_total(terms), **terms}

    J_G, found = method.generator_objective(z, y)
    values = {"J_G": J_G.item(), **{k: v.item() for k, v in found.items()}}

    student.train()
    with torch.no_grad():
        batch = method.sample(32)
        s, t = look(student, batch.images).logits, look(teacher, batch.images).logits
        values["J_S"] = method.distill_loss(batch, student.observe(batch.images), teacher.observe(batch.images)).item()
    y = batch.labels.tolist()
    expected["J_S"] = ref.student_total(s, t, y, ce_input=ce_input)
    return values, expected


def verify(preset: str) -> None:
    """Fail unless the reference agrees."""
    values, expected = first_objectives(preset)
    assert values == pytest.approx(expected, rel=1e-5), preset


if __name__ == "__main__":
    main(FILE, CASES, verify, rounds)
