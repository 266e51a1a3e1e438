"""Common corruptions: what each does, by hand where that can be said, and that each is the same every time."""

from __future__ import annotations

import math

import pytest
import torch
from commands import Command
from torch import Tensor

from dfkd_bench.data import loading
from dfkd_bench.errors import UsageError
from dfkd_bench.metrics import corruptions as module
from dfkd_bench.metrics.corruptions import CORRUPTIONS, SEVERITIES, corrupted

SMOOTHING = ("defocus_blur", "motion_blur", "zoom_blur", "pixelate", "elastic_transform", "jpeg_compression")


def flat(value: int, n: int = 4, channels: int = 1, size: int = 32) -> Tensor:
    return torch.full((n, channels, size, size), value, dtype=torch.uint8)


def dot(size: int = 33) -> Tensor:
    """One bright pixel in the middle."""
    image = flat(0, 1, 1, size)
    image[0, 0, size // 2, size // 2] = 255
    return image


def moved(before: Tensor, after: Tensor) -> float:
    """Root of the mean squared change, of 255."""
    return float((before.float() - after.float()).square().mean().sqrt())


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return loading.load_test("digits16").images[:100]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_every_time_and_leaves_global_streams_alone(name: str, digits: Tensor) -> None:
    torch.manual_seed(1)
    first, state = corrupted(digits, name, 3), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(corrupted(digits, name, 3), first)
    assert first.dtype == torch.uint8
    assert first.shape == digits.shape
    assert moved(digits, first) > 0.5


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_whatever_comes_after_it_in_other_portions(
    name: str, digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_A_TIME", 10)
    whole = corrupted(digits[:30], name, 5)
    assert torch.equal(corrupted(digits[:20], name, 5), whole[:20])
    if name in ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog", "elastic_transform"):
        twice = corrupted(digits[:10].repeat(2, 1, 1, 1), name, 5)
        assert not torch.equal(twice[:10], twice[10:])  # and each portion draws anew


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "elastic_transform"])
def test_severities_grow(name: str) -> None:
    """The elastic ones do not, as published: they go from large smooth maps to small rough ones."""
    plain = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = module._softened(plain, 2.0, 4)
    low, high = plain.amin((1, 2, 3), keepdim=True), plain.amax((1, 2, 3), keepdim=True)
    images = ((plain - low) / (high - low) * 255).to(torch.uint8)
    far = [moved(images, corrupted(images, name, severity)) for severity in SEVERITIES]
    if name not in ("motion_blur", "pixelate"):  # as published too: equal lengths, and grids that do not nest
        assert far == sorted(far)
    assert far[-1] > 1.2 * far[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(3, 1, 16, 16), (2, 3, 28, 20), (1, 3, 64, 64)])
def test_every_shape_of_image_has_its_corruptions(name: str, shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for severity in (1, 5):
        assert corrupted(images, name, severity).shape == shape


@pytest.mark.parametrize("name", SMOOTHING)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_moves_brightness_about_leaves_an_even_image_as_it_is(name: str, severity: int) -> None:
    assert moved(flat(100), corrupted(flat(100), name, severity)) <= 1.0


def test_noise_is_as_strong_as_it_says() -> None:
    grey = flat(128, n=40)
    for severity, sigma in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        found = corrupted(grey, "gaussian_noise", severity).float() / 255.0
        assert float(found.mean()) == pytest.approx(128 / 255, abs=0.002)
        assert float(found.std()) == pytest.approx(sigma, rel=0.03)
    for severity, photons in zip(SEVERITIES, (500, 250, 100, 75, 50), strict=True):
        found = corrupted(grey, "shot_noise", severity).float() / 255.0
        assert float(found.mean()) == pytest.approx(128 / 255, abs=0.003)
        assert float(found.std()) == pytest.approx(math.sqrt(128 / 255 / photons), rel=0.03)
    for severity, share in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True):
        found = corrupted(grey, "impulse_noise", severity)
        assert float((found == 255).double().mean()) == pytest.approx(share / 2, rel=0.15)
        assert float((found == 0).double().mean()) == pytest.approx(share / 2, rel=0.15)
        assert int((found == 128).sum()) == int(((found != 0) & (found != 255)).sum())
    assert torch.equal(corrupted(flat(0), "shot_noise", 5), flat(0))  # no light, no photon


def test_contrast_and_brightness_by_hand() -> None:
    halves = torch.cat([flat(55), flat(155)], 3)  # mean 105
    low = corrupted(halves, "contrast", 2)
    assert sorted(low.unique().tolist()) == [80, 130]
    bright = corrupted(halves, "brightness", 5)  # 0.3 of 255 is 76.5
    assert sorted(bright.unique().tolist()) == [132, 232]
    assert corrupted(flat(0), "brightness", 5).unique().tolist() == [76]
    assert corrupted(flat(240), "brightness", 5).unique().tolist() == [255]


