"""VGG-11 with BatchNorm for small images (Simonyan & Zisserman, 2015, with one linear layer instead of three)."""

from __future__ import annotations

from torch import Tensor, nn

from dfkd_bench.models.tapped import Tapped, Trace, spatial_mean

PLAN = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512)  # outputs of 3x3 convolutions; 0 is a 2x2 max-pool


class VGG11(Tapped):
    """Eight 3x3 convolutions with bias, BN and ReLU; three max-pools, a fourth for 64 px and more; global pool; linear.

    Taps are the maps before the first three pools and the last map; at 32 px they have the sizes of a CIFAR ResNet's
    four. The modules of `features` are numbered as in torchvision's `vgg11_bn`. Initialisation: convolutions Kaiming
    normal with fan-out, linear layer with standard deviation 0.01, biases zero.
    """

    tap_names = ("stage1", "stage2", "stage3", "stage4", "penultimate")

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for width in PLAN:
            if width:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)
        self.feature_dim = inputs
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                assert m.bias is not None
                nn.init.zeros_(m.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits of x (n, channels, h, w), h and w at least 8."""
        pools = 4 if min(x.shape[2:]) >= 64 else 3
        stage = 1
        for layer in self.features:
            if isinstance(layer, nn.BatchNorm2d):
                x = t.bn(layer, x)
            elif not isinstance(layer, nn.MaxPool2d):
                x = layer(x)
            elif stage <= pools:
                x = layer(t.tap(f"stage{stage}", x) if stage < 4 else x)
                stage += 1
        x = t.tap("stage4", x)
        x = t.tap("penultimate", spatial_mean(x))
        logits: Tensor = self.classifier(x)
        return logits
