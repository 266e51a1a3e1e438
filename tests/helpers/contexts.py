"""A `RunContext` without a method: tiny networks, and a task with a normalisation that differs by channel."""

from __future__ import annotations

from typing import Any

import torch
from tiny import CPU, fill
from torch import Tensor, nn

from dfkd_bench.method import Privileges, TaskFacts
from dfkd_bench.models.cnn import CNN
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.training.context import RunContext
from dfkd_bench.utils.seeding import seed_global

ALL = Privileges(gradients=True, bn_statistics=True, penultimate=True, stage_maps=True)
MEAN, STD = (0.25, 0.5), (0.5, 0.125)  # exact in binary
CLASSES, SHAPE, BATCH = 3, (2, 8, 8), 4


def network(seed: int, *, double: bool = False) -> Tapped:
    """A frozen CNN in eval mode, whose weights depend on `seed` alone."""
    model = CNN(2, CLASSES, SHAPE[0], 5)
    fill(model, seed)
    return (model.double() if double else model).eval().requires_grad_(False)


def make_context(
    *,
    privileges: Privileges = ALL,
    teacher: Tapped | None = None,
    student: Tapped | None = None,
    crop_padding: int = 0,
    flip: bool = False,
    shape: tuple[int, int, int] = SHAPE,
    precision: str = "fp32",
    seed: int = 0,
    **more: Any,
) -> RunContext:
    """A context on CPU; the default teacher and student have different weights."""
    facts = TaskFacts("tiny", CLASSES, shape, MEAN, STD, BATCH, 2, crop_padding, flip)
    context = RunContext(
        teacher or network(1), student or network(2), facts, CPU, seed, privileges, precision=precision, **more
    )
    context.progress.rounds = 8
    seed_global(seed, "setup")
    return context


def stream(seed: int = 0) -> torch.Generator:
    """A new random stream."""
    return torch.Generator(CPU).manual_seed(seed)


def state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """True if two states are equal bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
