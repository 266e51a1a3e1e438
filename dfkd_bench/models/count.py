"""Sizes of a classifier: parameters, multiply-accumulates of one forward, BatchNorm layers, penultimate width."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dfkd_bench.models.tapped import Tapped
from dfkd_bench.utils.flop import flop_of


@dataclass(frozen=True)
class Count:
    """Sizes of one classifier."""

    parameters: int
    macs: int  # multiply-accumulates of convolutions, matrix products and attention for one image
    bn_layers: int
    bn_channels: int  # of all BN layers together
    features: int  # penultimate width


def count(model: Tapped, image_shape: tuple[int, int, int]) -> Count:
    """Sizes of `model` for images (channels, height, width), from one forward in eval mode on the model's device.

    The model is not changed. On the `meta` device nothing is computed and no memory is used.
    """
    parameters = list(model.parameters())
    x = torch.zeros(1, *image_shape, device=parameters[0].device, dtype=parameters[0].dtype)
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            flop = flop_of(lambda: model(x))
    finally:
        for module, training in modes:
            module.training = training
    norms = model.bn_layers()
    return Count(
        sum(p.numel() for p in parameters),
        flop // 2,
        len(norms),
        sum(layer.num_features for layer in norms),
        model.feature_dim,
    )
