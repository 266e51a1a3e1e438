"""Every method's losses and gradients with BatchNorm in few passes are those that the library's layers give."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from speedups import usual
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dfkd_bench.models import tapped
from dfkd_bench.plugins.registry import entries
from dfkd_bench.protocol import task
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.training.dry_run import job_for
from dfkd_bench.training.loop import Job, synthesise, train_student

Step = tuple[dict[str, float], list[list[Tensor]]]  # losses; gradients at each update of an optimiser


def job(method: str, precision: str) -> Job:
    """On the default task with its real teacher, inner loops as short as in a smoke run."""
    (planned,) = make_plan(
        Request((method,), budget="smoke", threads=1, device="cpu", precision=precision), Path("nowhere"), anywhere=True
    )
    made = job_for(planned.spec, planned.method, planned.teacher, task(planned.spec.task), stand_in=True)
    made.context.streams.reseed(0)
    return made


def watched(made: Job, step: Any) -> Step:
    """A step's losses and all gradients that it gave to optimisers."""
    gradients: list[list[Tensor]] = []

    def look(optimiser: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        found = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        gradients.append([g.detach().clone() for g in found])

    hook = register_optimizer_step_pre_hook(look)
    try:
        made.method.on_epoch_start(0)
        step(made)
    finally:
        hook.remove()
    return made.tally.take(), gradients


def off(one: list[Tensor], two: list[Tensor]) -> float:
    """The distance of two gradients over the length of the first."""
    a, b = (torch.cat([g.flatten().double() for g in part]) for part in (one, two))
    return float((a - b).norm() / a.norm())


def compared(method: str, precision: str, step: Any) -> tuple[Step, Step]:
    """The step with the library's layers, and as runs take it; from the same state."""
    found = []
    for by_layers in (True, False):
        made = job(method, precision)
        if step is train_student:
            with patch.object(tapped, "normalise", usual):
                synthesise(made, 1)
        with patch.object(tapped, "normalise", usual) if by_layers else nullcontext():
            found.append(watched(made, step))
    return found[0], found[1]


@pytest.mark.long
@pytest.mark.parametrize("step", [partial(synthesise, steps=1), train_student], ids=["synthesis", "student"])
@pytest.mark.parametrize("method", entries())
@pytest.mark.parametrize(
    ("precision", "losses", "gradients"),
    [("fp32", 1e-6, 5e-6), pytest.param("bf16", 1e-6, 5e-3, marks=pytest.mark.slow)],
)
def test_a_step_gives_the_same_losses_and_gradients(
    method: str, step: Any, precision: str, losses: float, gradients: float
) -> None:
    """Of the first update: what follows one by Adam differs by more than rounding, where a gradient is small."""
    (said, slow), (told, quick) = compared(method, precision, step)
    assert [list(map(len, slow))] == [list(map(len, quick))]
    assert said.keys() == told.keys()
    if len(slow) <= 1:  # else losses are means over updates
        assert told == pytest.approx(said, rel=losses, abs=1e-3 * losses)
    for one, two in zip(slow[:1], quick[:1], strict=True):
        assert off(one, two) <= gradients


def test_the_steps_compared_are_not_the_same_ones() -> None:
    """Few passes do round otherwise, or the test above would compare a step with itself."""
    (_, slow), (_, quick) = compared("cgdd", "fp32", partial(synthesise, steps=1))
    assert off(slow[0], quick[0]) > 0.0
