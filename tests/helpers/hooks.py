"""What a plain forward of a network shows to hooks of our own, as float64 NumPy arrays, for the references."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


class Shown(NamedTuple):
    """Logits, the input of each BatchNorm layer in order of the forward, and the input of the last linear layer."""

    logits: Array
    inputs: list[Array]
    features: Array


def array(x: Tensor) -> Array:
    """Float64, in NumPy, copied."""
    return x.detach().clone().double().numpy()


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Its BatchNorm layers."""
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def look(network: nn.Module, x: Tensor) -> Shown:
    """A forward without gradients, in the present mode; statistics move as they do in any forward."""
    inputs: list[Array] = []
    features: list[Array] = []
    handles: list[Any] = [m.register_forward_pre_hook(lambda _m, a: inputs.append(array(a[0]))) for m in norms(network)]
    head = network.get_submodule("head")
    handles.append(head.register_forward_pre_hook(lambda _m, a: features.append(array(a[0]))))
    with torch.no_grad():
        logits = array(network(x))
    for handle in handles:
        handle.remove()
    return Shown(logits, inputs, features[0])


def running(network: nn.Module) -> list[tuple[Array, Array]]:
    """Stored mean and variance of each BatchNorm layer."""
    return [(array(m.running_mean), array(m.running_var)) for m in norms(network)]  # type: ignore[arg-type]


class Spy:
    """A network's view that remembers the images that it was shown and what it was asked for."""

    def __init__(self, view: Any) -> None:
        self.view, self.images = view, []  # type: ignore[var-annotated]
        self.asked: list[dict[str, Any]] = []

    def __call__(self, images: Tensor, **asked: Any) -> Any:
        self.images.append(images)
        self.asked.append(asked)
        return self.view(images, **asked)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.view, name)
