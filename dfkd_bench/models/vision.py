"""torchvision's networks with the `Tapped` interface: unchanged for 64 px and more, two of them adapted to 32 px.

`torch.fx` traces their code once; BN layers, taps and the last linear layer's input are then inserted into the graph as
calls of the `Trace`. So a forward needs no hooks and computes only what is requested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, fx, nn
from torchvision import models as tv

from dfkd_bench.errors import UsageError
from dfkd_bench.models.tapped import Tapped, Trace

Init = tuple[Literal["fan_in", "fan_out"], Literal["relu", "linear"]]  # arguments of Kaiming's normal initialisation


class _Reader(fx.Tracer):
    """A tracer that stores the output node of each module."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.outputs[self.path_of_module(m)] = result.node
        return result


def _observed(net: nn.Module, head: str, stages: Sequence[str]) -> fx.GraphModule:
    """`net` with a second argument, a `Trace`; every BN layer, stage and the features are passed through it."""
    reader = _Reader()
    graph = reader.trace(net)
    image = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(image):
        trace = graph.placeholder("t")

    def tap(name: str, node: fx.Node) -> None:
        with graph.inserting_after(node):
            tapped = graph.call_method("tap", (trace, name, node))
        node.replace_all_uses_with(tapped, delete_user_cb=lambda user: user is not tapped)

    tap("penultimate", reader.outputs[head].all_input_nodes[0])
    for k, path in enumerate(stages):
        tap(f"stage{k + 1}", reader.outputs[path])
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(net.get_submodule(node.target), nn.BatchNorm2d):
            with graph.inserting_before(node):
                layer = graph.get_attr(node.target)
                normed = graph.call_method("bn", (trace, layer, *node.args))
            node.replace_all_uses_with(normed)
            graph.erase_node(node)
    graph.lint()
    return fx.GraphModule(net, graph)


class Vision(Tapped):
    """Any network that `torch.fx` can trace; its weights keep their names.

    `head` is the path of the last linear layer, whose input (n, features) becomes the tap `penultimate`; `stages` are
    paths of modules with outputs (n, c, h, w), in order, which become the taps `stage1`, `stage2`, ...
    """

    def __init__(self, net: nn.Module, head: str, stages: Sequence[str]) -> None:
        super().__init__()
        graph = _observed(net, head, stages)
        # children keep their names, so that torchvision's weights fit; the generated forward uses only these attributes
        for name, child in graph.named_children():
            self.add_module(name, child)
        for name, value in graph.named_parameters(recurse=False):
            self.register_parameter(name, value)
        self._generated: Any = type(graph).forward
        self.tap_names = (*(f"stage{k + 1}" for k in range(len(stages))), "penultimate")
        last = self.get_submodule(head)
        assert isinstance(last, nn.Linear)
        self.feature_dim = last.in_features

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits of x (n, channels, h, w)."""
        logits: Tensor = self._generated(self, x, t)
        return logits


@dataclass(frozen=True)
class _Family:
    """Module paths in a torchvision network: first convolution, last linear layer, last map of each size."""

    stem: str
    head: str
    stages: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    init: Init | None = ("fan_out", "relu")  # of a new stem; None is torch's default


# without dropout, which has no weights, logits are deterministic in train mode, as in all our networks
_RESNET = _Family("conv1", "fc", ("layer1", "layer2", "layer3", "layer4"))
_MOBILE_V2 = ("features.1", "features.3", "features.6", "features.13", "features.18")
_MOBILE_V3 = ("features.0", "features.1", "features.3", "features.8", "features.12")
_FAMILIES = {
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "mobilenet_v2": _Family("features.0.0", "classifier.1", _MOBILE_V2, {"dropout": 0.0}),
    "mobilenet_v3_small": _Family("features.0.0", "classifier.3", _MOBILE_V3, {"dropout": 0.0}),
    "shufflenet_v2_x1_0": _Family("conv1.0", "fc", ("conv1", "stage2", "stage3", "conv5"), init=None),
    "vit_b_16": _Family("conv_proj", "heads.head", (), init=("fan_in", "linear")),
}
# expansion, width, repeats, stride: table 2 of Sandler et al. (2018), the second row's stride 2 made 1
_MOBILE_V2_AT_32 = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _stem(net: nn.Module, path: str) -> nn.Conv2d:
    conv = net.get_submodule(path)
    assert isinstance(conv, nn.Conv2d)
    return conv


def _build(family: str, channels: int, **arguments: Any) -> nn.Module:
    """torchvision's network, untrained; if `channels` is not three, its first convolution is replaced.

    The new convolution is initialised like torchvision's (for the transformer without truncation).
    """
    paths = _FAMILIES[family]
    net: nn.Module = getattr(tv, family)(weights=None, **paths.arguments, **arguments)
    old = _stem(net, paths.stem)
    if channels != old.in_channels:
        new = nn.Conv2d(
            channels,
            old.out_channels,
            kernel_size=(old.kernel_size[0], old.kernel_size[1]),
            stride=(old.stride[0], old.stride[1]),
            padding=old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1]),
            bias=old.bias is not None,
        )
        if paths.init:
            nn.init.kaiming_normal_(new.weight, 0.0, *paths.init)
            if new.bias is not None:
                nn.init.zeros_(new.bias)
        parent, _, name = paths.stem.rpartition(".")
        net.get_submodule(parent).add_module(name, new)
    return net


def network(family: str, classes: int = 10, channels: int = 3) -> Vision:
    """torchvision's network `family`, with its initialisation, without dropout."""
    paths = _FAMILIES[family]
    return Vision(_build(family, channels, num_classes=classes), paths.head, paths.stages)


def mobilenetv2(classes: int = 10, channels: int = 3) -> Vision:
    """MobileNetV2 for 32 px: stride 1 in the stem and in the first strided group; map sizes are 32-16-8-4."""
    paths = _FAMILIES["mobilenet_v2"]
    net = _build("mobilenet_v2", channels, num_classes=classes, inverted_residual_setting=_MOBILE_V2_AT_32)
    _stem(net, paths.stem).stride = (1, 1)
    return Vision(net, paths.head, paths.stages[1:])  # the first two groups now have the same resolution


def shufflenetv2(classes: int = 10, channels: int = 3) -> Vision:
    """ShuffleNetV2 1.0x for 32 px: stride 1 in the stem and no max-pool after it; map sizes are 32-16-8-4."""
    paths = _FAMILIES["shufflenet_v2_x1_0"]
    net = _build("shufflenet_v2_x1_0", channels, num_classes=classes)
    _stem(net, paths.stem).stride = (1, 1)
    net.add_module("maxpool", nn.Identity())
    return Vision(net, paths.head, paths.stages)


def vit(classes: int = 10, image_shape: tuple[int, int, int] = (3, 64, 64)) -> Vision:
    """torchvision's vision transformer for square images of a multiple of 16 px; raises `UsageError` for others.

    It has no BatchNorm and no feature maps, so no moments; its only tap is `penultimate` (the class token). Its last
    layer is initialised with zeros, as in torchvision.
    """
    channels, height, width = image_shape
    if height != width or height % 16:
        raise UsageError(f"a ViT-B/16 needs square images of a multiple of 16 pixels, not {height}x{width}")
    paths = _FAMILIES["vit_b_16"]
    return Vision(_build("vit_b_16", channels, num_classes=classes, image_size=height), paths.head, paths.stages)
