"""Every architecture of the table: published sizes, maps, moments, the same numbers as an independent computation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shared import DATA, needs_data
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vision_transformer import VisionTransformer

from dfkd_bench import models
from dfkd_bench.errors import UsageError
from dfkd_bench.models.cnn import CNN
from dfkd_bench.models.count import Count, count
from dfkd_bench.models.lenet import LeNet5
from dfkd_bench.models.resnet import ResNet
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.models.vgg import VGG11
from dfkd_bench.models.vision import Vision
from dfkd_bench.models.wrn import WRN

TABLE = list(models.ARCHITECTURES)


@cache
def on_paper(name: str, classes: int, shape: models.Shape) -> Tapped:
    """A network without memory: its shapes can be computed, its numbers not."""
    with torch.device("meta"):
        return models.build(name, classes, shape)


def sizes(name: str, classes: int = 10, shape: models.Shape = (3, 32, 32)) -> Count:
    return count(on_paper(name, classes, shape), shape)


# -- sizes ---------------------------------------------------------------------------------------------------------

# at 100 classes and 32 px: parameters, BN layers, their channels, penultimate width, MMAC, and GFLOP of one forward, as
# measured on the published code
PUBLISHED = {
    "resnet34": (21_328_292, 36, 8512, 512, 1159.4, 2.319),
    "resnet18": (11_220_132, 20, 4800, 512, 555.5, 1.111),
    "vgg11": (9_277_284, 8, 2752, 512, 209.4, 0.419),
    "wrn40_2": (2_255_156, 37, 2704, 128, 327.6, 0.655),
    "wrn16_2": (703_284, 13, 912, 128, 101.1, 0.202),
    "wrn40_1": (569_780, 37, 1360, 64, 83.3, 0.167),
    "wrn16_1": (180_916, 13, 464, 64, 26.7, 0.053),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    *whole, mmacs, gflop = PUBLISHED[name]
    found = sizes(name, 100)
    assert [found.parameters, found.bn_layers, found.bn_channels, found.features] == whole
    assert found.macs / 1e6 == pytest.approx(mmacs, abs=0.05)
    assert 2 * found.macs / 1e9 == pytest.approx(gflop, abs=0.0006)


def test_published_sizes_at_64_pixels() -> None:
    assert sizes("resnet34", 200, (3, 64, 64)).macs / 1e6 == pytest.approx(4637.7, abs=0.05)
    assert sizes("resnet18", 200, (3, 64, 64)).macs / 1e6 == pytest.approx(2221.8, abs=0.05)
    # a fourth pool there: VGG's last two convolutions see maps of 4x4 as at 32 px, the others maps of twice the side
    small, large = sizes("vgg11", 100).macs, sizes("vgg11", 100, (3, 64, 64)).macs
    last_two, linear = 2 * 9 * 512 * 512 * 16, 512 * 100
    assert large - last_two - linear == 4 * (small - last_two - linear)


@pytest.mark.parametrize("name", TABLE)
def test_sizes_in_the_table_are_counted_ones(name: str) -> None:
    entry = models.ARCHITECTURES[name]
    found = sizes(name, 10, entry.shape)
    assert (entry.parameters, entry.features) == (found.parameters, found.features)
    assert entry.mmacs == pytest.approx(found.macs / 1e6, abs=0.05 if found.macs > 1e6 else 0.005)
    assert entry.about
    model = on_paper(name, 10, entry.shape)
    lacking = {"bn_statistics": not found.bn_layers, "stage_maps": len(model.tap_names) == 1}
    assert set(entry.lacks) == {privilege for privilege, lacks in lacking.items() if lacks}


def residual(blocks: Sequence[int], widths: Sequence[int], kernels: Sequence[int], projection: bool) -> int:
    """Weights of a residual network for three channels and ten classes, added up by hand.

    kernels: sides of a block's convolutions; a block of three ends four times as wide as it is.
    """
    outward = 4 if len(kernels) == 3 else 1
    total, inputs = 27 * widths[0] + 2 * widths[0], widths[0]
    for k, (number, width) in enumerate(zip(blocks, widths, strict=True)):
        for i in range(number):
            ends = [inputs, *[width] * (len(kernels) - 1), outward * width]
            for side, (a, b) in zip(kernels, pairwise(ends), strict=True):
                total += side * side * a * b + 2 * b
            if projection and (inputs != outward * width or (i == 0 and k > 0)):
                total += inputs * outward * width + 2 * outward * width
            inputs = outward * width
    return total + 10 * inputs + 10


def test_residual_networks_by_hand() -> None:
    thin, large = (16, 32, 64), (64, 128, 256, 512)
    known = {"resnet20": 269_722, "resnet56": 853_018}  # of the public checkpoints
    for depth, n in ((8, 1), (20, 3), (32, 5), (56, 9)):
        name, blocks = f"resnet{depth}", (n, n, n)
        found = sizes(name).parameters
        assert found == residual(blocks, thin, (3, 3), False) == known.get(name, found)
        with torch.device("meta"):
            projected = models.build(name, 10, (3, 32, 32), {"shortcut": "B"})
        assert sum(p.numel() for p in projected.parameters()) == residual(blocks, thin, (3, 3), True)
        assert len(projected.bn_layers()) == sizes(name).bn_layers + 2
    assert sizes("resnet18").parameters == residual((2, 2, 2, 2), large, (3, 3), True)
    assert sizes("resnet34").parameters == residual((3, 4, 6, 3), large, (3, 3), True)
    assert sizes("resnet50").parameters == residual((3, 4, 6, 3), large, (1, 3, 1), True) == 23_520_842


def test_lenet_by_hand() -> None:
    for name, a, b, c, d in (("lenet5", 6, 16, 120, 84), ("lenet5_half", 3, 8, 60, 42)):
        found = sizes(name, 10, (1, 32, 32))
        assert found.parameters == 25 * (a + a * b + b * c) + 2 * (a + b + c) + c * d + d + 10 * d + 10
        assert found.macs == 25 * (a * 28**2 + a * b * 10**2 + b * c) + c * d + 10 * d
        assert (found.bn_layers, found.bn_channels, found.features) == (3, a + b + c, d)
        assert sizes(name, 10, (1, 28, 28)) == found
    for name, a, b, c, d in (("lenet5_plain", 6, 16, 120, 84), ("lenet5_plain_half", 3, 8, 60, 42)):
        found = sizes(name, 10, (1, 32, 32))
        assert found.parameters == 25 * (a + a * b + b * c) + a + b + c + c * d + d + 10 * d + 10
        assert found.macs == 25 * (a * 28**2 + a * b * 10**2 + b * c) + c * d + 10 * d
        assert (found.bn_layers, found.bn_channels, found.features) == (0, 0, d)
    assert sizes("lenet5_plain", 10, (1, 32, 32)).parameters == 61_706  # as LeCun's with full connections is counted


WEIGHTS = {
    "tv_resnet18": tv.ResNet18_Weights.IMAGENET1K_V1,
    "tv_resnet34": tv.ResNet34_Weights.IMAGENET1K_V1,
    "tv_resnet50": tv.ResNet50_Weights.IMAGENET1K_V1,
    "tv_mobilenet_v2": tv.MobileNet_V2_Weights.IMAGENET1K_V1,
    "tv_mobilenet_v3_small": tv.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
    "tv_vit_b_16": tv.ViT_B_16_Weights.IMAGENET1K_V1,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_torchvision_networks_have_the_sizes_that_torchvision_states(name: str) -> None:
    stated: dict[str, Any] = WEIGHTS[name].meta
    found = sizes(name, 1000, (3, 224, 224))
    assert found.parameters == stated["num_params"]
    assert found.macs / 1e9 == pytest.approx(stated["_ops"], abs=0.0006)


def test_fitting_a_torchvision_network_to_32_pixels_changes_no_weight() -> None:
    for name, stated in (("mobilenetv2", tv.MobileNet_V2_Weights), ("shufflenetv2", tv.ShuffleNet_V2_X1_0_Weights)):
        assert sizes(name, 1000).parameters == stated.IMAGENET1K_V1.meta["num_params"]


# -- maps and channels, on paper -----------------------------------------------------------------------------------

THIN, WIDE = [(16, 32), (32, 16), (64, 8)], [(32, 32), (64, 16), (128, 8)]
LARGE, TORCHVISION = [(64, 32), (128, 16), (256, 8), (512, 4)], [(64, 16), (128, 8), (256, 4), (512, 2)]
MAPS: dict[str, list[tuple[int, int]]] = {  # channels and side, at the size of image that the table names
    "cnn32": [(32, 16), (64, 8), (96, 4)],
    "cnn16": [(16, 16), (32, 8), (96, 4)],
    "lenet5": [(6, 28), (16, 10), (120, 1)],
    "lenet5_half": [(3, 28), (8, 10), (60, 1)],
    "lenet5_plain": [(6, 28), (16, 10), (120, 1)],
    "lenet5_plain_half": [(3, 28), (8, 10), (60, 1)],
    **{f"wrn{name}": WIDE if name.endswith("2") else THIN for name in ("40_2", "16_2", "40_1", "16_1")},
    **{f"resnet{depth}": THIN for depth in (8, 20, 32, 56)},
    "resnet18": LARGE,
    "resnet34": LARGE,
    "resnet50": [(4 * c, side) for c, side in LARGE],
    "vgg11": LARGE,
    "mobilenetv2": [(24, 32), (32, 16), (96, 8), (1280, 4)],
    "shufflenetv2": [(24, 32), (116, 16), (232, 8), (1024, 4)],
    "tv_resnet18": TORCHVISION,
    "tv_resnet34": TORCHVISION,
    "tv_resnet50": [(4 * c, side) for c, side in TORCHVISION],
    "tv_mobilenet_v2": [(16, 32), (24, 16), (32, 8), (96, 4), (1280, 2)],
    "tv_mobilenet_v3_small": [(16, 32), (16, 16), (24, 8), (48, 4), (576, 2)],
    "tv_vit_b_16": [],
}


@pytest.mark.parametrize("name", TABLE)
def test_taps_and_moments_have_the_declared_shapes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # shapes alone: a device without numbers has no autocast either
    monkeypatch.setattr("dfkd_bench.models.tapped.batch_moments", lambda x: (x.mean((0, 2, 3)), x.var((0, 2, 3))))
    shape = models.ARCHITECTURES[name].shape
    model = on_paper(name, 10, shape)
    stages = {f"stage{k + 1}": (2, c, side, side) for k, (c, side) in enumerate(MAPS[name])}
    assert model.tap_names == (*stages, "penultimate")
    found = model.observe(torch.zeros(2, *shape, device="meta"), taps=model.tap_names, moments=True)
    assert {k: tuple(v.shape) for k, v in found.taps.items()} == {**stages, "penultimate": (2, model.feature_dim)}
    assert found.logits.shape == (2, 10)
    widths = [layer.num_features for layer in model.bn_layers()]
    assert [m.shape[0] for m, _ in found.moments] == [v.shape[0] for _, v in found.moments] == widths
    assert bool(widths) != ("bn_statistics" in models.ARCHITECTURES[name].lacks)
    assert len(model.running_moments()) == len(widths)


@pytest.mark.parametrize("name", TABLE)
def test_norms_come_in_the_order_of_the_forward(name: str) -> None:
    shape = models.ARCHITECTURES[name].shape
    model, order = on_paper(name, 10, shape), []
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [m.register_forward_pre_hook(lambda layer, _: order.append(id(layer))) for m in norms]
    model(torch.zeros(2, *shape, device="meta"))
    for handle in handles:
        handle.remove()
    assert [id(layer) for layer in model.bn_layers()] == order


@pytest.mark.parametrize("name", TABLE)
def test_grey_and_colour(name: str) -> None:
    usual, *size = models.ARCHITECTURES[name].shape
    channels = 1 if usual == 3 else 3
    shape = (channels, size[0], size[1])
    model = on_paper(name, 7, shape)
    assert model.observe(torch.zeros(2, *shape, device="meta")).logits.shape == (2, 7)
    stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert stem.in_channels == channels


# -- numbers -------------------------------------------------------------------------------------------------------


def tiny_vit(weights: None = None, **arguments: Any) -> VisionTransformer:
    assert weights is None
    return VisionTransformer(patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, **arguments)


def tiny_residual(block: type[BasicBlock | Bottleneck]) -> nn.Module:
    """torchvision's residual network with one block in each stage, in CIFAR form."""
    net = tv.ResNet(block, [1, 1, 1, 1], num_classes=5)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return net


RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
NETWORKS: dict[str, Callable[[], Tapped]] = {
    "cnn": lambda: CNN(4, 5, 3, 6),
    "wrn10_1": lambda: WRN(10, 1, 5, 3),
    "wrn16_2": lambda: models.build("wrn16_2", 5, (3, 16, 16)),
    "basic": lambda: ResNet((2, 1, 2), (4, 8, 12), classes=5),
    "basic_a": lambda: ResNet((1, 2, 1), (4, 7, 12), shortcut="A", classes=5),
    "bottleneck": lambda: ResNet((1, 2, 1, 1), (2, 4, 6, 8), bottleneck=True, classes=5),
    "resnet8": lambda: models.build("resnet8", 5, (3, 16, 16)),
    "vgg11": lambda: models.build("vgg11", 5, (3, 16, 16)),
    "lenet5": lambda: models.build("lenet5", 5, (3, 32, 32)),
    "lenet5_half": lambda: models.build("lenet5_half", 5, (3, 28, 28)),
    "lenet5_plain": lambda: models.build("lenet5_plain", 5, (3, 32, 32)),
    "mobilenetv2": lambda: models.build("mobilenetv2", 5, (3, 16, 16)),
    "shufflenetv2": lambda: models.build("shufflenetv2", 5, (3, 16, 16)),
    "tv_basic": lambda: Vision(tiny_residual(BasicBlock), "fc", RESNET_STAGES),
    "tv_mobilenet_v3_small": lambda: models.build("tv_mobilenet_v3_small", 5, (3, 32, 32)),
    "vit": lambda: Vision(tiny_vit(image_size=32, num_classes=5), "heads.head", ()),
}
SIDES = {"lenet5": 32, "lenet5_half": 28, "lenet5_plain": 32, "tv_mobilenet_v3_small": 32, "vit": 32}


