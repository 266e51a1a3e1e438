"""An exponential moving average of a module."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA(nn.Module):
    """A slow copy of `module`: each `update` sets slow = momentum * slow + (1 - momentum) * module.

    Parameters and floating-point buffers (BatchNorm statistics) are averaged, other buffers copied. The attribute
    `module` is the copy, without gradients. Register this object, not the copy. Raises `ValueError` for a momentum
    outside [0, 1].
    """

    def __init__(self, module: nn.Module, momentum: float) -> None:
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"a momentum lies between 0 and 1, got {momentum}")
        super().__init__()
        self._source, self.momentum = [module], momentum  # in a list, so that it is not registered as a submodule
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, momentum: float | None = None) -> None:
        """One update from the source; `momentum` replaces that of the constructor."""
        share = 1.0 - (self.momentum if momentum is None else momentum)
        pairs = zip(
            [*self.module.parameters(), *self.module.buffers()],
            [*self._source[0].parameters(), *self._source[0].buffers()],
            strict=True,
        )
        for slow, fast in pairs:
            if slow.is_floating_point():
                slow.lerp_(fast, share)
            else:
                slow.copy_(fast)