def test_brightness_keeps_hue_and_saturation() -> None:
    colour = torch.tensor([40, 80, 20], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    found = corrupted(colour, "brightness", 3)[0, :, 0, 0].tolist()  # the largest goes from 80 to 118.25
    assert found == [59, 118, 30]


def test_blurs_spread_a_dot_as_they_should() -> None:
    defocused = corrupted(dot(), "defocus_blur", 5)[0, 0].float()
    assert torch.equal(defocused, defocused.T)
    assert torch.equal(defocused, defocused.flip(0))
    assert float(defocused.sum()) == pytest.approx(255.0, abs=6.0)
    assert int((defocused > 0).sum()) == 9  # a disk of radius 1.5 holds three by three pixels
    streak = corrupted(dot(), "motion_blur", 5)[0, 0].float()
    assert float(streak.sum()) == pytest.approx(255.0, abs=12.0)
    rows, columns = (streak > 0).nonzero(as_tuple=True)
    assert columns.max() - columns.min() >= 4  # within 45 degrees of the horizontal
    assert rows.max() - rows.min() <= columns.max() - columns.min() + 1
    zoomed = corrupted(dot(), "zoom_blur", 5)[0, 0]
    assert int((zoomed > 0).sum()) <= 9  # the middle stays the middle
    off = torch.roll(dot(), 10, 3)
    zoomed = corrupted(off, "zoom_blur", 5)[0, 0].float()
    places = (zoomed.sum(0) * torch.arange(33)).sum() / zoomed.sum()
    assert float(places) > 26.0 + 0.5  # and what is beside it moves outwards


def test_enlarging_takes_rows_between_their_neighbours() -> None:
    found = module._enlarging(5, 2.0)
    assert torch.equal(
        found,
        torch.tensor([[0, 1, 0, 0, 0], [0, 0.5, 0.5, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 1, 0]]),
    )
    assert torch.equal(module._enlarging(4, 1.0), torch.eye(4))


def test_pixels_grow_by_hand() -> None:
    """Of 32 columns 20 are left at severity 5: each holds the mean of what it covers, and is drawn over it."""
    ramp = (torch.arange(32) * 8).to(torch.uint8).expand(1, 1, 32, 32)
    found = corrupted(ramp, "pixelate", 5)
    assert found[0, 0].unique(dim=0).shape[0] == 1
    assert float((found.float() - ramp.float()).abs().max()) <= 8.0
    assert moved(ramp, found) > 1.0


def test_fog_is_clouds_over_an_image_dimmed_by_them() -> None:
    clouds = module._plasma(6, 20, 32, 1.75, torch.Generator().manual_seed(0))
    assert clouds.shape == (6, 1, 20, 32)
    assert 0.0 <= float(clouds.min()) < float(clouds.max()) <= 1.0
    wide = module._plasma(50, 32, 32, 3.0, torch.Generator().manual_seed(0))
    rough = module._plasma(50, 32, 32, 1.5, torch.Generator().manual_seed(0))

    def steps(x: Tensor) -> float:
        return float((x[..., 1:] - x[..., :-1]).abs().mean())

    assert steps(rough) > 2.0 * steps(wide)
    assert torch.allclose(wide.amin((1, 2, 3)), torch.zeros(50))
    assert torch.allclose(wide.amax((1, 2, 3)), torch.ones(50))
    foggy = corrupted(flat(255), "fog", 5).float() / 255.0  # (1 + 1.5 c) / 2.5 of clouds c in [0, 1]
    assert float(foggy.min()) == pytest.approx(0.4, abs=0.003)
    assert float(foggy.max()) == pytest.approx(1.0, abs=0.003)


def test_elastic_maps_take_corners_where_they_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every corner moved by the same step the image moves by it, and nothing is bent."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 0.5 + 0.5 * 2 / (0.08 * 33)))
    moved_by_two = corrupted(dot(), "elastic_transform", 1)
    assert torch.equal(moved_by_two, torch.roll(dot(), (2, 2), (2, 3)))


def test_what_is_not_a_corruption_is_said(command: Command) -> None:
    assert len(CORRUPTIONS) == 12
    assert "Twelve corruptions" in command("robustness", "--help")[1]
    with pytest.raises(UsageError, match=r"unknown corruption fogg.*fog"):
        corrupted(flat(0), "fogg", 1)
    with pytest.raises(UsageError, match="severity 6"):
        corrupted(flat(0), "fog", 6)
