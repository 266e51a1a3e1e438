"""Classifiers by name: those of this package and those of other packages.

Importing this module imports no torch. Another package adds an architecture with an object of the class `Architecture`,
named in its entry points (group `dfkd_bench.architectures`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import BenchError, RunError, UsageError, did_you_mean
from dfkd_bench.plugins.entry import ARCHITECTURE, Entry
from dfkd_bench.plugins.objects import Table

if TYPE_CHECKING:
    from dfkd_bench.models.tapped import Tapped

Shape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Architecture:
    """How to build one classifier.

    `factory` is called with `arguments`, `classes` and `channels` (or `image_shape`, see `sized`) and returns a
    `Tapped`. Given as text `module:callable`, it is imported when it is called; a leading dot means this package.
    """

    factory: str | Callable[..., Tapped]
    arguments: dict[str, Any] = field(default_factory=dict)
    about: str = ""
    parameters: int = 0  # for ten classes; this and the next two are 0 if unknown
    mmacs: float = 0.0  # million multiply-accumulates per forward of one image
    features: int = 0  # penultimate width
    shape: Shape = (3, 32, 32)  # image shape for which the sizes above are counted; a suitable shape for it
    options: tuple[str, ...] = ()  # arguments that an entry of the teacher registry may set, such as `shortcut`
    sized: bool = False  # True: the factory gets `image_shape` instead of `channels`
    lacks: tuple[str, ...] = ()  # privileges that it cannot provide as a teacher: bn_statistics, stage_maps
    teacher_lr: float | None = None  # learning rate as a teacher, if it differs from the dataset's recipe


def _lenet(
    widths: tuple[int, int, int], hidden: int, about: str, parameters: int, mmacs: float, norm: bool = True
) -> Architecture:
    arguments, shape = {"widths": widths, "hidden": hidden, "norm": norm}, (1, 32, 32)
    # 0.1 is too high without BatchNorm. Accuracy on 10,000 held-out training images, MNIST (means of two seeds):
    # 98.50 % at 0.1, 98.88 at 0.05, 99.04 at 0.02, 98.71 at 0.01;
    # Fashion-MNIST (one seed): 90.45 at 0.05, 90.47 at 0.02
    lacks, rate = ((), None) if norm else (("bn_statistics",), 0.02)
    return Architecture(
        ".lenet:LeNet5", arguments, about, parameters, mmacs, hidden, shape, sized=True, lacks=lacks, teacher_lr=rate
    )


def _wrn(depth: int, widen: int, parameters: int, mmacs: float) -> Architecture:
    about, arguments = f"WRN-{depth}-{widen}, pre-activated wide ResNet", {"depth": depth, "widen": widen}
    return Architecture(".wrn:WRN", arguments, about, parameters, mmacs, 64 * widen)


def _thin(depth: int, parameters: int, mmacs: float) -> Architecture:
    # the sizes are for shortcut A, the padded identity; B is a 1x1 convolution
    arguments = {"blocks": ((depth - 2) // 6,) * 3, "widths": (16, 32, 64), "shortcut": "A"}
    about = f"thin ResNet-{depth}, 16 to 64 wide, shortcut A or B"
    return Architecture(".resnet:ResNet", arguments, about, parameters, mmacs, 64, options=("shortcut",))


def _resnet(depth: int, blocks: tuple[int, ...], parameters: int, mmacs: float) -> Architecture:
    bottleneck = depth >= 50
    arguments, about = {"blocks": blocks, "bottleneck": bottleneck}, f"ResNet-{depth} in CIFAR form, 64 to 512 wide"
    return Architecture(".resnet:ResNet", arguments, about, parameters, mmacs, 2048 if bottleneck else 512)


def _torchvision(family: str, parameters: int, mmacs: float, features: int) -> Architecture:
    about, shape = f"torchvision's {family} as it is, for 64 px and more", (3, 64, 64)
    return Architecture(".vision:network", {"family": family}, about, parameters, mmacs, features, shape)


DIGITS: Shape = (1, 16, 16)
MOBILE = "torchvision's MobileNetV2 with its first two strides made 1 for 32 px"
SHUFFLE = "torchvision's ShuffleNetV2 1.0x with a stem of full size for 32 px"
VIT = "torchvision's ViT-B/16 as it is, for square images of n x 16 px; no BatchNorm, no feature maps"

ARCHITECTURES: dict[str, Architecture] = {
    "cnn32": Architecture(".cnn:CNN", {"width": 32}, "BN CNN, five 3x3 convolutions", 241_642, 6.6, 96, DIGITS),
    "cnn16": Architecture(".cnn:CNN", {"width": 16}, "the same at half the width", 89_146, 2.1, 96, DIGITS),
    "lenet5": _lenet((6, 16, 120), 84, "LeNet-5 with BN, for 28 and 32 px", 61_848, 0.42),
    "lenet5_half": _lenet((3, 8, 60), 42, "the same at half the width", 15_809, 0.13),
    "lenet5_plain": _lenet((6, 16, 120), 84, "LeNet-5 without BN, biases everywhere", 61_706, 0.42, norm=False),
    "lenet5_plain_half": _lenet((3, 8, 60), 42, "the same at half the width", 15_738, 0.13, norm=False),
    "wrn40_2": _wrn(40, 2, 2_243_546, 327.6),
    "wrn16_2": _wrn(16, 2, 691_674, 101.1),
    "wrn40_1": _wrn(40, 1, 563_930, 83.3),
    "wrn16_1": _wrn(16, 1, 175_066, 26.7),
    "resnet8": _thin(8, 75_290, 12.2),
    "resnet20": _thin(20, 269_722, 40.6),
    "resnet32": _thin(32, 464_154, 68.9),
    "resnet56": _thin(56, 853_018, 125.5),
    "resnet18": _resnet(18, (2, 2, 2, 2), 11_173_962, 555.4),
    "resnet34": _resnet(34, (3, 4, 6, 3), 21_282_122, 1159.4),
    "resnet50": _resnet(50, (3, 4, 6, 3), 23_520_842, 1297.8),
    "vgg11": Architecture(".vgg:VGG11", {}, "VGG-11 with BN and one linear layer", 9_231_114, 209.4, 512),
    "mobilenetv2": Architecture(".vision:mobilenetv2", {}, MOBILE, 2_236_682, 88.0, 1280),
    "shufflenetv2": Architecture(".vision:shufflenetv2", {}, SHUFFLE, 1_263_854, 45.0, 1024),
    "tv_resnet18": _torchvision("resnet18", 11_181_642, 148.1, 512),
    "tv_resnet34": _torchvision("resnet34", 21_289_802, 299.0, 512),
    "tv_resnet50": _torchvision("resnet50", 23_528_522, 333.7, 2048),
    "tv_mobilenet_v2": _torchvision("mobilenet_v2", 2_236_682, 24.5, 1280),
    "tv_mobilenet_v3_small": _torchvision("mobilenet_v3_small", 1_528_106, 5.5, 1024),
    "tv_vit_b_16": Architecture(
        ".vision:vit", {}, VIT, 85_668_106, 1458.7, 768, (3, 64, 64), sized=True, lacks=("bn_statistics", "stage_maps")
    ),
}


def _problem(entry: Entry, architecture: Architecture) -> str:
    if re.fullmatch(r"\w[\w.]*", entry.name):
        return ""
    return "has a name that cannot be part of a task's name: use letters, digits, '_' and '.'"


TABLE = Table(ARCHITECTURE, Architecture, ARCHITECTURES, _problem)


def architecture(name: str) -> Architecture:
    """The architecture `name`, of this package or another.

    Raises `UsageError` for an unknown name, `RunError` for one of another package that cannot be imported.
    """
    return TABLE.get(name)


def build(name: str, classes: int, image_shape: Shape, options: Mapping[str, Any] | None = None) -> Tapped:
    """A classifier for images of `image_shape` (channels, height, width), initialised from torch's global stream.

    `options` replace arguments (see `Architecture.options`). Raises `UsageError` for an unknown name or option and for
    an image size that the architecture does not accept, `RunError`, naming the owner, for an architecture of another
    package that fails or returns another type.
    """
    spec = architecture(name)
    for key in options or {}:
        if key not in spec.options:
            raise UsageError(f"architecture {name} has no option {key!r}{did_you_mean(key, list(spec.options))}")
    arguments = {**spec.arguments, **(options or {}), "classes": classes}
    arguments |= {"image_shape": tuple(image_shape)} if spec.sized else {"channels": image_shape[0]}
    entry = TABLE.entry(name)
    return _build(spec, arguments) if entry is None else _build_plugin(entry, spec, arguments)


def _build(spec: Architecture, arguments: Mapping[str, Any]) -> Tapped:
    factory: Any = spec.factory
    if isinstance(factory, str):
        module, _, name = factory.partition(":")
        factory = getattr(import_module(module, __name__), name)
    model: Tapped = factory(**arguments)
    return model


def _build_plugin(entry: Entry, spec: Architecture, arguments: Mapping[str, Any]) -> Tapped:
    from dfkd_bench.models.tapped import Tapped

    try:
        model = _build(spec, arguments)
    except (KeyboardInterrupt, MemoryError, BenchError):
        raise
    except BaseException as error:  # another package's code may raise anything, SystemExit included
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{entry.who} cannot be built: {reason}") from error
    if not isinstance(model, Tapped):
        contract = f"{Tapped.__module__}.{Tapped.__name__}"
        raise RunError(f"{entry.who} cannot be built: its factory returns a {type(model).__name__}, not a {contract}")
    return model
