"""Common corruptions of test images, each in five severities, after CIFAR-10-C.

Source: Hendrycks & Dietterich, ICLR 2019, section 4. Severities are the published ones for images of 32x32. Lengths in
pixels grow in proportion for larger images, and stay those of 32x32 for smaller ones (a blur of half a pixel has no
effect). This is a new implementation, batched and for any number of channels, so numbers are close to those of the
published files, not equal. Three of the fifteen corruptions are missing: frost (it needs photographs that are not
available everywhere), snow and glass blur.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from dfkd_bench.errors import UsageError, did_you_mean
from dfkd_bench.utils.seeding import derive

SEVERITIES = (1, 2, 3, 4, 5)
PUBLISHED_AT = 32  # pixels: the image height of the published severities
AT_A_TIME = 1000  # images per chunk; it affects the result, as each chunk has its own random stream

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]  # images in [0, 1], severity from 0, random stream


def corrupted(images: Tensor, name: str, severity: int) -> Tensor:
    """uint8 images (n, channels, height, width), corrupted. The result does not depend on the device.

    Raises `UsageError` for an unknown corruption or a severity outside 1 to 5.
    """
    if name not in CORRUPTIONS:
        raise UsageError(f"unknown corruption {name}{did_you_mean(name, list(CORRUPTIONS))}")
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity} is not one of 1 to 5")
    parts = []
    for number, part in enumerate(images.cpu().split(AT_A_TIME)):
        stream = torch.Generator()
        stream.manual_seed(derive(severity, f"corruption {name}", number))
        made = CORRUPTIONS[name].make(part.float() / 255.0, severity - 1, stream)
        parts.append((made.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8))
    return torch.cat(parts).to(images.device)


def _gaussian_noise(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    return x + (0.04, 0.06, 0.08, 0.09, 0.10)[level] * torch.randn(x.shape, generator=stream)


def _shot_noise(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    photons = (500.0, 250.0, 100.0, 75.0, 50.0)[level]  # at full brightness
    return torch.poisson(x * photons, generator=stream) / photons


def _impulse_noise(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    drawn = torch.rand(x.shape, generator=stream)
    return torch.where(drawn < share, (drawn < share / 2.0).float(), x)


def _defocus_blur(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    radius, soft = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[level]
    scale = _scale(x)
    reach = max(1, math.ceil(radius * scale))
    at = torch.arange(-reach, reach + 1.0)
    disk = (at[:, None].square() + at.square() <= (radius * scale) ** 2).float()
    disk = F.pad(disk[None, None], [1] * 4)
    disk = _softened(disk, soft * scale, 1)[0, 0]
    return _filtered(x, disk / disk.sum())


def _motion_blur(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    """Each image has its own direction, within 45 degrees of the horizontal; the weights are Gaussian."""
    radius, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[level]
    scale = _scale(x)
    steps = torch.arange(0.0, max(2, round(radius * scale)) + 1.0)
    weights = torch.exp(-steps.square() / (2.0 * (sigma * scale) ** 2))
    angle = (torch.rand(len(x), generator=stream) - 0.5) * (math.pi / 2.0)
    moved = torch.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        moved += weight * _sampled(x, torch.stack([angle.cos(), angle.sin()], 1)[:, None, None] * step)
    return moved


def _zoom_blur(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    factors = [1.0 + 0.01 * k for k in range((6, 11, 16, 21, 26)[level])]
    whole = x.clone()
    for factor in factors:
        rows, columns = (_enlarging(size, factor) for size in x.shape[2:])
        whole += rows @ x @ columns.T
    return whole / (len(factors) + 1)


def _fog(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    thick, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[level]
    brightest = x.amax((1, 2, 3), keepdim=True)
    foggy = x + thick * _plasma(len(x), x.shape[2], x.shape[3], decay, stream)
    return foggy * brightest / (brightest + thick)


def _brightness(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    """Raises the value of HSV; hue and saturation stay: all channels are scaled by one factor, black becomes grey."""
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[level]
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp(max=1.0)
    return torch.where(value > 0.0, x * raised / value.clamp(min=1e-6), raised.expand_as(x))


def _contrast(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * (0.75, 0.5, 0.4, 0.3, 0.15)[level] + mean


def _elastic_transform(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    """A random affine map, then a random smooth displacement; lengths are shares of the image height."""
    strength, smooth, affine = (
        (0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
    )[level]  # fmt: skip
    n, _, height, width = x.shape
    # three corners of a square (a third of the height to each side of the centre) move by up to `affine`
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]) * (height // 3)
    moved = corners + (torch.rand(n, 3, 2, generator=stream) * 2.0 - 1.0) * (affine * height)
    ones = torch.ones(n, 3, 1)
    theta = torch.linalg.solve(torch.cat([moved, ones], 2), corners.expand(n, 3, 2)).mT  # from the new to the old
    rows, columns = (torch.arange(size) - (size - 1) / 2.0 for size in (height, width))
    at = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).reshape(-1, 2)  # (h * w, 2) as x, y
    shift = (at @ theta[:, :, :2].mT + theta[:, None, :, 2] - at).reshape(n, height, width, 2)
    if strength:
        noise = torch.rand(n, 2, height, width, generator=stream) * 2.0 - 1.0
        sigma = smooth * height
        smooth_noise = _softened(noise, sigma, math.ceil(3.0 * sigma))
        shift = shift + strength * height * smooth_noise.permute(0, 2, 3, 1)
    return _sampled(x, shift)


def _pixelate(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    height, width = x.shape[2:]
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[level]
    small = F.interpolate(x, (int(height * share), int(width * share)), mode="area")
    return F.interpolate(small, (height, width), mode="area")


def _jpeg_compression(x: Tensor, level: int, stream: torch.Generator) -> Tensor:
    quality = (80, 65, 58, 50, 40)[level]
    whole = (x * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    squeezed = np.stack([_reopened(np.ascontiguousarray(image), quality) for image in whole])
    return torch.from_numpy(squeezed).reshape(whole.shape).permute(0, 3, 1, 2).float() / 255.0


def _reopened(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """An image (height, width, 1 or 3) after JPEG compression."""
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _softened(x: Tensor, sigma: float, reach: int) -> Tensor:
    """Gaussian blur over the last two dimensions, cut off at `reach` pixels; edges are mirrored."""
    soft = gaussian_filter(x.numpy(), sigma, radius=reach, axes=(2, 3), mode="reflect")
    return torch.from_numpy(soft)


def _scale(x: Tensor) -> float:
    return max(1.0, x.shape[2] / PUBLISHED_AT)


def _filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel of x correlated with one kernel (odd, odd); edges are mirrored."""
    channels, (h, w) = x.shape[1], kernel.shape
    wide = F.pad(x, [w // 2, w // 2, h // 2, h // 2], mode="reflect")
    return F.conv2d(wide, kernel.expand(channels, 1, h, w), groups=channels)


def _sampled(x: Tensor, shift: Tensor) -> Tensor:
    """Images sampled at each pixel plus `shift`, x and y in pixels, broadcast to (n, h, w, 2); edges are mirrored."""
    n, _, height, width = x.shape
    identity = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, height, width], align_corners=False)
    grid = identity + shift * torch.tensor([2.0 / width, 2.0 / height])
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _enlarging(size: int, factor: float) -> Tensor:
    """The matrix (size, size) that enlarges a row about its centre by `factor` >= 1 and crops it to `size`."""
    middle = (size - 1) / 2.0
    at = (torch.arange(size) - middle) / factor + middle
    return (1.0 - (at[:, None] - torch.arange(size)).abs()).clamp(min=0.0)  # linear between the two nearest


