"""First-order meta-learning: steps worked out by hand on a quadratic, and on a network."""

from __future__ import annotations

import pytest
import torch
from contexts import same, state, stream
from tiny import fill
from torch import Tensor, nn

from dfkd_bench.blocks.inversion import descend
from dfkd_bench.blocks.meta import MetaLearner

FAST, SLOW = 0.1, 0.5


class Quadratic(nn.Module):
    """loss = sum of a (w - c)^2 / 2, whose gradient is a (w - c)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))

    def forward(self, c: Tensor) -> Tensor:
        return (A * (self.w - c).square()).sum() / 2


A = torch.tensor([2.0, 4.0], dtype=torch.float64)
C = [torch.tensor(c, dtype=torch.float64) for c in ([0.5, 1.0], [-1.0, 0.0], [3.0, 2.0])]


def learn(kind: str, k: int, factor: float = 67.0) -> tuple[Quadratic, MetaLearner]:
    """One adaptation of k steps of SGD, and one step of the module."""
    net = Quadratic()
    meta = MetaLearner(net, torch.optim.SGD(net.parameters(), SLOW), kind, factor)
    fast = meta.start()
    update = descend(torch.optim.SGD(fast.parameters(), FAST))
    for c in C[:k]:
        update(fast(c))
        meta.collect()
    meta.finish()
    return net, meta


def by_hand(k: int) -> tuple[Tensor, Tensor]:
    """The sum of the gradients on the way, and where the way ends."""
    w, total = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for c in C[:k]:
        g = A * (w - c)
        total, w = total + g, w - FAST * g
    return total, w


@pytest.mark.parametrize("k", [1, 2, 3])
def test_fomaml_steps_along_the_sum_of_the_copys_gradients(k: int) -> None:
    start = Quadratic().w.detach()
    net, meta = learn("fomaml", k)
    total, end = by_hand(k)
    torch.testing.assert_close(net.w.detach(), start - SLOW * total)
    torch.testing.assert_close(meta.fast.w.detach(), end)  # the copy itself went its own way


def test_fomaml_by_hand() -> None:
    # k = 1: gradient (2 * 0.5, 4 * -3) = (1, -12)
    assert learn("fomaml", 1)[0].w.tolist() == pytest.approx([1.0 - 0.5 * 1.0, -2.0 + 0.5 * 12.0])
    # k = 2: the copy is at (0.9, -0.8), where the second gradient is (2 * 1.9, 4 * -0.8)
    assert learn("fomaml", 2)[0].w.tolist() == pytest.approx([1.0 - 0.5 * 4.8, -2.0 + 0.5 * 15.2])


def test_fomaml_of_one_step_is_the_plain_step_on_a_network() -> None:
    def network() -> nn.Module:
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        fill(net, 3)
        return net.double()

    x = torch.randn(6, 4, generator=stream(), dtype=torch.float64)
    plain, net = network(), network()
    optimiser = torch.optim.SGD(plain.parameters(), SLOW, momentum=0.9)
    meta = MetaLearner(net, torch.optim.SGD(net.parameters(), SLOW, momentum=0.9))
    inner = torch.optim.SGD(meta.fast.parameters(), FAST)
    for _ in range(3):
        optimiser.zero_grad()
        plain(x).square().mean().backward()
        optimiser.step()
        descend(inner)(meta.start()(x).square().mean())
        meta.collect()
        meta.finish()
        for p, q in zip(plain.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(q, p, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("factor", [1.0, 67.0])
def test_reptile_goes_towards_the_adapted_copy(factor: float) -> None:
    start = Quadratic().w.detach()
    net, _ = learn("reptile", 3, factor)
    end = by_hand(3)[1]
    torch.testing.assert_close(net.w.detach(), start + SLOW * factor * (end - start))
    if factor == 1.0:  # half of the way
        assert (net.w.detach() - end).norm() < (start - end).norm()


def test_each_adaptation_starts_where_the_module_is_and_collects_anew() -> None:
    net, meta = learn("fomaml", 2)
    assert not same(state(net), state(meta.fast))
    meta.fast.eval()
    fast = meta.start()
    assert fast is meta.fast  # built once
    assert same(state(net), state(fast))
    assert fast.training
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in net.parameters())  # type: ignore[arg-type]
    net.eval()
    assert not meta.start().training


def test_the_copys_steps_do_not_move_the_module_before_finish() -> None:
    net = Quadratic()
    meta = MetaLearner(net, torch.optim.SGD(net.parameters(), SLOW))
    before, fast = state(net), meta.start()
    descend(torch.optim.SGD(fast.parameters(), FAST))(fast(C[0]))
    meta.collect()
    assert same(state(net), before)
    rates: list[float] = []

    def halve() -> None:
        rates.append(meta.optimiser.param_groups[0]["lr"])
        meta.optimiser.param_groups[0]["lr"] = SLOW / 2

    meta.finish(before=halve)
    torch.testing.assert_close(net.w.detach(), before["w"] - SLOW / 2 * by_hand(1)[0])
    assert rates == [SLOW]


def test_an_unknown_kind_is_refused() -> None:
    net = Quadratic()
    with pytest.raises(ValueError, match="unknown meta-learning 'maml': fomaml or reptile"):
        MetaLearner(net, torch.optim.SGD(net.parameters(), 0.1), "maml")
