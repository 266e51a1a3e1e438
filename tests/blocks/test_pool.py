"""Stores: the byte pool, the feature queue, the feature bank."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contexts import stream
from tiny import CPU
from torch import Tensor

from dfkd_bench.blocks.pool import FeatureBank, FeatureQueue, ImagePool
from dfkd_bench.errors import RunError


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint takes it: plain containers and tensors."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def grey(*levels: int) -> Tensor:
    """One 1x2x2 image per level of 255."""
    return (torch.tensor(levels, dtype=torch.float64).view(-1, 1, 1, 1) / 255.0).expand(-1, 1, 2, 2)


def pool(capacity: int = 8) -> ImagePool:
    return ImagePool(capacity, (1, 2, 2), CPU, "round")  # so that a level comes back as it was


def levels(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


# -- images -----------------------------------------------------------------------------------------------------------


def test_a_byte_is_the_pixel_cut_off_or_the_nearest_level() -> None:
    x = torch.rand(100, 3, 8, 8, generator=stream())
    error = {}
    for form in ("truncate", "round"):
        store = ImagePool(1000, (3, 8, 8), CPU, form)
        store.add(x)
        error[form] = 255.0 * x.double() - store.images.double()
    assert error["truncate"].min() >= 0.0
    assert error["truncate"].max() < 1.0
    assert error["truncate"].mean().item() == pytest.approx(0.5, abs=0.01)  # half a grey level darker
    assert error["round"].abs().max() <= 0.5 + 1e-4
    assert abs(error["round"].mean()) < 0.01
    exact = pool(256)
    exact.add(grey(*range(256)).float())
    assert levels(exact.images) == list(range(256))


@pytest.mark.parametrize("form", ["truncate", "round"])
def test_what_is_beyond_the_range_is_cut(form: str) -> None:
    store = ImagePool(8, (1, 2, 2), CPU, form)
    store.add(torch.tensor([-0.3, 0.0, 1.0, 1.7, 300.0]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2))
    assert levels(store.images) == [0, 0, 255, 255, 255]


def test_a_form_of_bytes_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown form of bytes 'floor': truncate or round"):
        ImagePool(8, (1, 2, 2), CPU, "floor")


def test_a_pool_starts_empty_and_says_so() -> None:
    store = pool()
    assert len(store) == 0
    with pytest.raises(RunError, match="the image pool is empty: synthesise before distilling"):
        store.draw(1, stream())
    with pytest.raises(ValueError, match="the capacity of a pool is at least 1, got 0"):
        pool(0)


def test_the_oldest_go_when_it_is_full() -> None:
    store = pool(5)
    grown = [store.add(grey(*r), torch.tensor(r)) for r in ([1, 2], [3, 4], [5, 6], [7])]
    assert grown == [2, 2, 1, 0]
    assert levels(store.images) == store.labels.tolist() == [3, 4, 5, 6, 7]
    assert store.add(grey(*range(10, 20)), torch.arange(10, 20)) == 0
    assert levels(store.images) == store.labels.tolist() == [15, 16, 17, 18, 19]


@pytest.mark.parametrize("labels_first", [True, False])
def test_labels_of_all_or_none(labels_first: bool) -> None:
    store, labels = pool(), torch.tensor([0])
    store.add(grey(1), labels if labels_first else None)
    store.add(grey(2), labels if labels_first else None)
    with pytest.raises(RunError, match="either all images of a pool have labels or none"):
        store.add(grey(3), None if labels_first else labels)
    assert len(store) == 2
    drawn = store.draw(2, stream())[1]
    assert (drawn is not None) is labels_first


def test_draws_without_repetition_while_there_are_enough() -> None:
    store = pool(32)
    store.add(grey(*range(16)), 100 + torch.arange(16))
    for n in (1, 8, 16):
        images, labels = store.draw(n, stream(n))
        assert labels is not None
        assert len(set(levels(images))) == n
        assert [100 + level for level in levels(images)] == labels.tolist()
        assert images.dtype == torch.uint8
    images, _ = store.draw(40, stream())
    assert len(images) == 40
    assert len(set(levels(images))) > 8  # with repetition, over all of them


def test_draws_are_a_function_of_their_stream() -> None:
    store = pool(32)
    store.add(grey(*range(20)))
    first, again, other = (levels(store.draw(10, stream(k))[0]) for k in (1, 1, 2))
    assert first == again
    assert first != other
    seen = {level for k in range(30) for level in levels(store.draw(5, stream(k))[0])}
    assert seen == set(range(20))


def test_pool_state_goes_round() -> None:
    store, twin = pool(3), pool(3)
    store.add(grey(1, 2, 3), torch.tensor([7, 8, 9]))
    twin.load_state_dict(through_a_file(store.state_dict()))
    for s in (store, twin):
        s.add(grey(4), torch.tensor([5]))
    assert levels(twin.images) == [2, 3, 4]
    assert torch.equal(store.images, twin.images)
    assert torch.equal(store.labels, twin.labels)
    assert torch.equal(store.draw(2, stream())[0], twin.draw(2, stream())[0])


# -- the queue --------------------------------------------------------------------------------------------------------


def units(n: int, seed: int, dim: int = 4) -> Tensor:
    return F.normalize(torch.randn(n, dim, generator=stream(seed)), dim=1)


def queue(size: int = 6, batch: int = 2) -> FeatureQueue:
    torch.manual_seed(0)
    return FeatureQueue(4, size, batch, CPU)


def test_a_queue_starts_as_random_unit_vectors() -> None:
    columns = queue(64, 8).columns
    assert tuple(columns.shape) == (4, 64)
    torch.testing.assert_close(columns.norm(dim=0), torch.ones(64))
    assert torch.equal(columns, queue(64, 8).columns)
    assert columns.mean().abs() < 0.1
    assert torch.unique(columns, dim=1).shape[1] == 64


def test_first_in_first_out() -> None:
    q = queue()
    start = q.columns.clone()
    batches = [units(2, k) for k in range(4)]
    q.push(batches[0])
    assert torch.equal(q.columns[:, :2], batches[0].T)
    assert torch.equal(q.columns[:, 2:], start[:, 2:])
    for batch in batches[1:]:
        q.push(batch)
    held = {tuple(column) for column in q.columns.T.tolist()}
    assert held == {tuple(row) for batch in batches[1:] for row in batch.tolist()}  # the first batch has left
    torch.testing.assert_close(q.columns.norm(dim=0), torch.ones(6))


@pytest.mark.parametrize(("size", "batch"), [(6, 4), (4096, 768), (2, 4), (0, 4)])
def test_a_queue_that_a_batch_does_not_divide_is_refused(size: int, batch: int) -> None:
    with pytest.raises(ValueError, match=f"size {size} is not a multiple of the batch {batch}"):
        FeatureQueue(4, size, batch, CPU)


def test_a_push_that_does_not_fit_is_refused() -> None:
    q = queue()
    for n in (1, 3, 4, 12):
        with pytest.raises(RunError, match=f"the queue needs 2 vectors at a time, got {n}"):
            q.push(units(n, 0))


def test_a_loss_on_the_queue_survives_the_next_push() -> None:
    q = queue()
    taken, before = q.columns, q.columns.clone()
    anchors = units(2, 1).requires_grad_()
    loss = (anchors @ taken).exp().sum()
    q.push(units(2, 2).requires_grad_())
    assert torch.equal(taken, before)
    loss.backward()
    assert anchors.grad is not None
    torch.testing.assert_close(anchors.grad, (anchors @ before).exp().detach() @ before.T)
    assert not q.columns.requires_grad  # nothing of the graph is kept


def test_queue_state_goes_round() -> None:
    q, twin = queue(), FeatureQueue(4, 6, 2, CPU)
    q.push(units(2, 0))
    twin.load_state_dict(through_a_file(q.state_dict()))
    for one in (q, twin):
        one.push(units(2, 1))
        one.push(units(2, 2))
        one.push(units(2, 3))
    assert torch.equal(q.columns, twin.columns)


# -- the bank ---------------------------------------------------------------------------------------------------------


def rows(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 3)


def test_a_bank_keeps_views_together_and_drops_the_oldest() -> None:
    bank = FeatureBank(5, 3, 2, CPU)
    assert len(bank) == 0
    assert [tuple(v.shape) for v in bank.draw(4, stream())] == [(0, 3), (0, 3)]
    for batch in ([1, 2], [3, 4], [5, 6]):
        bank.push(rows(*batch), 10.0 * rows(*batch))
    assert len(bank) == 5
    first, second = bank.draw(5, stream())
    assert torch.equal(second, 10.0 * first)
    assert set(first[:, 0].tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0}
    assert len(bank.draw(99, stream())[0]) == 5  # at most what it holds, each once
    assert len({*bank.draw(3, stream(1))[0][:, 0].tolist()}) == 3


def test_a_bank_holds_no_graph_and_draws_by_its_stream() -> None:
    bank = FeatureBank(16, 3, 1, CPU)
    bank.push(rows(*range(10)).clone().requires_grad_())
    assert not bank.rows.requires_grad
    first, again, other = (bank.draw(6, stream(k))[0] for k in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    twin = FeatureBank(16, 3, 1, CPU)
    twin.load_state_dict(through_a_file(bank.state_dict()))
    assert torch.equal(twin.draw(6, stream(1))[0], first)