def _plasma(n: int, height: int, width: int, decay: float, stream: torch.Generator) -> Tensor:
    """Fog maps (n, 1, height, width) in [0, 1]: diamond-square on a torus, noise divided by `decay` at each level."""
    size = 2 ** math.ceil(math.log2(max(height, width, 2)))
    clouds = torch.zeros(n, 1, 1)
    noise = 1.0
    while clouds.shape[1] < size:
        half = clouds.shape[1]
        grown = torch.zeros(n, 2 * half, 2 * half)
        grown[:, ::2, ::2] = clouds

        def drawn() -> Tensor:
            return noise * (torch.rand(n, half, half, generator=stream) * 2.0 - 1.0)  # noqa: B023 - called at once

        right, down = clouds.roll(-1, 2), clouds.roll(-1, 1)
        middle = (clouds + right + down + right.roll(-1, 1)) / 4.0 + drawn()
        grown[:, 1::2, 1::2] = middle
        grown[:, ::2, 1::2] = (clouds + right + middle + middle.roll(1, 1)) / 4.0 + drawn()
        grown[:, 1::2, ::2] = (clouds + down + middle + middle.roll(1, 2)) / 4.0 + drawn()
        clouds = grown
        noise /= decay
    clouds = clouds - clouds.amin((1, 2), keepdim=True)
    return (clouds / clouds.amax((1, 2), keepdim=True).clamp(min=1e-6))[:, None, :height, :width]


@dataclass(frozen=True)
class _Kind:
    group: str
    make: Corruption


CORRUPTIONS: dict[str, _Kind] = {
    "gaussian_noise": _Kind("noise", _gaussian_noise),
    "shot_noise": _Kind("noise", _shot_noise),
    "impulse_noise": _Kind("noise", _impulse_noise),
    "defocus_blur": _Kind("blur", _defocus_blur),
    "motion_blur": _Kind("blur", _motion_blur),
    "zoom_blur": _Kind("blur", _zoom_blur),
    "fog": _Kind("weather", _fog),
    "brightness": _Kind("weather", _brightness),
    "contrast": _Kind("digital", _contrast),
    "elastic_transform": _Kind("digital", _elastic_transform),
    "pixelate": _Kind("digital", _pixelate),
    "jpeg_compression": _Kind("digital", _jpeg_compression),
}
GROUPS = tuple(dict.fromkeys(kind.group for kind in CORRUPTIONS.values()))
