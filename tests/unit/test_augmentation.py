"""Augmentation: per sample or per batch, in range, differentiable, and exactly what its name says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference_blocks as ref
import torch
from contexts import stream
from torch import Tensor

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
    assert len(torch.unique(out, dim=0)) == {"crop": 25, "flip": 2, "resized crop": 400, "roll": 1}[name]


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


def coordinates(n: int, h: int = 8, w: int = 8) -> Tensor:
    """Images whose two channels are their own row and column numbers: a window can be read off them."""
    row = torch.arange(h, dtype=torch.float64)[:, None].expand(h, w)
    column = torch.arange(w, dtype=torch.float64)[None].expand(h, w)
    return torch.stack([row, column]).expand(n, 2, h, w)


def read_off(out: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Side by rows and by columns (shares of the image's), and centre (row, column) in pixels, of square images."""
    size = out.shape[-1]
    a, b = size // 2 - 1, size // 2  # in the middle no border interferes
    return (
        out[:, 0, b, a] - out[:, 0, a, a],
        out[:, 1, a, b] - out[:, 1, a, a],
        (out[:, 0, a, a] + out[:, 0, b, a]) / 2,
        (out[:, 1, a, a] + out[:, 1, a, b]) / 2,
    )


@pytest.mark.parametrize("bounds", [(0.25, 1.0), (0.5, 0.5), (0.04, 0.1)])
def test_windows_are_square_of_the_right_area_and_inside(bounds: tuple[float, float]) -> None:
    n = 500
    tall, wide, row, column = read_off(random_resized_crop(coordinates(n), bounds, stream()))
    torch.testing.assert_close(tall, wide, rtol=0, atol=1e-6)
    area = tall * wide
    assert area.min() >= bounds[0] - 1e-6
    assert area.max() <= bounds[1] + 1e-6
    assert area.mean().item() == pytest.approx(sum(bounds) / 2, abs=0.06 * (bounds[1] - bounds[0]) + 1e-6)
    for centre in (row, column):
        # edges at centre +- side/2 of 8 pixels, which reach from -0.5 to 7.5
        slack = (centre - 3.5).abs() - 4.0 * (1.0 - tall)
        assert slack.max() <= 1e-5
        assert slack.max() > -0.1  # and some touch the border
        assert abs((centre - 3.5).mean()) < 0.2
    assert abs(np.corrcoef(row.numpy(), column.numpy())[0, 1]) < 0.2


def test_a_window_is_enlarged_bilinearly() -> None:
    x = torch.randn(6, 2, 8, 8, generator=stream(), dtype=torch.float64)
    tall, _, row, column = read_off(random_resized_crop(coordinates(6), BOUNDS, stream(3)))
    out = random_resized_crop(x, BOUNDS, stream(3))
    for k in range(6):
        expected = ref.window(x[k].numpy(), tall[k].item(), row[k].item(), column[k].item())
        np.testing.assert_allclose(out[k].numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 2, 6, 8), (2, 1, 16, 16)])
def test_the_whole_image_is_the_image(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=stream())
    torch.testing.assert_close(random_resized_crop(x, (1.0, 1.0), stream()), x, rtol=0, atol=1e-5)


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
