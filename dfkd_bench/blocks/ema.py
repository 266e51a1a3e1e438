"""An exponential moving average of a module."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """A slow copy of `module`: after each `update`, slow = momentum * slow + (1 - momentum) * module.

    Parameters and floating-point buffers (BatchNorm statistics) are averaged, other buffers copied. `module` of this
    object is the copy, without gradients; register the object itself.
    """

    def __init__(self, module: nn.Module, momentum: float) -> None:
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"a momentum lies between 0 and 1, got {momentum}")
        self.source, self.momentum = module, momentum
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the source."""
        pairs = zip(
            [*self.module.parameters(), *self.module.buffers()],
            [*self.source.parameters(), *self.source.buffers()],
            strict=True,
        )
        for slow, fast in pairs:
            if slow.is_floating_point():
                slow.lerp_(fast, 1.0 - self.momentum)
            else:
                slow.copy_(fast)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The copy's."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Into the copy."""
        self.module.load_state_dict(state)
