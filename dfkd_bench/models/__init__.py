"""Classifiers by name. The table is plain data, so that listing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from dfkd_bench.models.tapped import Tapped


@dataclass(frozen=True)
class Architecture:
    """How to build one classifier: `module:Class`, its arguments, one line about it."""

    factory: str
    arguments: dict[str, Any]
    about: str


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


def build(name: str, classes: int, channels: int) -> Tapped:
    """A freshly initialised classifier (from torch's global stream)."""
    entry = architecture(name)
    module, factory = entry.factory.split(":")
    model: Tapped = getattr(import_module(f"dfkd_bench.models.{module}"), factory)(
        **entry.arguments, classes=classes, channels=channels
    )
    return model
