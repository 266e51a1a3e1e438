"""The moving average of a module, against the same sum written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import same, state, stream
from tiny import fill
from torch import nn

from dfkd_bench.blocks.ema import EMA


def module(seed: int = 1) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    fill(net, seed)
    return net.double()


def train(net: nn.Module, seed: int) -> None:
    """Move parameters and statistics."""
    net(torch.randn(4, 1, 5, 5, generator=stream(seed), dtype=torch.float64))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=stream(seed), dtype=p.dtype))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999, 1.0])
def test_parameters_and_statistics_are_averaged_and_counters_copied(momentum: float) -> None:
    net = module()
    ema = EMA(net, momentum)
    history = [state(net)]
    for k in range(3):
        train(net, k)
        ema.update()
        history.append(state(net))
    for name, slow in ema.module.state_dict().items():
        values = [h[name].numpy() for h in history]
        if name.endswith("num_batches_tracked"):
            assert slow.item() == values[-1].item() == 3
            continue
        expected = values[0]
        for value in values[1:]:
            expected = momentum * expected + (1.0 - momentum) * value
        np.testing.assert_allclose(slow.numpy(), expected, rtol=1e-12)
    assert not np.allclose(history[0]["1.running_mean"], history[-1]["1.running_mean"])


def test_the_copy_is_a_copy_without_gradients_and_the_source_stays() -> None:
    net = module()
    ema = EMA(net, 0.5)
    assert same(state(net), state(ema.module))
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert all(p.requires_grad for p in net.parameters())
    train(net, 0)
    now = state(net)
    assert not same(now, state(ema.module))
    ema.update()
    assert same(state(net), now)
    assert all(p.grad is None for p in (*net.parameters(), *ema.module.parameters()))
    # gradients still pass through it, to whatever was put in
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    ema.module(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_state_goes_round_and_holds_the_copy_alone() -> None:
    net = module()
    ema = EMA(net, 0.9)
    train(net, 0)
    ema.update()
    twin = EMA(net, 0.9)
    assert not same(state(ema), state(twin))
    twin.load_state_dict(state(ema))
    train(net, 1)
    ema.update()
    twin.update()
    assert same(state(ema), state(twin))
    assert len(list(ema.parameters())) == len(list(net.parameters()))  # the source is counted and saved elsewhere
    assert len(ema.state_dict()) == len(net.state_dict())


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        EMA(module(), momentum)