def stir(model: nn.Module) -> nn.Module:
    """Statistics, gains and shifts away from zero and one, behind which mistakes could hide."""
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                for value, mean in ((m.running_mean, 0.0), (m.running_var, 1.0), (m.weight, 1.0), (m.bias, 0.0)):
                    assert value is not None
                    value.copy_(mean + 0.2 * torch.rand(value.shape, generator=stream))
    return model


@cache
def network(name: str) -> Tapped:
    torch.manual_seed(1)
    model = stir(NETWORKS[name]())
    assert isinstance(model, Tapped)
    with torch.no_grad():
        last_linear(model).weight.normal_(std=0.1)  # a transformer's starts from zero
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        kept = [m.momentum for m in norms]
        for m in norms:
            m.momentum = 0.98  # the statistics of images, or nothing of these comes through a deep network
        model.train()(images(name, 16))
        for m, momentum in zip(norms, kept, strict=True):
            m.momentum = momentum
    return model.eval()


def last_linear(model: nn.Module) -> nn.Linear:
    return [m for m in model.modules() if isinstance(m, nn.Linear)][-1]


def images(name: str, n: int = 3) -> Tensor:
    side = SIDES.get(name, 16)
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_moments_are_those_of_what_each_norm_is_given(name: str, train: bool) -> None:
    model, given = copy.deepcopy(network(name)).train(train), []

    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given.append(inputs[0].detach().double().transpose(0, 1).flatten(1))

    for layer in model.bn_layers():
        layer.register_forward_pre_hook(hook)
    found = model.observe(images(name), moments=True).moments
    assert len(found) == len(given) == len(model.bn_layers())
    for (mean, variance), x in zip(found, given, strict=True):
        torch.testing.assert_close(mean.double(), x.mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(variance.double(), x.var(1, correction=0), rtol=1e-4, atol=1e-5)
    for layer, (mean, variance) in zip(model.bn_layers(), model.running_moments(), strict=True):
        assert torch.equal(mean, layer.running_mean)
        assert torch.equal(variance, layer.running_var)


@pytest.mark.parametrize("name", NETWORKS)
def test_observing_changes_nothing_and_computes_no_more_than_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(name), images(name)
    everything = model.observe(x, taps=model.tap_names, moments=True)
    monkeypatch.setattr("dfkd_bench.models.tapped.batch_moments", lambda x: pytest.fail("moments were not asked for"))
    logits = model(x)
    assert torch.equal(everything.logits, logits)
    first = model.tap_names[0]
    some = model.observe(x, taps=(first,))
    assert torch.equal(some.logits, logits)
    assert set(some.taps) == {first}
    assert some.moments == ()
    head = last_linear(model)
    torch.testing.assert_close(F.linear(everything.features, head.weight, head.bias), logits)
    assert logits.std(0).min() > 1e-4  # images are told apart, by far more than rounding


@pytest.mark.parametrize("name", NETWORKS)
def test_in_eval_mode_an_image_does_not_depend_on_its_batch(name: str) -> None:
    x = images(name)
    torch.testing.assert_close(network(name)(x[1:2]), network(name)(x)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_draws_nothing(name: str) -> None:
    """No dropout: what a network answers is a function of weights and images."""
    model = copy.deepcopy(network(name)).train()
    before = torch.get_rng_state()
    assert torch.equal(model(images(name)), model(images(name)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["basic_a", "bottleneck", "vgg11", "lenet5", "lenet5_plain", "tv_basic"])
def test_the_forward_is_one_graph(name: str) -> None:
    model, x = network(name), images(name)
    torch.compiler.reset()
    fast = torch.compile(
        lambda x: model.observe(x, taps=model.tap_names, moments=True), backend="eager", fullgraph=True, dynamic=False
    )
    ours, theirs = model.observe(x, taps=model.tap_names, moments=True), fast(x)
    torch.testing.assert_close(theirs.logits, ours.logits)
    torch.testing.assert_close(theirs.taps, ours.taps)
    torch.testing.assert_close(theirs.moments, ours.moments)


@pytest.mark.parametrize("name", ["cnn", "tv_basic"])
def test_moments_carry_gradient_to_the_image(name: str) -> None:
    x = images(name).requires_grad_()
    last = network(name).observe(x, moments=True).moments[-1]
    (last[0].sum() + last[1].sum()).backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


# -- against other people's code -----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_cifar_resnets_compute_what_torchvision_computes(block: type[BasicBlock | Bottleneck]) -> None:
    ours = stir(ResNet((1, 1, 1, 1), bottleneck=block is Bottleneck, classes=5)).eval()
    theirs, x = tiny_residual(block).eval(), images("basic")
    renamed = {k.replace("shortcut", "downsample").replace("linear", "fc"): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(renamed)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [32, 64])
def test_vgg_computes_what_torchvision_computes(side: int) -> None:
    ours = network("vgg11")
    theirs = tv.vgg.make_layers(tv.vgg.cfgs["A"], batch_norm=True).eval()
    theirs.load_state_dict({k.removeprefix("features."): v for k, v in ours.state_dict().items() if "features" in k})
    x = torch.randn(2, 3, side, side)
    # without the last pool, and at 32 px without the one before
    maps = nn.Sequential(*(m for i, m in enumerate(theirs) if i != 28 and (i != 21 or side == 64)))(x)
    torch.testing.assert_close(ours.observe(x, taps=("penultimate",)).features, maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_shortcut_a_is_a_centred_padding_of_every_second_pixel() -> None:
    """Against the computation of the public thin ResNets, written on the weights alone."""
    model, x = network("resnet8"), images("resnet8")
    w = model.state_dict()

    def norm(x: Tensor, at: str) -> Tensor:
        values = [w[f"{at}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values)

    out = norm(F.conv2d(x, w["conv1.weight"], padding=1), "bn1").relu()
    for k, width in ((1, 16), (2, 32), (3, 64)):
        here, residual = f"layer{k}.0", out
        if k > 1:
            residual = torch.zeros(len(x), width, *(side // 2 for side in out.shape[2:]))
            residual[:, width // 4 : 3 * width // 4] = out[:, :, ::2, ::2]
        out = norm(F.conv2d(out, w[f"{here}.conv1.weight"], padding=1, stride=1 if k == 1 else 2), f"{here}.bn1").relu()
        out = norm(F.conv2d(out, w[f"{here}.conv2.weight"], padding=1), f"{here}.bn2")
        out = (out + residual).relu()
    expected = out.mean((2, 3)) @ w["linear.weight"].T + w["linear.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@needs_data
@pytest.mark.parametrize("file", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_the_public_thin_checkpoints_fit_by_name(file: str) -> None:
    model = models.build(file.split("-")[0], 10, (3, 32, 32))
    stored = torch.load(DATA / "checkpoints" / file, map_location="cpu", weights_only=True)["state_dict"]
    result = model.load_state_dict({k.removeprefix("module."): v for k, v in stored.items()}, strict=False)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)


def test_networks_fitted_to_32_pixels_are_torchvisions_with_other_strides() -> None:
    mobile = tv.mobilenet_v2(num_classes=5).eval()
    for conv in (mobile.get_submodule("features.0.0"), mobile.get_submodule("features.2.conv.1.0")):
        assert isinstance(conv, nn.Conv2d)
        assert conv.stride == (2, 2)
        conv.stride = (1, 1)
    shuffle = tv.shufflenet_v2_x1_0(num_classes=5).eval()
    shuffle.get_submodule("conv1.0").stride = (1, 1)
    shuffle.maxpool = nn.Identity()
    for name, theirs in (("mobilenetv2", mobile), ("shufflenetv2", shuffle)):
        theirs.load_state_dict(network(name).state_dict())
        torch.testing.assert_close(network(name)(images(name)), theirs(images(name)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "vit_b_16"])
def test_weights_have_torchvisions_names(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(tv, name)(num_classes=10, **({"image_size": 64} if name == "vit_b_16" else {})).state_dict()
    ours = on_paper(f"tv_{name}", 10, (3, 64, 64)).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_torchvision_networks_compute_what_torchvision_computes() -> None:
    bare = stir(tiny_vit(image_size=32, num_classes=5)).eval()
    with torch.no_grad():
        bare.get_submodule("heads.head").weight.normal_()
    mobile, x = tv.mobilenet_v3_small(num_classes=5).eval(), images("vit")
    mobile.load_state_dict(network("tv_mobilenet_v3_small").state_dict())
    torch.testing.assert_close(network("tv_mobilenet_v3_small")(x), mobile(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Vision(bare, "heads.head", ()).eval()(x), bare(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_stages_are_the_last_maps_of_their_size(name: str) -> None:
    theirs, x = getattr(tv, name)(num_classes=5).eval(), torch.randn(2, 3, 32, 32)
    stir(theirs)  # as it starts, a block adds next to nothing to the one before
    ours = models.build(f"tv_{name}", 5, (3, 32, 32)).eval()
    ours.load_state_dict(theirs.state_dict())
    last: dict[int, Tensor] = {}
    out = x
    for layer in theirs.features:
        out = layer(out)
        last[out.shape[-1]] = out
    found = ours.observe(x, taps=ours.tap_names[:-1]).taps
    torch.testing.assert_close(list(found.values()), list(last.values()))


def test_a_copy_of_a_torchvision_network_stands_on_its_own() -> None:
    model, x = network("tv_basic"), images("tv_basic")
    other = copy.deepcopy(model)
    assert torch.equal(other(x), model(x))
    with torch.no_grad():
        last_linear(other).weight.zero_()
    assert other(x).std(0).max() == 0
    assert model(x).std(0).min() > 0


# -- a transformer, sizes that are refused, options ----------------------------------------------------------------


def test_a_transformer_has_features_but_no_moments() -> None:
    model = network("vit")
    found = model.observe(images("vit"), taps=("penultimate", "bn_means"), moments=True)
    assert model.tap_names == ("penultimate",)
    assert (found.moments, model.running_moments()) == ((), ())
    assert found.features.shape == (3, 16)
    assert found.taps["bn_means"].shape == (3, 0)


@pytest.mark.parametrize("channels", [1, 3, 12])
def test_a_new_stem_starts_as_torchvisions_own(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(weights: None = None, **arguments: Any) -> VisionTransformer:
        return VisionTransformer(patch_size=16, num_layers=1, num_heads=1, hidden_dim=64, mlp_dim=8, **arguments)

    monkeypatch.setattr(tv, "vit_b_16", wide)
    torch.manual_seed(0)
    expected = {
        "tv_vit_b_16": (channels * 256) ** -0.5,  # by fan-in
        "tv_mobilenet_v3_small": (2 / (16 * 9)) ** 0.5,  # by fan-out
        "shufflenetv2": (3 * channels * 9) ** -0.5,  # torch's default
    }
    for name, spread in expected.items():
        model = models.build(name, 5, (channels, 32, 32))
        stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        assert stem.in_channels == channels
        assert stem.weight.std().item() == pytest.approx(spread, rel=0.2)
        assert (stem.bias is None) == (name != "tv_vit_b_16")
        assert stem.bias is None or not stem.bias.any()


def test_initial_weights() -> None:
    torch.manual_seed(0)
    for model in (ResNet((1, 1), (32, 64)), VGG11()):
        convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        conv = next(m for m in convs if m.out_channels == 2 * m.in_channels)  # where fan-in is not fan-out
        assert conv.weight.std().item() == pytest.approx((2 / (conv.out_channels * 9)) ** 0.5, rel=0.05)
        assert conv.bias is None or not conv.bias.any()
    assert VGG11().classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_plain"])
def test_lenet_computes_its_layers_in_a_row(name: str) -> None:
    norm, layers = name == "lenet5", list[nn.Module]()
    for i, o in ((3, 6), (6, 16), (16, 120)):
        norms = [nn.BatchNorm2d(o)] if norm else []
        layers += [nn.Conv2d(i, o, 5, bias=not norm), *norms, nn.ReLU(), nn.MaxPool2d(2)]
    body = [*layers[:-1], nn.Flatten(), nn.Linear(120, 84), nn.ReLU()]
    whole, ours, x = nn.Sequential(*body, nn.Linear(84, 5)).eval(), network(name), images(name)
    whole.load_state_dict(dict(zip(whole.state_dict(), ours.state_dict().values(), strict=True)))
    found = ours.observe(x, taps=("penultimate",))
    torch.testing.assert_close(found.logits, whole(x))
    torch.testing.assert_close(found.features, whole[:-1](x))


def test_28_pixels_are_32_with_a_black_frame() -> None:
    small, large = (LeNet5(image_shape=(1, side, side)).eval() for side in (28, 32))
    large.load_state_dict(stir(small).state_dict())
    x = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(small(x), large(F.pad(x, (2, 2, 2, 2))))


def test_sizes_and_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="28x28 or 32x32, not 16x16; cnn32"):
        models.build("lenet5", 10, (1, 16, 16))
    with pytest.raises(UsageError, match="28x28 or 32x32, not 28x32"):
        models.build("lenet5_half", 10, (1, 28, 32))
    for shape in ((3, 40, 40), (3, 32, 64)):
        with pytest.raises(UsageError, match=f"multiple of 16 pixels, not {shape[1]}x{shape[2]}"):
            models.build("tv_vit_b_16", 10, shape)
    with pytest.raises(UsageError, match=r"'A' .* or 'B' .*, got 'C'"):
        models.build("resnet8", 10, (3, 32, 32), {"shortcut": "C"})
    with pytest.raises(UsageError, match="resnet8 has no option 'shortcat'; did you mean 'shortcut'"):
        models.build("resnet8", 10, (3, 32, 32), {"shortcat": "A"})
    with pytest.raises(UsageError, match="resnet18 has no option 'shortcut'"):
        models.build("resnet18", 10, (3, 32, 32), {"shortcut": "A"})
    with pytest.raises(UsageError, match="did you mean 'resnet34'"):
        models.build("resnet-34", 10, (3, 32, 32))
    with pytest.raises(ValueError, match="6n\\+4"):
        WRN(18, 2)


# -- counting ------------------------------------------------------------------------------------------------------


def test_counting_leaves_a_network_as_it_was() -> None:
    model = copy.deepcopy(network("basic")).train()
    next(iter(model.bn_layers())).eval()  # one layer frozen by hand
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    assert count(model, (3, 16, 16)).parameters == sum(p.numel() for p in model.parameters())
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_attention_of_a_frozen_transformer_is_counted_too() -> None:
    model = copy.deepcopy(network("vit")).requires_grad_(False)
    tokens, dim, wide = 5, 16, 32
    block = tokens * (4 * dim * dim + 2 * dim * wide) + 2 * tokens * tokens * dim
    by_hand = 4 * dim * 3 * 256 + 2 * block + dim * 5
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            assert count(model, (3, 32, 32)).macs == by_hand
    assert count(model.to("meta"), (3, 32, 32)).macs == by_hand
