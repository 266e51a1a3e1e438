"""The default task's small convolutional classifier: five 3x3 convolutions with BatchNorm, global average pooling."""

from __future__ import annotations

from torch import Tensor, nn

from dfkd_bench.models.tapped import Tapped, Trace, spatial_mean


class CNN(Tapped):
    """conv w - pool - conv 2w, conv 2w - pool - conv 4w, conv `feature_dim` - global pool - linear.

    The penultimate width does not depend on `width`, so features of teacher and student can be compared without an
    adapter. Parameters for one input channel and ten classes: 241,642 at `width` 32, 89,146 at 16.
    """

    tap_names = ("stage1", "stage2", "stage3", "penultimate")

    def __init__(self, width: int, classes: int = 10, channels: int = 1, feature_dim: int = 96) -> None:
        super().__init__()
        w, d = width, feature_dim
        self.feature_dim = d
        plan = [(channels, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, d)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in plan)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in plan)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(d, classes)

    def _layer(self, i: int, x: Tensor, t: Trace) -> Tensor:
        norm = self.norms[i]
        assert isinstance(norm, nn.BatchNorm2d)
        out: Tensor = self.act(t.bn(norm, self.convs[i](x)))
        return out

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits of x (n, channels, h, w), h and w divisible by four."""
        x = t.tap("stage1", self._layer(0, x, t))
        x = self._layer(1, self.pool(x), t)
        x = t.tap("stage2", self._layer(2, x, t))
        x = self._layer(3, self.pool(x), t)
        x = t.tap("stage3", self._layer(4, x, t))
        x = t.tap("penultimate", spatial_mean(x))
        logits: Tensor = self.head(x)
        return logits
