"""How a student is trained, as data: the optimiser and a learning rate that is a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # recipes are listed by commands that must not wait for torch
    import torch
    from torch import nn


@dataclass(frozen=True)
class StudentRecipe:
    """Optimiser and schedule. Every duration is a fraction of the run, so that it means the same in every budget."""

    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9  # SGD only
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)  # Adam only
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    unit: Literal["step", "epoch"] = "step"  # the rate changes at every step, or is held within an epoch
    warmup: float = 0.0  # fraction of the run with a linear ramp from 0
    cosine_span: Literal["remaining", "total"] = "remaining"  # period of the cosine after the ramp
    milestones: tuple[float, ...] = ()  # multistep: fractions at which the rate is multiplied by gamma
    gamma: float = 0.1
    floor: float = 0.0  # lowest rate
    clip: float = 0.0  # gradient norm limit, 0 for none
    batch_size: int = 128  # recipe track only
    epochs: int = 100  # recipe track, budget full only

    def rate(self, step: int, total: int, steps_per_epoch: int = 1) -> float:
        """Learning rate of `step` in 0..total-1.

        With unit `epoch`, position is counted from 1 in whole epochs (epoch e of E), as epoch-wise schedulers that
        step before training do; with unit `step`, from 0 in steps.
        """
        if self.unit == "epoch":
            position = step // steps_per_epoch + 1.0
            length = max(1.0, total / steps_per_epoch)
        else:
            position, length = float(step), float(max(1, total))
        ramp = self.warmup * length
        if self.unit == "epoch" and ramp:
            ramp = max(1.0, round(ramp))
        if position < ramp or (self.unit == "epoch" and position <= ramp):
            # a ramp of 1.5 steps is at the full rate in its second step, not beyond it
            return self.lr * min(1.0, (position + (self.unit == "step")) / max(1.0, ramp))
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "multistep":
            passed = sum(position / length >= m for m in self.milestones)
            return max(self.floor, self.lr * self.gamma**passed)
        span = length if self.cosine_span == "total" else length - ramp
        angle = math.pi * min(1.0, (position - ramp) / span)
        return self.floor + (self.lr - self.floor) * 0.5 * (1.0 + math.cos(angle))

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over `parameters`, at the base rate."""
        import torch

        parameters = list(parameters)
        if self.optimiser == "sgd":
            return torch.optim.SGD(
                parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
            )
        return torch.optim.Adam(parameters, self.lr, self.betas, weight_decay=self.weight_decay)
