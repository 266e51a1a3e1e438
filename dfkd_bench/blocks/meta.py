"""First-order meta-learning of an initialisation."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn


class MetaLearner:
    """Adapts a copy of `module` for some steps, and moves `module` to where the next copy should start.

    `fomaml`: the copy's gradients of all steps are summed into `module`'s, and its optimiser takes one step (Finn et
    al., 2017, first order). `reptile`: `module`'s gradient is the distance to the adapted copy times `factor` (Nichol
    et al., 2018). The copy is built once and re-filled for every adaptation.
    """

    def __init__(self, module: nn.Module, optimiser: torch.optim.Optimizer, kind: str = "fomaml", factor: float = 67.0):
        if kind not in ("fomaml", "reptile"):
            raise ValueError(f"unknown meta-learning {kind!r}: fomaml or reptile")
        self.module, self.optimiser, self.kind, self.factor = module, optimiser, kind, factor
        self.fast = copy.deepcopy(module)

    def start(self) -> nn.Module:
        """The copy, as the module is now."""
        self.fast.load_state_dict(self.module.state_dict())
        self.fast.train(self.module.training)
        for p in self.module.parameters():
            p.grad = torch.zeros_like(p)
        return self.fast

    @torch.no_grad()
    def collect(self) -> None:
        """After each backward of the copy: add its gradients (`fomaml`)."""
        if self.kind == "fomaml":
            for slow, fast in zip(self.module.parameters(), self.fast.parameters(), strict=True):
                if fast.grad is not None and slow.grad is not None:
                    slow.grad += fast.grad

    @torch.no_grad()
    def finish(self, before: Callable[[], None] = lambda: None) -> None:
        """One step of the module's optimiser on what was collected; `before` may set its rate."""
        if self.kind == "reptile":
            for slow, fast in zip(self.module.parameters(), self.fast.parameters(), strict=True):
                slow.grad = self.factor * (slow - fast)
        before()
        self.optimiser.step()
