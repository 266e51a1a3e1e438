"""How a student is trained: the optimiser, and a learning rate that is a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # commands that list recipes must not import torch
    import torch
    from torch import nn


@dataclass(frozen=True)
class StudentRecipe:
    """Optimiser and schedule. Every duration is a fraction of the run, so that it is valid for every budget.

    The learning rate is constant within a `unit`: a `step`, a `round` (all student steps of a round), or an `epoch`
    (one of the `epochs` published epochs, always the same fraction of a run). With unit `epoch`, the scheduler steps
    `after` an epoch, so that the first one has the full rate, or `before` it (`stepping`).
    """

    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9  # SGD only
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)  # Adam only
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    unit: Literal["step", "round", "epoch"] = "step"
    stepping: Literal["after", "before"] = "after"  # with unit `epoch` only
    warmup: float = 0.0  # fraction of the run with a linear ramp from 0
    cosine_span: Literal["remaining", "total"] = "remaining"  # period of the cosine after the ramp
    milestones: tuple[float, ...] = ()  # multistep: fractions at which the rate is multiplied by gamma
    gamma: float = 0.1
    floor: float = 0.0  # lowest rate
    clip: float = 0.0  # limit of the gradient norm, 0 for none
    batch_size: int = 128  # recipe track only
    epochs: int = 100  # published length: of a run with budget full on the recipe track, and of schedules in all runs

    def rate(self, step: int, total: int, steps_per_round: int = 1) -> float:
        """Learning rate of `step` in 0..total-1 of a run whose rounds have `steps_per_round` student steps."""
        if self.unit == "epoch":
            unit, length = step * self.epochs // total, self.epochs
        elif self.unit == "round":
            unit, length = step // steps_per_round, -(-total // steps_per_round)
        else:
            unit, length = step, total
        ramp = self.warmup * length
        if self.unit == "epoch" and ramp:
            ramp = max(1.0, round(ramp))
        if unit < ramp:
            # with a ramp of 1.5 steps, the second step would exceed the full rate
            return self.lr * min(1.0, (unit + 1) / max(1.0, ramp))
        position = unit + (self.unit == "epoch" and self.stepping == "before")
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "multistep":
            passed = sum(position / length >= m for m in self.milestones)
            return max(self.floor, self.lr * self.gamma**passed)
        span = length if self.cosine_span == "total" else length - ramp
        angle = math.pi * min(1.0, (position - ramp) / span)
        return self.floor + (self.lr - self.floor) * 0.5 * (1.0 + math.cos(angle))

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for `parameters`, at the base learning rate."""
        import torch

        parameters = list(parameters)
        if self.optimiser == "sgd":
            return torch.optim.SGD(
                parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
            )
        return torch.optim.Adam(parameters, self.lr, self.betas, weight_decay=self.weight_decay)
