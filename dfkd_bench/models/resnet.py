"""Residual networks for small images: the CIFAR form of ResNet-18, -34, -50 (64 to 512 wide) and the thin ones (16-64).

Modules have the names of public CIFAR checkpoints (`conv1`, `layer1.0.bn1`, `shortcut.0`, `linear`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.errors import UsageError
from dfkd_bench.models.tapped import Tapped, Trace, spatial_mean


class _Identity(nn.Module):
    """Option A, without weights: a strided identity, padded with zero channels, half of them before and half after."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        before = (outputs - inputs) // 2
        self.padding = (0, 0, 0, 0, before, outputs - inputs - before)
        self.stride = stride

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, self.padding) if any(self.padding) else x


class _Projection(nn.Sequential):
    """Option B: a strided 1x1 convolution and BN."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        norm = self[1]
        assert isinstance(norm, nn.BatchNorm2d)
        return t.bn(norm, self[0](x))


def _shortcut(kind: str, inputs: int, outputs: int, stride: int) -> _Identity | _Projection:
    changes = inputs != outputs or stride != 1
    return _Projection(inputs, outputs, stride) if changes and kind == "B" else _Identity(inputs, outputs, stride)


class _Basic(nn.Module):
    """Two 3x3 convolutions, the first one strided."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(shortcut, inputs, width, stride)

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        out = F.relu(t.bn(self.bn1, self.conv1(x)))
        out = t.bn(self.bn2, self.conv2(out))
        return F.relu(out + self.shortcut.trace(x, t))


class _Bottleneck(nn.Module):
    """1x1, 3x3 (strided here, not in the 1x1), 1x1 to four times the width."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(shortcut, inputs, outputs, stride)

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        out = F.relu(t.bn(self.bn1, self.conv1(x)))
        out = F.relu(t.bn(self.bn2, self.conv2(out)))
        out = t.bn(self.bn3, self.conv3(out))
        return F.relu(out + self.shortcut.trace(x, t))


class ResNet(Tapped):
    """A 3x3 stem of stride 1 without pooling, one stage per entry of `blocks` and `widths`, global pool, linear.

    Every stage but the first halves the map; the output of each stage is a tap. Shortcut where width or size change:
    "A" is a padded identity, "B" a projection (He et al., 2016, section 3.3). Convolutions are initialised by Kaiming's
    normal distribution with fan-out, the linear layer by torch's default. Raises `UsageError` for another shortcut.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        bottleneck: bool = False,
        shortcut: str = "B",
        classes: int = 10,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise UsageError(f"a shortcut is 'A' (padded identity) or 'B' (1x1 convolution), got {shortcut!r}")
        block = _Bottleneck if bottleneck else _Basic
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs, self.layers = widths[0], [f"layer{k + 1}" for k in range(len(blocks))]
        for name, number, width in zip(self.layers, blocks, widths, strict=True):
            stage = nn.ModuleList()
            for i in range(number):
                stage.append(block(inputs, width, 2 if i == 0 and name != "layer1" else 1, shortcut))
                inputs = width * block.expansion
            self.add_module(name, stage)
        self.linear = nn.Linear(inputs, classes)
        self.feature_dim = inputs
        self.tap_names = (*(f"stage{k + 1}" for k in range(len(blocks))), "penultimate")
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits of x (n, channels, h, w)."""
        x = F.relu(t.bn(self.bn1, self.conv1(x)))
        for name, layer in zip(self.tap_names, self.layers, strict=False):
            for block in getattr(self, layer):
                x = block.trace(x, t)
            x = t.tap(name, x)
        x = t.tap("penultimate", spatial_mean(x))
        logits: Tensor = self.linear(x)
        return logits
