"""BatchNorm with everything fixed, and moments in few passes: the layer's numbers, gradients, and when it is used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from speedups import normalise_in_many_passes
from torch import Tensor, nn

from dfkd_bench.blocks.observed_norm import fixed_norm, is_fixed, observed_moments, observed_norm
from dfkd_bench.models.tapped import batch_moments


def layer(affine: bool = True) -> nn.BatchNorm2d:
    torch.manual_seed(0)
    made = nn.BatchNorm2d(4, affine=affine).double().eval().requires_grad_(False)
    assert made.running_mean is not None
    assert made.running_var is not None
    made.running_mean.normal_()
    made.running_var.uniform_(0.5, 2.0)
    if affine:
        made.weight.normal_()
        made.bias.normal_()
    return made


def images() -> Tensor:
    torch.manual_seed(1)
    x = 3 + 2 * torch.randn(5, 4, 6, 7, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def by_hand(bn: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The definitions, written out."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    m_r, v_r = (s[:, None, None] for s in (bn.running_mean, bn.running_var))
    y = (x - m_r) / torch.sqrt(v_r + bn.eps)
    if bn.affine:
        y = bn.weight[:, None, None] * y + bn.bias[:, None, None]
    values = x.transpose(0, 1).flatten(1)
    m = values.sum(1) / values.shape[1]
    return y, m, (values - m[:, None]).pow(2).sum(1) / values.shape[1]


@pytest.mark.parametrize("affine", [True, False])
def test_numbers_and_gradients_are_those_of_the_definitions(affine: bool) -> None:
    bn, x = layer(affine), images()
    found, wanted = observed_norm(bn, x), by_hand(bn, x)
    weights = [torch.randn_like(part) for part in wanted]
    for mine, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fixed_norm(bn, x), wanted[0], rtol=1e-12, atol=1e-12)
    for parts in ([0], [1], [2], [0, 1, 2]):
        mine, right = (
            torch.autograd.grad(sum((weights[k] * outputs[k]).sum() for k in parts), x, retain_graph=True)[0]
            for outputs in (found, wanted)
        )
        assert right.norm() > 1e-3
        torch.testing.assert_close(mine, right, rtol=1e-10, atol=1e-12)
        assert mine.is_contiguous(memory_format=torch.channels_last)
    (alone,) = torch.autograd.grad((weights[0] * fixed_norm(bn, x)).sum(), x)
    torch.testing.assert_close(alone, torch.autograd.grad((weights[0] * wanted[0]).sum(), x)[0])


def test_in_fp32_it_is_as_exact_as_the_library() -> None:
    bn, x = layer().float(), images().detach().float()
    exact = by_hand(copy.deepcopy(bn).double(), x.double())
    library = (bn(x), *batch_moments(x))
    for mine, theirs, right in zip(observed_norm(bn, x), library, exact, strict=True):
        error = (mine - right).abs().max() / right.abs().max()
        assert error < 1e-6
        assert error < 4 * (theirs - right).abs().max() / right.abs().max() + 1e-7


def test_it_can_be_differentiated_twice() -> None:
    x = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradgradcheck(lambda x: observed_norm(layer(), x), (x,))


def test_moments_alone_send_back_the_same_gradient() -> None:
    x = images()
    found, wanted = observed_moments(x), by_hand(layer(), x)[1:]
    weights = [torch.randn(4, dtype=torch.float64) for _ in wanted]
    gradients = []
    for outputs in (found, wanted):
        (g,) = torch.autograd.grad(sum((w * o).sum() for w, o in zip(weights, outputs, strict=True)), x)
        gradients.append(g)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    y = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradgradcheck(observed_moments, (y,))


def test_when_a_layer_is_fixed() -> None:
    bn, x = layer(), images()
    assert is_fixed(bn, x)
    assert not is_fixed(bn.train(), x)
    bn.eval().requires_grad_(True)
    assert not is_fixed(bn, x)  # its weights learn
    with torch.no_grad():
        assert is_fixed(bn, x)
    bn.requires_grad_(False)
    assert not is_fixed(bn, x.bfloat16())
    assert not is_fixed(bn, x.float())  # the layer is of another format
    assert not is_fixed(nn.BatchNorm2d(4, track_running_stats=False).eval().requires_grad_(False), x)
    assert not is_fixed(bn, x.to("meta"))
    hook = bn.register_forward_pre_hook(lambda module, inputs: None)
    assert not is_fixed(bn, x)  # somebody wants it to be called
    hook.remove()
    assert is_fixed(bn, x)


@pytest.mark.parametrize("observed", [True, False])
def test_a_network_gives_the_same_by_either_way(observed: bool, monkeypatch: Any) -> None:
    from dfkd_bench import models
    from dfkd_bench.models import tapped

    torch.manual_seed(0)
    net = models.build("wrn16_1", 3, (3, 8, 8)).double().eval().requires_grad_(False)
    for bn in net.bn_layers():
        assert bn.running_var is not None
        bn.running_var.uniform_(0.5, 2.0)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    outcomes = []
    for way in (tapped.normalise, normalise_in_many_passes):
        monkeypatch.setattr(tapped, "normalise", way)
        out = net.observe(x, moments=observed)
        value = out.logits.square().sum() + sum(m.sum() + v.square().sum() for m, v in out.moments)
        outcomes.append((len(out.moments), out.logits, torch.autograd.grad(value, x)[0]))
    assert outcomes[0][0] == outcomes[1][0] == (len(net.bn_layers()) if observed else 0)
    torch.testing.assert_close(outcomes[0][1:], outcomes[1][1:], rtol=1e-9, atol=1e-12)
