"""Generators: networks from latents to images, and conditional batch-norm."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SMALL, LARGE, DEEP = (2, 2, 1), (4, 2, 1), (8, 4, 2, 1)  # channels in units of `width`, from the first map to the last


class ConditionalBatchNorm2d(nn.Module):
    """BatchNorm whose scale and shift are learned per class (one row per class in two tables).

    Statistics are of the whole batch of all classes in train mode, running ones in eval mode. Scales start at 1 and
    shifts at 0, so the label has no effect at first.
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
        return torch.addcmul(self.shift(y)[:, :, None, None], self.bn(x), self.gain(y)[:, :, None, None])


class ConditionalGenerator(nn.Module):
    """Latent (n, latent_dim) and labels (n,) to images in the teacher's *normalised* space.

    Linear to a quarter of the image size, two nearest-neighbour upsamplings, three convolutions, tanh, and a last
    conditional batch-norm with a scale and shift of each colour per class. Raises `ValueError` unless image sides are
    divisible by four. 2,334,911 parameters for (3, 32, 32), width 64, latent 256, ten classes.
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
        x = F.leaky_relu(self.cbn1(self.conv1(doubled(x)), y), 0.2)
        x = F.leaky_relu(self.cbn2(self.conv2(doubled(x)), y), 0.2)
        out: Tensor = self.cbn3(torch.tanh(self.conv3(x)), y)
        return out


class Generator(nn.Module):
    """Latent (n, latent_dim) to images: the convolutional generator of most published methods, in its variants.

    Linear to `plan[0] * width` channels at 1/2^k of the image size (k = len(plan) - 1), batch-norm; k times nearest
    upsampling, 3x3 convolution to the next of `plan`, batch-norm, LeakyReLU 0.2; a 3x3 convolution to the image.

    plan: `SMALL` (2, 2, 1) and `LARGE` (4, 2, 1) are for 32 px, `DEEP` (8, 4, 2, 1) for 64. output: `sigmoid` gives
    pixels in [0, 1] (`image01`); `tanh_bn` ends in tanh and a batch-norm without affine, `bn` in a trainable batch-norm
    without tanh, both in the teacher's input space (`normalised`). `bias` is for the inner convolutions, `eps` for the
    batch-norms after them. Raises `ValueError` unless image sides are divisible by 2^k. Parameters for (3, 32, 32),
    width 64: LARGE 4,581,955 at latent 256 and 8,776,259 at 512; DEEP at 64 px and latent 1024: 35,139,139.
    Sources: Chen et al., ICCV 2019 (SMALL, tanh_bn); Fang et al., IJCAI 2021 (SMALL and LARGE, sigmoid).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 256,
        width: int = 64,
        *,
        plan: tuple[int, ...] = SMALL,
        output: str = "sigmoid",
        bias: bool = False,
        eps: float = 1e-5,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        shrink = 2 ** (len(plan) - 1)
        if height % shrink or width_px % shrink:
            raise ValueError(f"image sides must be divisible by {shrink}, got {height}x{width_px}")
        if output not in ("sigmoid", "tanh_bn", "bn"):
            raise ValueError(f"unknown output {output!r}: sigmoid, tanh_bn or bn")
        wrap = spectral_norm if spectral else _same
        self.output_space = "image01" if output == "sigmoid" else "normalised"
        self.latent_dim = latent_dim
        self.start = (plan[0] * width, height // shrink, width_px // shrink)
        self.fc = wrap(nn.Linear(latent_dim, self.start[0] * self.start[1] * self.start[2]))
        self.bn0 = nn.BatchNorm2d(self.start[0])
        steps = [(i * width, o * width) for i, o in itertools.pairwise(plan)]
        self.convs = nn.ModuleList(wrap(nn.Conv2d(i, o, 3, padding=1, bias=bias)) for i, o in steps)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o, eps) for _, o in steps)
        self.out = wrap(nn.Conv2d(plan[-1] * width, channels, 3, padding=1))
        ends = {
            "sigmoid": nn.Sigmoid(),
            "tanh_bn": nn.Sequential(nn.Tanh(), nn.BatchNorm2d(channels, affine=False)),
            "bn": nn.BatchNorm2d(channels),
        }
        self.end = ends[output]

    def forward(self, z: Tensor) -> Tensor:
        """Images (n, channels, height, width)."""
        x = self.bn0(self.fc(z).unflatten(1, self.start))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(doubled(x))), 0.2)
        image: Tensor = self.end(self.out(x))
        return image


