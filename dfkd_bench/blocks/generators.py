"""Generators: conditional batch-norm and the networks that turn latents into images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """BatchNorm whose scale and shift are rows of two tables, one row per class.

    Normalisation uses the statistics of the whole mixed-class batch when training and running statistics when
    evaluating; there is no further affine. Gains start at 1 and shifts at 0, so at first the label has no effect.
    """

    def __init__(self, channels: int, classes: int, eps: float = 1e-3, momentum: float = 0.1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=eps, momentum=momentum, affine=False)
        self.gain = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Normalise x (n, channels, h, w) for labels y (n,)."""
        out: Tensor = self.bn(x) * self.gain(y)[:, :, None, None] + self.shift(y)[:, :, None, None]
        return out


class ConditionalGenerator(nn.Module):
    """Latent (n, latent_dim) and labels (n,) to images in the teacher's *normalised* space.

    Linear to a quarter of the image size, two nearest-neighbour upsamplings, three convolutions, tanh, and a last
    conditional batch-norm that gives each class a colour gain and offset; the output therefore needs no normaliser.
    Image sides must be divisible by four. 2,334,911 parameters for (3, 32, 32), width 64, latent 256, ten classes.
    """

    output_space = "normalised"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        latent_dim: int = 256,
        width: int = 64,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        if height % 4 or width_px % 4:
            raise ValueError(f"image sides must be divisible by 4, got {height}x{width_px}")
        self.start = (2 * width, height // 4, width_px // 4)
        self.fc = nn.Linear(latent_dim, self.start[0] * self.start[1] * self.start[2])
        self.cbn0 = ConditionalBatchNorm2d(2 * width, classes, eps)
        self.conv1 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.cbn1 = ConditionalBatchNorm2d(2 * width, classes, eps)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.cbn2 = ConditionalBatchNorm2d(width, classes, eps)
        self.conv3 = nn.Conv2d(width, channels, 3, padding=1)
        self.cbn3 = ConditionalBatchNorm2d(channels, classes, eps)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images (n, channels, height, width)."""
        x = self.cbn0(self.fc(z).unflatten(1, self.start), y)
        x = F.leaky_relu(self.cbn1(self.conv1(F.interpolate(x, scale_factor=2.0)), y), 0.2)
        x = F.leaky_relu(self.cbn2(self.conv2(F.interpolate(x, scale_factor=2.0)), y), 0.2)
        out: Tensor = self.cbn3(torch.tanh(self.conv3(x)), y)
        return out


class DeepConditionalGenerator(nn.Module):
    """Deeper transposed-convolution variant for 64 px and more: published beside the other, used by nobody.

    Linear to 1/16 of the image size, conditional batch-norm, four stride-2 4x4 transposed convolutions without bias,
    each followed by conditional batch-norm with eps 0.8 and LeakyReLU, a 3x3 convolution and tanh. 5,334,723
    parameters for (3, 64, 64), width 64, latent 256 and 200 classes. Image sides must be divisible by 16.
    """

    output_space = "normalised"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        latent_dim: int = 256,
        width: int = 64,
        eps: float = 0.8,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        if height % 16 or width_px % 16:
            raise ValueError(f"image sides must be divisible by 16, got {height}x{width_px}")
        w = width
        self.start = (8 * w, height // 16, width_px // 16)
        self.fc = nn.Linear(latent_dim, self.start[0] * self.start[1] * self.start[2])
        self.cbn0 = ConditionalBatchNorm2d(8 * w, classes, 1e-3)
        plan = [(8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w)]
        self.convs = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False) for i, o in plan)
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(o, classes, eps) for _, o in plan)
        self.out = nn.Conv2d(w, channels, 3, padding=1)
        for m in self.modules():
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.normal_(m.weight, 0.0, 0.02)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images (n, channels, height, width)."""
        x = self.cbn0(self.fc(z).unflatten(1, self.start), y)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x), y), 0.2)
        return torch.tanh(self.out(x))
