"""The small CNNs and wide ResNets, and one interface that says the same whether traced or hooked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import fill
from torch import Tensor, nn

from dfkd_bench import models
from dfkd_bench.errors import RunError
from dfkd_bench.models.cnn import CNN
from dfkd_bench.models.count import count
from dfkd_bench.models.tapped import Hooked, Tapped, batch_moments, spatial_mean
from dfkd_bench.models.wrn import WRN


def test_sizes_by_hand() -> None:
    """The small networks' arithmetic: 3x3 convolutions at 16, 8, 8, 4, 4 pixels, and the last linear layer."""
    for width, name in ((32, "cnn32"), (16, "cnn16")):
        found = count(models.build(name, 10, (1, 16, 16)), (1, 16, 16))
        plan = [(1, width, 16), (width, 2 * width, 8), (2 * width, 2 * width, 8), (2 * width, 4 * width, 4)]
        macs = sum(9 * i * o * side**2 for i, o, side in [*plan, (4 * width, 96, 4)]) + 96 * 10
        assert found.macs == macs
        weights = sum((9 * i + 2) * o for i, o, _ in [*plan, (4 * width, 96, 4)]) + 96 * 10 + 10
        assert found.parameters == weights == {32: 241_642, 16: 89_146}[width]
        assert (found.bn_layers, found.bn_channels, found.features) == (5, 9 * width + 96, 96)


NETWORKS = {
    "cnn": lambda: CNN(4, 3, 2, 5),
    "wrn10_1": lambda: WRN(10, 1, 3, 2),
    "wrn16_2": lambda: models.build("wrn16_2", 3, (2, 16, 16)),
    "wrn40_1": lambda: models.build("wrn40_1", 3, (2, 16, 16)),
}


def network(name: str) -> Tapped:
    model: Tapped = NETWORKS[name]()
    fill(model, 1)
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_moments_are_made_in_fp32_at_least(dtype: torch.dtype) -> None:
    # 300^2 is beyond fp16, and 256 + 1/4 is not in bf16: a variance of values rounded there would be another
    x = (torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0)) + 100.0).to(dtype)
    mean, variance = batch_moments(x)
    assert mean.dtype == variance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = x.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean.double(), exact.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), exact.var(1, correction=0), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("name", "blocks"), [("wrn10_1", 1), ("wrn16_2", 2), ("wrn40_1", 6)])
