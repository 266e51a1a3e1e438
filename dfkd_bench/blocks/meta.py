"""First-order meta-learning of an initialisation."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn


class MetaLearner:
    """Meta-learns the initialisation `module`: a copy is adapted for some steps, then `module` takes one step.

    `fomaml`: the copy's gradients of all steps are summed into `module`'s gradient (Finn et al., 2017, first order).
    `reptile`: `module`'s gradient is `factor` times its difference to the adapted copy (Nichol et al., 2018). The copy
    is created once and reset for every adaptation. Raises `ValueError` for another kind.
    """

    def __init__(self, module: nn.Module, optimiser: torch.optim.Optimizer, kind: str = "fomaml", factor: float = 67.0):
        if kind not in ("fomaml", "reptile"):
            raise ValueError(f"unknown meta-learning {kind!r}: fomaml or reptile")
        self.module, self.optimiser, self.kind, self.factor = module, optimiser, kind, factor
        self.fast = copy.deepcopy(module)

    def start(self) -> nn.Module:
        """The copy, reset to the module's current state; the module's gradients are set to zero."""
        self.fast.load_state_dict(self.module.state_dict())
        self.fast.train(self.module.training)
        for p in self.module.parameters():
            p.grad = torch.zeros_like(p)
        return self.fast

    @torch.no_grad()
    def collect(self) -> None:
        """Add the copy's gradients to the module's (`fomaml` only); call it after each backward of the copy."""
        if self.kind == "fomaml":
            for slow, fast in zip(self.module.parameters(), self.fast.parameters(), strict=True):
                if fast.grad is not None and slow.grad is not None:
                    slow.grad += fast.grad

    @torch.no_grad()
    def finish(self, before: Callable[[], None] = lambda: None) -> None:
        """One step of the module's optimiser; `before` is called just before it and may set the learning rate."""
        if self.kind == "reptile":
            for slow, fast in zip(self.module.parameters(), self.fast.parameters(), strict=True):
                slow.grad = self.factor * (slow - fast)
        before()
        self.optimiser.step()
