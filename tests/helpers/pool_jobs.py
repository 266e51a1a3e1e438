"""Tiny jobs of the methods that invert and pool, and tools to observe their inner loop."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from contexts import make_context, network
from tiny import RECIPE, Keepless, arithmetic, fill
from torch import Tensor, nn

from dfkd_bench.blocks.inversion import INFINITE
from dfkd_bench.method import Method
from dfkd_bench.training.loop import Job, Schedule
from dfkd_methods.cmi import CMI
from dfkd_methods.deepinversion import DeepInversion
from dfkd_methods.fastdfkd import FastDFKD
from dfkd_methods.nayer import NAYER

BATCH = 7  # not a multiple of the three classes
TINY: dict[type[Method], dict[str, Any]] = {
    DeepInversion: {"iterations": 3, "student_steps": 2},
    CMI: {
        "iterations": 3, "student_steps": 2, "latent_dim": 4, "generator_width": 2, "head_dim": 3, "bank_draw": 10,
    },
    FastDFKD: {"student_steps": 2, "latent_dim": 4, "generator_width": 2},
    NAYER: {
        "g_steps": 3, "student_steps": 2, "latent_dim": 4, "generator_width": 2, "vector_dim": 5, "synthesis_steps": 1,
        "synthesis_batch": BATCH,
    },
}  # fmt: skip
# the terms of the inner loop's loss and their weights; D_agree is raised
NOISY = {"L_oh": "w_oh", "L_bn": "w_bn", "D_agree": "w_adv"}
WEIGHTS: dict[type[Method], dict[str, str]] = {
    DeepInversion: {"L_oh": "w_oh", "R_feature": "alpha_f", "R_TV": "alpha_tv", "R_compete": "alpha_c"},
    CMI: {"L_bn": "alpha", "L_cls": "beta", "L_cr": "w_cr", "D_agree": "w_adv"},
    FastDFKD: NOISY,
    NAYER: NOISY,
}


def weighted(method: Method, terms: Mapping[str, float]) -> float:
    """The sum of `terms`, each with its sign and weight."""
    weights = WEIGHTS[type(method)]
    return sum((-1.0 if k == "D_agree" else 1.0) * getattr(method.config, weights[k]) * v for k, v in terms.items())


def make(
    kind: type[Method],
    preset: str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    rounds: int = 10,
    batch: int = BATCH,
    filled: bool = True,
    seed: int = 0,
    crop_padding: int = 0,
    flip: bool = False,
    **settings: Any,
) -> Any:
    """A job on 8x8 images of three classes; teacher and student agree on some of the images."""
    double = dtype == torch.float64
    preset = preset or kind.default_preset
    with arithmetic(dtype):
        context: Any = make_context(
            teacher=network(1, double=double), student=network(8, double=double),
            privileges=kind.privileges_of(preset), crop_padding=crop_padding, flip=flip, seed=seed,
        )  # fmt: skip
        context.task = dataclasses.replace(context.task, batch_size=batch)
        pinned = {name: getattr(context.task, fact) for name, fact in kind.pinned.items()}
        method = kind(kind.Config(**{**kind.presets[preset], **TINY[kind], **pinned, **settings}))
        method.setup(context)
        if filled:
            for k, module in enumerate(m for m in context.registered.values() if isinstance(m, nn.Module)):
                fill(module, 3 + k)
    plan = Schedule(rounds, rounds, method.flags.student_steps, batch, 0, ())
    job = Job(method, context, context.student._module, RECIPE, plan, Keepless())
    context.progress.rounds = rounds
    context.streams.reseed(0)
    return job


def at(job: Job, round: int) -> None:
    """Set `job` to the start of a round, as the loop does."""
    job.context.streams.reseed(round)
    job.context.progress.round = round
    job.student.eval().requires_grad_(False)


# -- the inner loop ---------------------------------------------------------------------------------------------------


class Caught(Exception):  # noqa: N818  (no error)
    """Ends a method's synthesis before its inner loop."""


@dataclass
class Inner:
    """The arguments of a method's call of `invert`."""

    draw: Callable[[], Tensor]
    objective: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
    update: Callable[[Tensor], None]
    steps: int
    lowest: Tensor = INFINITE

    def inside(self, name: str, of: str = "draw") -> Any:
        """The closure variable `name` of `draw` (or `objective`, or `update`)."""
        return inspect.getclosurevars(getattr(self, of)).nonlocals[name]


def inner(method: Method) -> Inner:
    """The inner loop of the next synthesis, which is not executed."""
    caught: list[Inner] = []

    def catch(*given: Any) -> None:
        caught.append(Inner(*given))
        raise Caught

    with patch.object(sys.modules[type(method).__module__], "invert", catch), suppress(Caught):
        method.synthesize()
    return caught[0]


@dataclass
class Call:
    """The steps of one execution of the inner loop."""

    images: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    terms: list[dict[str, float]] = field(default_factory=list)
    best: Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def watched(method: Method) -> Iterator[list[Call]]:
    """Yields a list of all executions of the inner loop inside the context."""
    module, calls = sys.modules[type(method).__module__], []
    real = module.invert

    def watch(draw: Any, objective: Any, *more: Any) -> Any:
        call = Call()
        calls.append(call)

        def looked(x: Tensor) -> Any:
            loss, terms = objective(x)
            call.images.append(x.detach().clone())
            call.losses.append(loss.item())
            call.terms.append({k: v.item() for k, v in terms.items()})
            return loss, terms

        found = real(draw, looked, *more)
        call.best = found[0]
        return found

    with patch.object(module, "invert", watch):
        yield calls
