"""Inversion: the best iterate and no alias of it, smoothed moments, and what stands around the pool."""

from __future__ import annotations

import pytest
import torch
from contexts import CLASSES, MEAN, STD, make_context, stream
from torch import Tensor

from dfkd_bench.blocks.inversion import Inverter, SmoothedMoments, descend, invert
from dfkd_bench.errors import RunError

# -- the inner loop ---------------------------------------------------------------------------------------------------


def walk(levels: list[float], *lowest: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Invert a live tensor that takes these values in turn, the loss being its first entry; what is left of it all."""
    live, steps = torch.full((2, 1, 2, 2), levels[0], requires_grad=True), iter(levels[1:])

    def update(loss: Tensor) -> None:
        with torch.no_grad():
            live.fill_(next(steps, 99.0))  # in place, as an optimiser does

    best, log = invert(
        lambda: live, lambda x: (x[0, 0, 0, 0] * 1.0, {"twice": 2 * x.detach().mean()}), update, len(levels),
        *lowest,
    )  # fmt: skip
    return live, best, log


@pytest.mark.parametrize(
    "levels",
    [[5.0, 3.0, 4.0, 9.0], [1.0, 2.0, 3.0], [4.0, 2.0, 1.0], [2.0], [3.0, 1.0, 1.0], [5.0, 1.0, 7.0, 0.5, 8.0]],
)
def test_the_iterate_of_lowest_loss_comes_back_as_a_copy(levels: list[float]) -> None:
    live, best, log = walk(levels)
    expected = torch.full((2, 1, 2, 2), min(levels))
    assert torch.equal(best, expected)
    assert log["L_inv"].item() == min(levels)
    assert log["twice"].item() == 2 * levels[-1]  # terms are of the last step
    assert best.data_ptr() != live.data_ptr()
    with torch.no_grad():
        live.fill_(-7.0)
    assert torch.equal(best, expected)
    assert not best.requires_grad


@pytest.mark.parametrize(
    ("before", "levels", "kept"),
    [(2.0, [5.0, 3.0, 4.0], 5.0), (2.0, [5.0, 1.0, 1.5], 1.0), (4.0, [3.0, 3.5], 3.0), (2.0, [1.0, 3.0], 1.0)],
)
def test_images_not_below_an_earlier_loss_leave_the_first_in_place(
    before: float, levels: list[float], kept: float
) -> None:
    _, best, log = walk(levels, torch.tensor(before))
    assert torch.equal(best, torch.full((2, 1, 2, 2), kept))
    assert log["L_inv"].item() == min(before, *levels)


def test_inversion_makes_its_own_gradients_whoever_calls() -> None:
    x = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    update = descend(torch.optim.SGD([x], 0.25))

    def objective(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return x.square().sum(), {}

    with torch.no_grad():
        best, log = invert(lambda: x, objective, update, 3)
    # halved by each step; the third update is made, but its image never judged
    assert best.flatten().tolist() == [0.75] * 4
    assert log["L_inv"].item() == pytest.approx(4 * 0.75**2)
    assert x.flatten().tolist() == [0.375] * 4


def test_descend_steps_every_optimiser_on_fresh_gradients() -> None:
    a, b = (torch.tensor([v], requires_grad=True) for v in (1.0, 2.0))
    update = descend(torch.optim.SGD([a], 0.1), torch.optim.SGD([b], 1.0))
    for k in range(2):
        update((3.0 * a + b).sum())
        assert a.item() == pytest.approx(1.0 - 0.3 * (k + 1))
        assert b.item() == pytest.approx(2.0 - (k + 1))


# -- smoothed moments -------------------------------------------------------------------------------------------------


def moments(*layers: tuple[list[float], list[float]], grad: bool = False) -> tuple[tuple[Tensor, Tensor], ...]:
    made = [tuple(torch.tensor(v, dtype=torch.float64, requires_grad=grad) for v in layer) for layer in layers]
    return tuple((m, v) for m, v in made)


ONE = moments(([1.0, 2.0], [3.0, 4.0]), ([5.0], [6.0]))
TWO = moments(([0.0, 4.0], [1.0, 2.0]), ([1.0], [2.0]))


def values(pairs: object) -> list[list[float]]:
    return [t.tolist() for pair in pairs for t in pair]  # type: ignore[attr-defined]


def test_the_first_call_is_not_smoothed_and_the_next_are() -> None:
    smooth = SmoothedMoments(0.75)
    assert values(smooth.blend(ONE)) == values(ONE)
    smooth.update(ONE)
    assert values(smooth.average) == values(ONE)
    blended = [[0.75, 2.5], [2.5, 3.5], [4.0], [5.0]]  # a quarter of TWO, three of ONE
    assert values(smooth.blend(TWO)) == blended
    assert values(smooth.blend(TWO)) == blended  # asking changes nothing
    smooth.update(TWO)
    assert values(smooth.average) == blended
    assert values(smooth.blend(ONE)) == [[0.8125, 2.375], [2.625, 3.625], [4.25], [5.25]]


def test_the_gradient_is_scaled_and_the_average_holds_none() -> None:
    smooth, batch = SmoothedMoments(0.9), moments(([1.0, 2.0], [3.0, 4.0]), grad=True)
    smooth.update(batch)
    assert not any(t.requires_grad for pair in smooth.average for t in pair)
    held = smooth.average[0][0].clone()
    with torch.no_grad():
        batch[0][0].add_(1.0)  # the average is no alias either
    assert torch.equal(smooth.average[0][0], held)
    sum(t.sum() for pair in smooth.blend(batch) for t in pair).backward()  # type: ignore[union-attr]
    for t in batch[0]:
        torch.testing.assert_close(t.grad, torch.full_like(t, 0.1))


def test_no_momentum_is_no_smoothing() -> None:
    smooth = SmoothedMoments(0.0)
    smooth.update(ONE)
    blended = smooth.blend(TWO)
    assert all(a is b for one, two in zip(blended, TWO, strict=True) for a, b in zip(one, two, strict=True))
    assert values(smooth.average) == values(ONE)


def test_smoothed_state_goes_round() -> None:
    smooth, twin = SmoothedMoments(0.9), SmoothedMoments(0.9)
    twin.load_state_dict(smooth.state_dict())
    assert twin.average == []
    for batch in (ONE, TWO):
        smooth.update(batch)
    twin.load_state_dict(smooth.state_dict())
    assert values(twin.blend(ONE)) == values(smooth.blend(ONE))
    assert values(twin.blend(ONE)) != values(ONE)


# -- the pool and what stands before it -------------------------------------------------------------------------------

mean, std = (torch.tensor(v).view(1, 2, 1, 1) for v in (MEAN, STD))


def inverter(capacity: int = 16, pool_bytes: str = "round", **task: bool | int) -> Inverter:
    return Inverter(make_context(**task), capacity, pool_bytes)  # type: ignore[arg-type]


def normalised(n: int, seed: int = 0) -> Tensor:
    return (torch.rand(n, 2, 8, 8, generator=stream(seed)) - mean) / std


def test_labels_are_uniform_or_in_turn() -> None:
    inv = inverter()
    drawn = inv.labels(600, stream())
    assert torch.bincount(drawn, minlength=CLASSES).min() > 160
    assert len(torch.bincount(drawn)) == CLASSES
    assert torch.equal(drawn, inv.labels(600, stream()))
    assert not torch.equal(drawn, inv.labels(600, stream(1)))
    rest = set()
    for seed in range(20):
        y = inv.labels(7, stream(seed), balanced=True).tolist()
        assert y[:6] == [0, 1, 2, 0, 1, 2]
        rest.add(y[6])
    assert rest == {0, 1, 2}
    assert inv.labels(6, stream(), balanced=True).tolist() == [0, 1, 2, 0, 1, 2]
    assert len(inv.labels(2, stream(), balanced=True)) == 2


def test_keep_stores_pixels_and_counts() -> None:
    inv = inverter(capacity=5)
    x, counts = normalised(4), inv.context.meter.counts  # type: ignore[attr-defined]
    inv.keep(x, torch.tensor([0, 1, 2, 0]))
    stored = (inv.pool.images.float() / 255.0 - mean) / std
    assert ((stored - x).abs() * std).max() <= 0.5 / 255.0 + 1e-6
    inv.keep(x, torch.tensor([2, 2, 2, 2]))
    assert (counts["images_synthesised"], counts["images_stored"], len(inv.pool)) == (8, 5, 5)
    assert inv.pool.labels.tolist() == [0, 2, 2, 2, 2]


def test_sample_gives_stored_images_normalised_once() -> None:
    inv = inverter()
    with pytest.raises(RunError, match="empty"):
        inv.sample(2, stream())
    inv.keep(normalised(6), torch.arange(6))
    batch = inv.sample(6, stream())
    assert batch.labels is not None
    expected = (inv.pool.images.float() / 255.0 - mean) / std
    assert torch.equal(batch.images, expected[batch.labels])
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(inv.sample(6, stream()).images, batch.images)


@pytest.mark.parametrize("call", ["sample", "augmented"])
def test_the_task_says_how_images_are_augmented(call: str) -> None:
    inv = inverter(crop_padding=2, flip=True)
    bright = ((0.5 + normalised(1) * std + mean).clamp(max=1.0) - mean) / std
    inv.keep(bright.expand(16, 2, 8, 8))
    x = inv.sample(16, stream()).images if call == "sample" else inv.augmented(bright.expand(64, 2, 8, 8), stream())
    assert len(torch.unique(x, dim=0)) > 5  # per sample
    torch.testing.assert_close(x.amin((0, 2, 3)), -(mean / std).flatten())  # padded with black, not with grey


def test_augmented_is_differentiable_and_nothing_where_the_task_has_none() -> None:
    x = normalised(2).double()
    assert torch.equal(inverter().augmented(x, stream()), x)
    jittery = inverter(crop_padding=1, flip=True)
    assert torch.autograd.gradcheck(lambda v: jittery.augmented(v, stream(2)), x.requires_grad_())


@pytest.mark.parametrize("form", ["truncate", "round"])
def test_preview_has_the_bytes_of_the_pool_and_stores_nothing(form: str) -> None:
    inv, asked = inverter(pool_bytes=form), []

    def make(n: int, s: torch.Generator) -> tuple[Tensor, Tensor]:
        asked.append(n)
        x = 1.5 * torch.randn(n, 2, 8, 8, generator=s)  # some beyond the range
        return x, torch.full((n,), len(asked))

    batch = inv.preview(10, stream(), make)
    assert asked == [4, 4, 2]  # at most a batch at a time
    assert inv.preview(5, stream(), make, size=3).images.shape[0] == 5
    assert asked[3:] == [3, 2]
    assert batch.images.shape == (10, 2, 8, 8)
    assert batch.labels is not None
    assert batch.labels.tolist() == [1] * 4 + [2] * 4 + [3] * 2
    levels = (batch.images * std + mean) * 255.0
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert levels.min() >= -1e-3
    assert levels.max() <= 255.001
    again = stream()
    x = torch.cat([make(n, again)[0] for n in (4, 4, 2)])
    expected = 255.0 * (x * std + mean).clamp(0.0, 1.0)
    assert torch.equal(levels.round(), expected.round() if form == "round" else expected.floor())
    assert len(inv.pool) == 0
    assert sum(inv.context.meter.counts.values()) == 0  # type: ignore[attr-defined]
    inv.keep(x, torch.zeros(len(x)))
    assert torch.equal(levels.round(), inv.pool.images.float())
    assert Inverter(make_context(), 4).pool.form == "truncate"
