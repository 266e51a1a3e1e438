"""Losses of three rounds of the invert-and-pool methods from a fixed state against the numbers in `pool.json`.

    python tests/golden/golden_pool.py --write

writes the file anew, which is right only after a change that is meant to change numbers (say so in the changelog).

How the values came about: as in `golden_cpsc.py`, from the fixed state of `common.py`, with inner loops of a few
steps; three rounds of the real loop, in fp64 on CPU. A value is the mean over a round: the lowest inner loss, the terms
of the last inner step, the student's loss. They are not taken on trust: the terms and the loss of the very first inner
step are recomputed by the NumPy references from plain forwards of the networks on the images of that step, here and at
each writing, and so is the first loss of the student. Later rounds pin down the updates, the pool and its draws, the
smoothed moments, the bank and what is drawn anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common import BATCH, Rows, fixed_job, losses, main
from torch import Tensor

# isort: split
import numpy as np
import reference_numpy  # `common` has made these importable for a script
import reference_pool as ref
from hooks import Spy, array, look, running
from pool_jobs import WEIGHTS, at, inner, weighted
from reference_blocks import masked_kl
from tiny import arithmetic

from dfkd_bench.method import Batch, Method
from dfkd_bench.training.loop import Job
from dfkd_methods.cmi import CMI
from dfkd_methods.deepinversion import DeepInversion
from dfkd_methods.fastdfkd import FastDFKD
from dfkd_methods.nayer import NAYER

FILE = Path(__file__).with_name("pool.json")
TOTAL = "L_inv"  # the loss of synthesis in the file
SMALL = {"latent_dim": 16, "generator_width": 4, "student_steps": 3}
CASES: dict[str, tuple[type[Method], str, dict[str, Any]]] = {
    "deepinversion datafree": (DeepInversion, "datafree", {"iterations": 4, "student_steps": 3}),
    "deepinversion nvlabs": (DeepInversion, "nvlabs", {"iterations": 4, "student_steps": 3}),
    "deepinversion adaptive": (DeepInversion, "adaptive", {"iterations": 4, "student_steps": 3}),
    "cmi scratch": (
        CMI, "scratch", {**SMALL, "iterations": 4, "bank_draw": 40, "head_dim": 8, "synthesis_batch": BATCH},
    ),
    "fastdfkd fast2": (FastDFKD, "fast2", SMALL),
    "fastdfkd fast5": (FastDFKD, "fast5", SMALL),
    "fastdfkd fast10": (FastDFKD, "fast10", SMALL),
    "fastdfkd no-meta": (FastDFKD, "no-meta", SMALL),
    "nayer no-text": (
        NAYER, "no-text", {**SMALL, "g_steps": 4, "gen_life": 2, "vector_dim": 12, "synthesis_batch": 32},
    ),
}  # fmt: skip


def job(case: str) -> Job:
    """The fixed state of one case. A pool of bytes gives fp32 images whatever the arithmetic: they are widened."""
    kind, preset, settings = CASES[case]
    method = kind(kind.Config(**{**kind.presets[preset], **settings}))
    fixed, sample = fixed_job(method, torch.float64), method.sample
    method.sample = lambda n: Batch((drawn := sample(n)).images.double(), drawn.labels)  # type: ignore[method-assign]
    return fixed


def rounds(case: str, dtype: torch.dtype = torch.float64) -> Rows:
    """Mean losses of each round, in fp64 alone."""
    return losses(job(case), dtype)


def reference(method: Any, pixels: Tensor, whole: Tensor, local: Tensor | None, y: list[int]) -> dict[str, float]:
    """The terms of the first inner step on images before and after augmentation, and their sum; zero weights apart."""
    teacher, student = method.context.teacher._module, method.context.student._module
    (t, inputs, _), (s, *_) = look(teacher, whole), look(student, whole)
    found, stored = [reference_numpy.moments(a) for a in inputs], running(teacher)
    if isinstance(method, DeepInversion):
        c = method.config
        rough = array(pixels if c.tv_of == "pixels" else whole)
        terms = ref.deep_inversion(s, t, y, rough, found, stored, c.tv, c.competition)
    elif isinstance(method, CMI):
        assert local is not None
        means = [np.concatenate([a.mean((2, 3)) for a in seen], 1) for seen in (look(teacher, local).inputs, inputs)]
        head, nothing = [array(p) for p in method.head.parameters()], np.zeros((0, means[0].shape[1]))
        terms = {
            "L_bn": reference_numpy.bn_statistics(found, stored),
            "L_cls": reference_numpy.cross_entropy(t, y),
            "L_cr": ref.contrast(means[0], means[1], (nothing, nothing), head),
            "D_agree": masked_kl(s, t),
        }
    else:
        terms = ref.noisy(s, t, y, found, stored)
    used = {k: v for k, v in terms.items() if getattr(method.config, WEIGHTS[type(method)][k])}
    return {"L": weighted(method, used), **used}


def first_objectives(case: str) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and terms of the first inner step and the student's first loss: by the method, and by the reference."""
    fixed = job(case)
    method: Any = fixed.method
    with arithmetic(torch.float64):
        at(fixed, 0)
        spy = fixed.context.teacher = Spy(fixed.context.teacher)
        loop = inner(method)
        loss, terms = loop.objective(pixels := loop.draw())
        labels = loop.inside("y", "objective").tolist()
        views = [v.detach() for v in spy.images]
        expected = reference(method, pixels.detach(), views[0], views[1] if len(views) > 1 else None, labels)
        values = {"L": loss.item(), **{k: v.item() for k, v in terms.items()}}

        at(fixed, 0)
        method.synthesize()
        fixed.student.train()
        with torch.no_grad():
            images = method.sample(BATCH).images
            s, t = fixed.student(images), spy.view._module(images)
            values["student"] = method.distill_loss(
                None, fixed.student.observe(images), spy.view._module.observe(images)
            ).item()
        expected["student"] = reference_numpy.kd(array(s), array(t), method.config.temperature)
    return values, expected


def verify(case: str) -> None:
    """Fail unless the first objectives are those of the reference."""
    values, expected = first_objectives(case)
    assert values == pytest.approx(expected, rel=1e-6, abs=1e-12), case


if __name__ == "__main__":
    main(FILE, CASES, verify, rounds)
