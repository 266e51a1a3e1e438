"""LeNet-5 after LeCun et al. (1998), with or without BatchNorm.

Most published results on MNIST use the form without BatchNorm.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.errors import UsageError
from dfkd_bench.models.tapped import Tapped, Trace


class LeNet5(Tapped):
    """Three 5x5 convolutions of `widths` with ReLU, 2x2 max-pools after the first two, linear, ReLU, linear.

    For images of 32x32, or 28x28, which the first convolution pads by 2; raises `UsageError` for other sizes. With
    `norm`, each convolution has a BN before its ReLU and no bias; without, a bias and no BN. Taps are the activated
    maps before pooling. Weights are initialised as torch does by default.
    """

    tap_names = ("stage1", "stage2", "stage3", "penultimate")

    def __init__(
        self,
        widths: tuple[int, int, int] = (6, 16, 120),
        hidden: int = 84,
        classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 32, 32),
        norm: bool = True,
    ) -> None:
        super().__init__()
        channels, *size = image_shape
        if size not in ([28, 28], [32, 32]):
            raise UsageError(
                f"LeNet-5 needs images of 28x28 or 32x32, not {size[0]}x{size[1]}; cnn32 and resnet20 accept any size"
            )
        a, b, c = widths
        self.conv1 = nn.Conv2d(channels, a, 5, padding=2 if size[0] == 28 else 0, bias=not norm)
        self.bn1 = nn.BatchNorm2d(a) if norm else None
        self.conv2 = nn.Conv2d(a, b, 5, bias=not norm)
        self.bn2 = nn.BatchNorm2d(b) if norm else None
        self.conv3 = nn.Conv2d(b, c, 5, bias=not norm)
        self.bn3 = nn.BatchNorm2d(c) if norm else None
        self.fc1 = nn.Linear(c, hidden)
        self.fc2 = nn.Linear(hidden, classes)
        self.feature_dim = hidden

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits of x (n, channels, h, w), h and w those of `image_shape`."""
        x = t.tap("stage1", F.relu(_normed(t, self.bn1, self.conv1(x))))
        x = t.tap("stage2", F.relu(_normed(t, self.bn2, self.conv2(F.max_pool2d(x, 2)))))
        x = t.tap("stage3", F.relu(_normed(t, self.bn3, self.conv3(F.max_pool2d(x, 2)))))
        x = t.tap("penultimate", F.relu(self.fc1(x.flatten(1))))
        logits: Tensor = self.fc2(x)
        return logits


def _normed(t: Trace, layer: nn.BatchNorm2d | None, x: Tensor) -> Tensor:
    return x if layer is None else t.bn(layer, x)
