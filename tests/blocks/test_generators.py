"""Generators: published sizes, output spaces, the computation itself against NumPy, labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference_blocks as ref
import torch
import torch.nn.functional as F
from contexts import stream
from tiny import fill
from torch import Tensor, nn

from dfkd_bench.blocks.generators import (
    DEEP,
    LARGE,
    SMALL,
    ConditionalGenerator,
    DeepConditionalGenerator,
    DeepGenerator,
    Generator,
    LabelledGenerator,
)

PX32, PX64 = (3, 32, 32), (3, 64, 64)


def labelled(classes: int, kind: str = "embedding") -> LabelledGenerator:
    def inner(d: int) -> nn.Module:
        return Generator(PX32, d, 64, plan=SMALL, output="tanh_bn", bias=True)

    return LabelledGenerator(inner, 256, classes, kind=kind)


def deep_labelled(side: int, classes: int) -> LabelledGenerator:
    return LabelledGenerator(lambda d: DeepGenerator((3, side, side), d), 256, classes)


# as published, or as the specifications count them
SIZES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "large, latent 256": (lambda: Generator(PX32, 256, plan=LARGE), 4_581_955),
    "large, latent 512": (lambda: Generator(PX32, 512, plan=LARGE), 8_776_259),
    "large, latent 1024": (lambda: Generator(PX32, 1024, plan=LARGE), 17_164_867),
    "deep plan, 64 px": (lambda: Generator(PX64, 1024, plan=DEEP), 35_139_139),
    "labelled, 10 classes": (lambda: labelled(10), 2_739_191),
    "labelled, 100 classes": (lambda: labelled(100), 2_743_691),
    "labelled, one-hot": (lambda: labelled(50, "onehot"), 2_739_191 - 500),  # a code of 50 without a table
    "transposed, 64 px, 200 classes": (lambda: deep_labelled(64, 200), 5_346_771),
}
ROUNDED: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "small": (lambda: Generator(PX32, 256), 2.33),
    "small, tanh": (lambda: Generator(PX32, 256, output="tanh_bn", bias=True), 2.33),
    "small, bn, latent 100": (lambda: Generator(PX32, 100, output="bn", bias=True), 1.05),
    "transposed, 128 px, 101 classes": (lambda: deep_labelled(128, 101), 12.9),
    "transposed, 224 px, 100 classes": (lambda: deep_labelled(224, 100), 33.6),
}


def count(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):  # shapes alone
        return sum(p.numel() for p in build().parameters())


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    build, expected = SIZES[name]
    assert count(build) == expected


@pytest.mark.parametrize("name", ROUNDED)
def test_sizes_known_in_millions(name: str) -> None:
    build, millions = ROUNDED[name]
    assert count(build) / 1e6 == pytest.approx(millions, abs=0.06 if millions > 10 else 0.006)


# name: builder of 8 px (16 for the transposed), plan's blocks, first map, end
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], int, str]] = {
    "sigmoid": (lambda: Generator((2, 8, 8), 3, 2), (4, 2, 2), 2, "sigmoid"),
    "tanh_bn": (lambda: Generator((1, 8, 4), 3, 1, plan=LARGE, output="tanh_bn", bias=True), (4, 2, 1), 2, "tanh_bn"),
    "bn": (lambda: Generator((2, 8, 8), 3, 1, plan=DEEP, output="bn"), (8, 1, 1), 3, "bn"),
    "transposed": (lambda: DeepGenerator((2, 16, 16), 3, 1), (8, 1, 1), 4, "tanh_bn"),
}


@pytest.mark.parametrize("name", NETS)
def test_images_are_those_of_the_formula(name: str) -> None:
    build, start, blocks, end = NETS[name]
    model = build()
    fill(model, 3)
    model.double().eval()
    z = np.random.RandomState(0).standard_normal((2, 3))
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    expected = [ref.painted(row, weights, start, blocks, end, deep=name == "transposed") for row in z]
    with torch.no_grad():
        found = model(torch.tensor(z)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert found.std() > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_output_spaces(name: str) -> None:
    model = NETS[name][0]()
    fill(model, 3)
    if name == "bn":
        nn.init.ones_(model.end.weight)
        nn.init.zeros_(model.end.bias)
    assert model.output_space == ("image01" if name == "sigmoid" else "normalised")
    x = model(torch.randn(32, 3, generator=stream()))
    assert x.shape[0] == 32
    if name == "sigmoid":
        assert 0.0 < x.min() < x.max() < 1.0
    else:  # in train mode the last norm standardises every channel
        torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(x.shape[1]), rtol=0, atol=1e-5)
        torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(x.shape[1]), rtol=0, atol=5e-3)
    trainable_end = name == "bn"
    assert any(k.startswith("end") for k, _ in model.named_parameters()) is trainable_end


def test_a_spectral_generator_holds_every_layer_to_norm_one() -> None:
    model = Generator((2, 8, 8), 3, 2, spectral=True)
    fill(model, 3)
    for _ in range(50):
        model(torch.randn(4, 3, generator=stream()))  # each forward is a step of power iteration
    layers = [model.fc, *model.convs, model.out]
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, rel=1e-2)
    plain = Generator((2, 8, 8), 3, 2)
    fill(plain, 3)
    assert torch.linalg.matrix_norm(plain.fc.weight, 2).item() > 1.2


def test_gradient_reaches_every_weight_and_the_latent() -> None:
    for build, *_ in NETS.values():
        model, z = build(), torch.randn(8, 3, generator=stream()).requires_grad_()
        (model(z) * torch.randn(8, *model(z).shape[1:], generator=stream(1))).sum().backward()
        assert z.grad is not None
        assert z.grad.abs().max() > 0
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "divisor"),
    [
        (lambda side: Generator((1, 8, side), plan=SMALL), 4),
        (lambda side: Generator((1, side, 8), plan=DEEP), 8),
        (lambda side: DeepGenerator((1, 16, side)), 16),
        (lambda side: ConditionalGenerator((3, side, 32), 10), 4),
        (lambda side: DeepConditionalGenerator((3, 32, side), 10), 16),
    ],
)
def test_sides_that_do_not_divide_are_refused(build: Callable[[int], nn.Module], divisor: int) -> None:
    with pytest.raises(ValueError, match=f"divisible by {divisor}, got"):
        build(divisor + 2)
    with torch.device("meta"):
        build(2 * divisor)


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown output 'tanh': sigmoid, tanh_bn or bn"):
        Generator((1, 8, 8), output="tanh")


# -- labels -----------------------------------------------------------------------------------------------------------


class Echo(nn.Module):
    output_space = "normalised"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, z: Tensor) -> Tensor:
        return z


def test_labels_stand_behind_the_latent() -> None:
    z, y = torch.randn(4, 6), torch.tensor([2, 0, 2, 1])
    hot = LabelledGenerator(Echo, 6, 3, kind="onehot")
    assert (hot.generator.size, hot.output_space, list(hot.parameters())) == (9, "normalised", [])
    assert torch.equal(hot(z, y), torch.cat([z, F.one_hot(y, 3).float()], 1))
    table = LabelledGenerator(Echo, 6, 3, code=5)
    assert table.generator.size == 11
    assert table.table is not None
    out = table(z, y)
    assert torch.equal(out, torch.cat([z, table.table.weight[y]], 1))
    out[:2].sum().backward()
    assert table.table.weight.grad is not None
    assert torch.equal(table.table.weight.grad.abs().sum(1), torch.tensor([5.0, 0.0, 5.0]))  # class 1 was not drawn


def test_the_table_starts_at_a_unit_normal_of_fifty() -> None:
    table = LabelledGenerator(Echo, 6, 200).table
    assert table is not None
    assert tuple(table.weight.shape) == (200, 50)
    assert table.weight.std().item() == pytest.approx(1.0, abs=0.03)
    assert table.weight.mean().item() == pytest.approx(0.0, abs=0.04)


def test_an_unknown_label_input_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown label input 'cbn': embedding or onehot"):
        LabelledGenerator(Echo, 6, 3, kind="cbn")
