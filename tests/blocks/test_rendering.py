"""The renderer: one normaliser, applied exactly once, and the task's own augmentation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contexts import MEAN, STD, make_context, stream
from torch import Tensor, nn

from dfkd_bench.blocks.rendering import Renderer
from dfkd_bench.errors import RunError

mean, std = (torch.tensor(v).view(1, 2, 1, 1) for v in (MEAN, STD))


class Painter(nn.Module):
    """A "generator" that returns what it is given, in the space that it is told to name."""

    def __init__(self, space: Any = None) -> None:
        super().__init__()
        if space is not None:
            self.output_space = space

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.stack(parts).sum(0)


def pixels(n: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(n, 2, 8, 8, generator=stream(seed))


def test_pixels_are_normalised_exactly_once() -> None:
    x = pixels()
    found = Renderer(make_context())(Painter("image01"), x)
    assert torch.equal(found, (x - mean) / std)  # mean and deviation are exact in binary


def test_what_is_normalised_already_is_left_alone() -> None:
    x = pixels()
    assert torch.equal(Renderer(make_context())(Painter("normalised"), x), x)


def test_all_inputs_reach_the_generator_and_gradients_come_back() -> None:
    a, b = (pixels(seed=k).requires_grad_() for k in (0, 1))
    Renderer(make_context())(Painter("image01"), a, b).sum().backward()
    for leaf in (a, b):
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, (1.0 / std).expand_as(leaf))


@pytest.mark.parametrize("space", [None, "tanh", "pixels", "Image01"])
def test_another_space_is_refused(space: str | None) -> None:
    with pytest.raises(RunError, match=r"Painter\.output_space is .*: set it to image01 or normalised"):
        Renderer(make_context())(Painter(space), pixels())


@pytest.mark.parametrize("space", ["image01", "normalised"])
def test_images_are_fp32_in_the_networks_memory_format(space: str) -> None:
    class Layer(nn.Module):
        output_space = space

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.out: Tensor = self.conv(x)
            return self.out

    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        layer = Layer()
        x = Renderer(make_context(precision=precision))(layer, pixels())
        assert layer.out.dtype == dtype  # the generator runs in the run's precision
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_pixels_and_normalise_are_inverse() -> None:
    render, x = Renderer(make_context()), pixels()
    assert torch.equal(render.pixels(render.normalise(x)), x)
    assert torch.equal(render.normalise(mean.expand(1, 2, 8, 8)), torch.zeros(1, 2, 8, 8))
    y = x.double().requires_grad_()
    assert torch.autograd.gradcheck(render.normalise, y)
    assert torch.autograd.gradcheck(render.pixels, y)


def test_clip_puts_every_pixel_back_into_its_channels_range() -> None:
    render = Renderer(make_context())
    wild = 3.0 * torch.randn(4, 2, 8, 8, generator=stream())
    assert torch.equal(render.clip(render.normalise(wild)), render.normalise(wild.clamp(0.0, 1.0)))
    inside = render.normalise(pixels())
    assert torch.equal(render.clip(inside), inside)
    ends = render.clip(torch.tensor([-99.0, 99.0]).view(2, 1, 1, 1).expand(2, 2, 1, 1))
    torch.testing.assert_close(ends.view(2, 2), torch.tensor([[-0.5, -4.0], [1.5, 4.0]]))


# -- augmentation -----------------------------------------------------------------------------------------------------


def ramp(n: int) -> Tensor:
    """Every pixel of an image of its own value, none of them black."""
    return (1.0 + torch.arange(2 * 8 * 8.0)).view(1, 2, 8, 8).expand(n, 2, 8, 8) / 200.0


def flips(x: Tensor) -> set[bool]:
    """Which images run from right to left, read off the sign along their middle row."""
    return set((x[:, 0, 4, 5] < x[:, 0, 4, 3]).tolist())


@pytest.mark.parametrize(("flip", "expected"), [(False, {False}), (True, {False, True})])
def test_flips_only_where_the_task_says(flip: bool, expected: set[bool]) -> None:
    for padding in (0, 2):
        render = Renderer(make_context(flip=flip, crop_padding=padding))
        assert flips(render.augment(ramp(64), stream())) == expected


def test_without_crop_and_flip_nothing_changes() -> None:
    x = pixels()
    assert torch.equal(Renderer(make_context()).augment(x, stream()), x)


@pytest.mark.parametrize("kind", ["float", "byte"])
def test_crops_are_padded_with_black(kind: str) -> None:
    """Which is darker than the teacher's zero. What a crop is: `test_augmentation.py`."""
    render = Renderer(make_context(crop_padding=2))
    x = ramp(256) if kind == "float" else (ramp(256) * 200).to(torch.uint8)
    out = render.augment(x, stream())
    assert out.dtype == x.dtype
    assert len(torch.unique(out, dim=0)) == 25  # each sample draws its own place, and every place occurs
    if kind == "float":
        torch.testing.assert_close(render.normalise(out).amin((0, 2, 3)), torch.tensor([-0.5, -4.0]))
    else:
        assert out.min() == 0
