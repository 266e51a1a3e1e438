"""Wide residual networks for small images (Zagoruyko & Komodakis, 2016): pre-activation, no dropout."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.models.tapped import Tapped, Trace, spatial_mean


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        out = F.relu(t.bn(self.bn1, x))
        # where the width changes, the input of the shortcut is the activated input, as in the original network
        residual = x if self.shortcut is None else self.shortcut(out)
        out = F.relu(t.bn(self.bn2, self.conv1(out)))
        total: Tensor = residual + self.conv2(out)
        return total


class WRN(Tapped):
    """WRN-`depth`-`widen`: taps are the outputs of the three groups, the third after the last BatchNorm and ReLU.

    `stage3_raw` is the output of the third group before them. Raises `ValueError` unless depth is 6n+4.
    """

    tap_names = ("stage1", "stage2", "stage3", "penultimate")
    raw_taps: Mapping[str, str] = {"stage3": "stage3_raw"}

    def __init__(self, depth: int, widen: int, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        if (depth - 4) % 6:
            raise ValueError(f"depth must be 6n+4, got {depth}")
        n, widths = (depth - 4) // 6, [16, 16 * widen, 32 * widen, 64 * widen]
        self.feature_dim = widths[3]
        self.conv = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.groups = nn.ModuleList()
        for g in range(3):
            first = _Block(widths[g], widths[g + 1], 1 if g == 0 else 2)
            rest = [_Block(widths[g + 1], widths[g + 1], 1) for _ in range(n - 1)]
            self.groups.append(nn.ModuleList([first, *rest]))
        self.bn = nn.BatchNorm2d(widths[3])
        self.head = nn.Linear(widths[3], classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits of x (n, channels, h, w)."""
        x = self.conv(x)
        for name, group in zip(("stage1", "stage2", "stage3_raw"), self.groups, strict=True):
            assert isinstance(group, nn.ModuleList)
            for block in group:
                assert isinstance(block, _Block)
                x = block.trace(x, t)
            t.tap(name, x)
        x = t.tap("stage3", F.relu(t.bn(self.bn, x)))
        x = t.tap("penultimate", spatial_mean(x))
        logits: Tensor = self.head(x)
        return logits