class DeepGenerator(nn.Module):
    """Transposed-convolution generator for 64 px and more, in the teacher's *normalised* space.

    Linear to 8 `width` channels at 1/16 of the image size, batch-norm, four stride-2 4x4 transposed convolutions
    without bias (to 4, 2, 1, 1 `width`) each with batch-norm and LeakyReLU 0.2, a 3x3 convolution, tanh, batch-norm
    without affine. Weights N(0, 0.02). Source: Radford et al., 2016, as in Fang et al., 2019 (arXiv 1912.11006).
    """

    output_space = "normalised"

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int = 256, width: int = 64) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        if height % 16 or width_px % 16:
            raise ValueError(f"image sides must be divisible by 16, got {height}x{width_px}")
        w = width
        self.latent_dim = latent_dim
        self.start = (8 * w, height // 16, width_px // 16)
        self.fc = nn.Linear(latent_dim, self.start[0] * self.start[1] * self.start[2])
        self.bn0 = nn.BatchNorm2d(8 * w)
        plan = [(8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w)]
        self.convs = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False) for i, o in plan)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in plan)
        self.out = nn.Conv2d(w, channels, 3, padding=1)
        self.end = nn.BatchNorm2d(channels, affine=False)
        reinitialise(self, 0.02)

    def forward(self, z: Tensor) -> Tensor:
        """Images (n, channels, height, width)."""
        x = self.bn0(self.fc(z).unflatten(1, self.start))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        image: Tensor = self.end(torch.tanh(self.out(x)))
        return image


class LabelledGenerator(nn.Module):
    """A conditional generator: the latent and a code of the label are concatenated and given to `build(size)`.

    kind `embedding`: a learned table (classes, code), initialised with N(0, 1); `onehot`: the one-hot vector of the
    class. Raises `ValueError` for another kind.
    """

    def __init__(
        self, build: Callable[[int], nn.Module], latent_dim: int, classes: int, code: int = 50, kind: str = "embedding"
    ) -> None:
        super().__init__()
        if kind not in ("embedding", "onehot"):
            raise ValueError(f"unknown label input {kind!r}: embedding or onehot")
        self.classes = classes
        self.table = nn.Embedding(classes, code) if kind == "embedding" else None
        self.generator = build(latent_dim + (code if self.table is not None else classes))
        self.output_space: str = self.generator.output_space  # type: ignore[assignment]

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images for latents z (n, latent_dim) and labels y (n,)."""
        code = F.one_hot(y, self.classes).to(z.dtype) if self.table is None else self.table(y)
        image: Tensor = self.generator(torch.cat([z, code], dim=1))
        return image


@torch.no_grad()
def reinitialise(module: nn.Module, std: float | None = 0.02, stream: torch.Generator | None = None) -> None:
    """Reinitialise `module`: linear and convolution weights N(0, std^2), batch-norm scales N(1, std^2), all biases 0.

    With `std` None as torch does by default: linear and convolution weights and biases uniform within 1/sqrt(fan-in),
    batch-norm scales 1. Running statistics are reset. Random numbers come from `stream`; without it from the global
    stream, which only `setup` may use. Source: Radford et al., 2016; between rounds as in Fang et al., IJCAI 2021.
    """
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # with spectral norm, `weight` is computed at each access from the stored original
            parts = dict(m.named_parameters())
            stored = parts.get("parametrizations.weight.original", m.weight)
            if std is None:
                bound = stored[0].numel() ** -0.5
                for part in (stored,) if m.bias is None else (stored, m.bias):
                    part.uniform_(-bound, bound, generator=stream)
                continue
            stored.normal_(0.0, std, generator=stream)
            if m.bias is not None:
                m.bias.zero_()
        elif isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.reset_running_stats()
            if m.affine:
                m.weight.fill_(1.0) if std is None else m.weight.normal_(1.0, std, generator=stream)
                m.bias.zero_()


def doubled(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling of x (n, c, h, w) by two, in channels_last format."""
    return F.interpolate(x.contiguous(memory_format=torch.channels_last), scale_factor=2.0)


def _same(layer: nn.Module) -> nn.Module:
    return layer


class DeepConditionalGenerator(nn.Module):
    """Deeper conditional generator with transposed convolutions for images of 64 px and more.

    Linear to 1/16 of the image size, conditional batch-norm, four stride-2 4x4 transposed convolutions without bias,
    each followed by conditional batch-norm with eps 0.8 and LeakyReLU, a 3x3 convolution and tanh. 5,334,723 parameters
    for (3, 64, 64), width 64, latent 256 and 200 classes. Raises `ValueError` unless image sides are divisible by 16.
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