def test_the_wide_resnet_is_pre_activated(name: str, blocks: int) -> None:
    """Against the computation of Zagoruyko & Komodakis, with stored statistics, written on the weights alone."""
    model, x = network(name).eval(), torch.randn(2, 2, 8, 8)
    w = model.state_dict()

    def activated(x: Tensor, norm: str) -> Tensor:
        mean, variance, gain, shift = (
            w[f"{norm}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (variance + 1e-5).sqrt() * gain + shift).clamp(min=0)

    out = F.conv2d(x, w["conv.weight"], padding=1)
    for group in range(3):
        for block in range(blocks):
            here, stride = f"groups.{group}.{block}", 2 if group and not block else 1
            first = activated(out, f"{here}.bn1")
            hidden = F.conv2d(first, w[f"{here}.conv1.weight"], padding=1, stride=stride)
            residual = out
            if f"{here}.shortcut.weight" in w:  # starts from the activated input
                residual = F.conv2d(first, w[f"{here}.shortcut.weight"], stride=stride)
            out = residual + F.conv2d(activated(hidden, f"{here}.bn2"), w[f"{here}.conv2.weight"], padding=1)
    features = activated(out, "bn").mean((2, 3))
    expected = features @ w["head.weight"].T + w["head.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_taps_that_are_not_there_are_refused() -> None:
    with pytest.raises(RunError, match="no tap 'stage4' in CNN; did you mean 'stage"):
        network("cnn").observe(torch.randn(2, 2, 8, 8), taps=("stage4",))
    with pytest.raises(RunError, match="penultimate features were not requested"):
        _ = network("cnn").observe(torch.randn(2, 2, 8, 8), taps=("stage2",)).features


# -- the adapter for foreign modules -------------------------------------------------------------------------------


class Foreign(nn.Module):
    """The small CNN's computation written as others would write it: no trace, its own names, layers out of order."""

    def __init__(self, native: CNN) -> None:
        super().__init__()
        self.classifier = native.head  # constructed first, used last
        self.stem = nn.Sequential(native.convs[0], native.norms[0], nn.ReLU())
        self.middle = nn.Sequential(
            nn.MaxPool2d(2), native.convs[1], native.norms[1], nn.ReLU(), native.convs[2], native.norms[2], nn.ReLU()
        )
        self.last = nn.Sequential(
            nn.MaxPool2d(2), native.convs[3], native.norms[3], nn.ReLU(), native.convs[4], native.norms[4], nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.pool(self.last(self.middle(self.stem(x)))).flatten(1))
        return out


@pytest.mark.parametrize("train", [True, False])
def test_hooks_and_native_trace_agree(train: bool) -> None:
    native, twin = network("cnn"), network("cnn")
    assert isinstance(twin, CNN)
    hooked = Hooked(Foreign(twin), taps=("stem", "middle", "last"))
    assert hooked.tap_names == ("stem", "middle", "last", "penultimate")
    assert hooked.feature_dim == native.feature_dim
    native.train(train)
    hooked.train(train)
    x = torch.randn(4, 2, 8, 8, requires_grad=True)
    ours = native.observe(x, taps=native.tap_names, moments=True)
    theirs = hooked.observe(x, taps=hooked.tap_names, moments=True)
    torch.testing.assert_close(theirs.logits, ours.logits)
    for mine, other in zip(ours.taps.values(), theirs.taps.values(), strict=True):
        torch.testing.assert_close(other, mine)
    assert len(theirs.moments) == 5
    for mine, other, name in zip(ours.moments, theirs.moments, range(5), strict=True):
        torch.testing.assert_close(other, mine, msg=str(name))
    for mine, other in zip(native.running_moments(), hooked.running_moments(), strict=True):
        torch.testing.assert_close(other, mine)
    # gradients come through, and no hook is left behind
    gradients = [
        torch.autograd.grad(out.logits.sum() + sum(v.sum() for _, v in out.moments), x)[0] for out in (ours, theirs)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hooked.modules())
    plain = hooked.observe(x)
    assert (plain.taps, plain.moments) == ({}, ())


def test_hooks_are_gone_after_an_error() -> None:
    hooked = Hooked(Foreign(CNN(4, 3, 2, 5)), taps=("stem",))
    with pytest.raises(RuntimeError):
        hooked.observe(torch.randn(2, 7, 8, 8), taps=hooked.tap_names, moments=True)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hooked.modules())


def test_hooked_refuses_what_is_not_there() -> None:
    foreign = Foreign(CNN(4, 3, 2, 5))
    with pytest.raises(RunError, match="no module 'stam'; did you mean 'stem'"):
        Hooked(foreign, taps=("stam",))
    with pytest.raises(RunError, match="no module 'fc'"):
        Hooked(foreign, head="fc")
    with pytest.raises(RunError, match="no linear layer"):
        Hooked(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten()))
    with pytest.raises(RunError, match="no tap 'middle'"):
        Hooked(foreign, taps=("stem",)).observe(torch.randn(2, 2, 8, 8), taps=("middle",))
    # a head that is no linear layer, named by hand
    body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1), nn.Flatten())
    assert Hooked(body, head="2").observe(torch.randn(2, 2, 8, 8), taps=("penultimate",)).features.shape == (2, 4)


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (2, 96, 8, 8), (4, 7, 1, 1), (2, 3, 5, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_over_space_is_the_plain_one_with_a_gradient_laid_out_as_the_maps(
    shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    stream = torch.Generator().manual_seed(0)
    maps = torch.randn(shape, generator=stream).to(dtype)
    weights = torch.randn(shape[:2], generator=stream).to(dtype)
    gradients: list[Tensor] = []
    for mean in (spatial_mean, lambda x: x.mean((2, 3))):
        x = maps.to(memory_format=torch.channels_last).requires_grad_()
        y = x * 1.0
        y.register_hook(gradients.append)
        (mean(y) * weights).sum().backward()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.0, atol=0.0)
    torch.testing.assert_close(spatial_mean(maps), maps.mean((2, 3)), rtol=1e-5, atol=1e-6)
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)
