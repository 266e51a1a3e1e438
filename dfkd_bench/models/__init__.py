"""Classifiers by name. The table is plain data, so that listing it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from dfkd_bench.models.tapped import Tapped

Shape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Architecture:
    """How to build one classifier: `module:Class`, its arguments, one line about it."""

    factory: str
    arguments: dict[str, Any]
    about: str
    options: tuple[str, ...] = ()  # arguments that a teacher's file may bring with it, such as `shortcut`
    sized: bool = False  # whether its weights depend on the size of the image, not on the number of channels alone


ARCHITECTURES: dict[str, Architecture] = {
    "cnn32": Architecture("cnn:CNN", {"width": 32}, "BN CNN, five 3x3 convolutions, 242 k parameters at 10 classes"),
    "cnn16": Architecture("cnn:CNN", {"width": 16}, "the same at half the width, 89 k parameters"),
    "wrn40_2": Architecture("wrn:WRN", {"depth": 40, "widen": 2}, "wide ResNet, 2.2 M parameters, 128 features"),
    "wrn16_2": Architecture("wrn:WRN", {"depth": 16, "widen": 2}, "wide ResNet, 0.7 M parameters, 128 features"),
    "wrn40_1": Architecture("wrn:WRN", {"depth": 40, "widen": 1}, "wide ResNet, 0.6 M parameters, 64 features"),
    "wrn16_1": Architecture("wrn:WRN", {"depth": 16, "widen": 1}, "wide ResNet, 0.2 M parameters, 64 features"),
}


def architecture(name: str) -> Architecture:
    """The entry of `name`; raises `UsageError` for an unknown one."""
    if name not in ARCHITECTURES:
        raise UsageError(f"unknown architecture {name!r}{did_you_mean(name, list(ARCHITECTURES))}")
    return ARCHITECTURES[name]


def build(name: str, classes: int, image_shape: Shape, options: Mapping[str, Any] | None = None) -> Tapped:
    """A freshly initialised classifier (from torch's global stream) for images (channels, height, width).

    `options` replace arguments of the architecture that a weight file may bring with it. Raises `UsageError` for an
    unknown name or option, and for an image size that the architecture does not take.
    """
    entry = architecture(name)
    for key in options or {}:
        if key not in entry.options:
            raise UsageError(f"architecture {name} has no option {key!r}{did_you_mean(key, list(entry.options))}")
    module, factory = entry.factory.split(":")
    arguments = {**entry.arguments, **(options or {}), "classes": classes}
    arguments |= {"image_shape": tuple(image_shape)} if entry.sized else {"channels": image_shape[0]}
    model: Tapped = getattr(import_module(f"dfkd_bench.models.{module}"), factory)(**arguments)
    return model
