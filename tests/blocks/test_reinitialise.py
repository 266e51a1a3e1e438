"""Drawing a generator anew: distributions, statistics, the stream, and what stays the same object."""

from __future__ import annotations

import pytest
import torch
from contexts import same, state, stream
from tiny import fill
from torch import Tensor, nn

from dfkd_bench.blocks.generators import DeepGenerator, Generator, reinitialise


def build(name: str) -> nn.Module:
    if name == "spectral":
        return Generator((1, 8, 8), 16, 16, bias=True, spectral=True)
    return Generator((1, 8, 8), 16, 16, bias=True) if name == "plain" else DeepGenerator((1, 16, 16), 16, 8)


def stored(model: nn.Module, ending: str) -> list[Tensor]:
    return [v for k, v in model.state_dict().items() if k.endswith(ending)]


@pytest.mark.parametrize("name", ["plain", "spectral", "transposed"])
def test_reinitialise_draws_everything_anew(name: str) -> None:
    model = build(name)
    fill(model, 5)
    before = state(model)
    reinitialise(model, 0.02, stream(1))
    after = model.state_dict()
    weights = [v for k, v in after.items() if v.dim() > 1]
    assert len(weights) == {"plain": 4, "spectral": 4, "transposed": 6}[name]
    for w in weights:
        expected = 0.02 / w.numel() ** 0.5
        assert abs(w.mean().item()) < 4 * expected
        assert w.std().item() == pytest.approx(0.02, rel=4 / (2 * w.numel()) ** 0.5)
    gains = torch.cat([m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.affine])
    assert gains.mean().item() == pytest.approx(1.0, abs=0.01)
    assert gains.std().item() == pytest.approx(0.02, rel=0.4)
    assert all(torch.equal(b, torch.zeros_like(b)) for b in stored(model, "bias"))
    assert all(torch.equal(m, torch.zeros_like(m)) for m in stored(model, "running_mean"))
    assert all(torch.equal(v, torch.ones_like(v)) for v in stored(model, "running_var"))
    unchanged = {k for k in after if torch.equal(after[k], before[k])}
    assert all(k.endswith(("_u", "_v", "num_batches_tracked")) for k in unchanged)


@pytest.mark.parametrize("name", ["plain", "spectral", "transposed"])
def test_without_a_deviation_the_law_is_torchs_own(name: str) -> None:
    model = build(name)
    fill(model, 5)
    reinitialise(model, None, stream(1))
    made = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    assert len(made) == {"plain": 4, "spectral": 4, "transposed": 6}[name]
    for layer in made:
        w = dict(layer.named_parameters()).get("parametrizations.weight.original", layer.weight)
        usual = type(layer)(*shape(layer)).weight
        bound = w[0].numel() ** -0.5  # kaiming_uniform_ with a = sqrt(5)
        assert bound * 0.9 < w.abs().max().item() <= bound
        assert usual.abs().max().item() == pytest.approx(bound, rel=0.1)
        assert w.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        if layer.bias is not None:
            assert 0 < layer.bias.abs().max().item() <= bound
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.affine):
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))
    assert all(torch.equal(m, torch.zeros_like(m)) for m in stored(model, "running_mean"))
    assert all(torch.equal(v, torch.ones_like(v)) for v in stored(model, "running_var"))


def shape(layer: nn.Module) -> tuple[int, ...]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels, layer.kernel_size[0]  # type: ignore[union-attr,index,return-value]


def test_reinitialise_is_a_function_of_its_stream_and_leaves_the_global_one_alone() -> None:
    models = [build("plain") for _ in range(3)]
    torch.manual_seed(7)
    now = torch.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        reinitialise(model, 0.02, stream(seed))
    assert torch.equal(torch.get_rng_state(), now)
    first, second, third = (state(m) for m in models)
    assert same(first, second)
    assert not same(first, third)
    reinitialise(models[0])
    assert not torch.equal(torch.get_rng_state(), now)


def test_reinitialise_keeps_the_optimisers_parameters_and_can_take_one_layer() -> None:
    model = build("plain")
    assert isinstance(model, Generator)
    parameters, before = [id(p) for p in model.parameters()], state(model)
    reinitialise(model.fc, 0.02, stream())
    assert [id(p) for p in model.parameters()] == parameters
    assert all(p.requires_grad for p in model.parameters())
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"fc.weight", "fc.bias"}


def test_the_transposed_generator_starts_small() -> None:
    model = DeepGenerator((1, 16, 16), 64, 8)
    assert model.fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.convs[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
