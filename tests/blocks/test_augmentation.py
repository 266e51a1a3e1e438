"""Augmentation: per sample or per batch, in range, differentiable, and exactly what its name says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contexts import stream
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2.functional import resized_crop

from dfkd_bench.blocks.augmentation import random_crop, random_flip, random_resized_crop, random_roll

BOUNDS = (0.25, 1.0)
CALLS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "crop": lambda x, s: random_crop(x, 2, s),
    "flip": random_flip,
    "resized crop": lambda x, s: random_resized_crop(x, BOUNDS, s),
    "roll": lambda x, s: random_roll(x, 3, s),
}


def images(n: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(n, 2, 6, 8, generator=stream(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", CALLS)
def test_shape_range_stream_and_gradient(name: str) -> None:
    call, x = CALLS[name], images(8)
    first, again, other = (call(x, stream(k)) for k in (1, 1, 2))
    assert first.shape == x.shape
    assert first.min() >= 0.0
    assert first.max() <= x.max()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    call(x, stream(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.autograd.gradcheck(lambda v: call(v, stream(4)), images(2).requires_grad_())


@pytest.mark.parametrize("name", CALLS)
def test_rows_draw_for_themselves_but_for_the_roll(name: str) -> None:
    out = CALLS[name](images(1).expand(400, 2, 6, 8), stream())
    found = len(torch.unique(out, dim=0))
    if name == "resized crop":  # one of many windows of whole pixels
        assert found > 50
    else:
        assert found == {"crop": 25, "flip": 2, "roll": 1}[name]


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    x = 1.0 + images(64)  # nothing in it is black
    padded = torch.nn.functional.pad(x, (2,) * 4)
    found = set()
    for image, wide in zip(random_crop(x, 2, stream()), padded, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if torch.equal(image, wide[:, i : i + 6, j : j + 8])]
        assert len(places) == 1
        found.update(places)
    assert len(found) > 15
    assert {i for i, _ in found} == {j for _, j in found} == set(range(5))
    assert torch.equal(random_crop(x, 0, stream()), x)


def test_a_flip_is_left_to_right_for_about_half() -> None:
    x = images(400)
    out = random_flip(x, stream())
    flipped = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(out, x, strict=True)])
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(out, x, strict=True)])
    assert torch.equal(flipped, ~kept)
    assert 160 < int(flipped.sum()) < 240
    assert random_flip((x * 255).to(torch.uint8), stream()).dtype == torch.uint8


# -- the resized crop -------------------------------------------------------------------------------------------------

SIDE, RATIO = 64, (3 / 4, 4 / 3)


def coordinates(n: int, h: int = SIDE, w: int = SIDE) -> Tensor:
    """Images whose two channels are their own row and column numbers: a window can be read off them."""
    row = torch.arange(h, dtype=torch.float64)[:, None].expand(h, w)
    column = torch.arange(w, dtype=torch.float64)[None].expand(h, w)
    return torch.stack([row, column]).expand(n, 2, h, w)


def read_off(out: Tensor) -> Tensor:
    """Top, left, height and width (n, 4) of the windows, in pixels."""
    rows, columns = out[:, 0, :, 0], out[:, 1, 0]
    top, left = rows[:, 0], columns[:, 0]
    return torch.stack([top, left, rows[:, -1] - top + 1.0, columns[:, -1] - left + 1.0], dim=1)


def windows(n: int, bounds: tuple[float, float], h: int = SIDE, w: int = SIDE, **more: Any) -> Tensor:
    return read_off(random_resized_crop(coordinates(n, h, w), bounds, stream(), **more))


@pytest.mark.parametrize("bounds", [BOUNDS, (0.5, 0.5), (0.04, 0.1)])
def test_windows_have_the_right_area_and_aspect_and_lie_inside(bounds: tuple[float, float]) -> None:
    found = windows(2000, bounds)
    whole = found.round()
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-4)  # of whole pixels
    top, left, tall, wide = whole.unbind(1)
    for start, length in ((top, tall), (left, wide)):
        assert start.min() == 0.0  # some touch the border
        assert (start + length).max() == SIDE
        centre = (start + length / 2) / (SIDE / 2) - 1.0
        assert abs(centre.mean()) < 0.05
    area, aspect = tall * wide / SIDE**2, wide / tall
    # either side is rounded by half a pixel at most
    slack = 0.5 * (tall + wide) / SIDE**2 + 0.25 / SIDE**2
    assert (area >= bounds[0] - slack).all()
    assert (area <= bounds[1] + slack).all()
    shortest = float(whole[:, 2:].min())
    rounded = (shortest + 0.5) / (shortest - 0.5)
    assert aspect.min() >= RATIO[0] / rounded
    assert aspect.max() <= RATIO[1] * rounded
    if bounds != BOUNDS:  # a window that is nearly the whole image fits with an aspect near one alone
        assert abs(np.corrcoef(top.numpy(), left.numpy())[0, 1]) < 0.1
        log = aspect.log()
        reach = math.log(RATIO[1])
        assert log.mean().item() == pytest.approx(0.0, abs=0.02)
        assert log.std().item() == pytest.approx(2 * reach / math.sqrt(12), rel=0.06)  # uniform in the logarithm
        assert area.mean().item() == pytest.approx(sum(bounds) / 2, abs=0.02)


def test_windows_are_as_often_tall_as_torchvisions() -> None:
    """Its own draws, one image at a time, for the case where some windows do not fit and are drawn again."""
    torch.manual_seed(0)
    image = torch.empty(1, SIDE, SIDE)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, BOUNDS, RATIO) for _ in range(4000)]).double()
    ours = windows(4000, BOUNDS)
    for k in range(4):
        a, b = theirs[:, k], ours[:, k]
        assert a.mean().item() == pytest.approx(b.mean().item(), abs=4.0 * (a.std() / len(a) ** 0.5).item())
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.06)


@pytest.mark.parametrize("side", [(5, 7), (1, 1), (9, 12), (3, 12)])
def test_a_window_is_cut_out_and_then_enlarged_bilinearly(side: tuple[int, int]) -> None:
    x = torch.randn(1, 2, 9, 12, generator=stream(), dtype=torch.float64)
    ratio = (side[1] / side[0],) * 2
    share = side[0] * side[1] / (9 * 12)
    top, left, tall, wide = (int(v) for v in windows(1, (share, share), 9, 12, ratio=ratio)[0].round())
    assert (tall, wide) == side
    out = random_resized_crop(x, (share, share), stream(), ratio)
    expected = resized_crop(x, top, left, tall, wide, [9, 12], antialias=False)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 2, 6, 8), (2, 1, 16, 16)])
def test_the_whole_image_is_the_image(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=stream())
    torch.testing.assert_close(random_resized_crop(x, (1.0, 1.0), stream(), (1.0, 1.0)), x, rtol=0, atol=1e-5)
    # where no draw fits, it is taken too
    torch.testing.assert_close(random_resized_crop(x, (1.0, 1.0), stream(), (4.0, 4.0)), x, rtol=0, atol=1e-5)


# -- the roll ---------------------------------------------------------------------------------------------------------


def test_a_roll_is_torchs_and_the_same_for_the_whole_batch() -> None:
    x, seen = images(3), set()
    for seed in range(200):
        out = random_roll(x, 2, stream(seed))
        shifts = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if torch.equal(out, x.roll((i, j), (2, 3)))]
        assert len(shifts) == 1
        seen.update(shifts)
    assert len(seen) == 25
    assert torch.equal(random_roll(x, 0, stream()), x)
