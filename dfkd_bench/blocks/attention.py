"""Attention transfer: match where the feature maps of student and teacher have large activations."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.errors import RunError


def attention_map(a: Tensor) -> Tensor:
    """Feature maps a (n, c, h, w) -> unit vectors (n, h*w): mean squared activation over channels, flattened.

    An all-zero map stays zero. Source: Zagoruyko & Komodakis, ICLR 2017, activation-based form.
    """
    return F.normalize(at_least_fp32(a).square().mean(1).flatten(1), dim=1, eps=1e-12)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], *, positions: str = "sum") -> Tensor:
    """Squared distance of attention maps, averaged over samples.

    student, teacher: feature maps of the taps from input to output, each (n, c, h, w); channel counts may differ. Taps
    are paired from the last one backwards. If sizes differ, the larger map is average-pooled to the smaller one before
    squaring. positions `sum`: in [0, 2] per tap, averaged over taps; `mean`: each tap divided by its h*w, summed over
    taps (the form for published weights like 250 or 1000). Raises `RunError` without taps, `ValueError` for another
    word.
    """
    pairs = list(zip(reversed(student), reversed(teacher), strict=False))
    if not pairs:
        raise RunError("attention transfer needs feature maps, and this network has none")
    total: Tensor | None = None
    for a_s, a_t in pairs:
        size = min(a_s.shape[2], a_t.shape[2]), min(a_s.shape[3], a_t.shape[3])
        a_s, a_t = (at_least_fp32(a) for a in (a_s, a_t))
        a_s, a_t = (F.adaptive_avg_pool2d(a, size) if tuple(a.shape[2:]) != size else a for a in (a_s, a_t))
        squared = (attention_map(a_s) - attention_map(a_t)).square()
        if positions == "sum":
            term = squared.sum(1).mean() / len(pairs)
        elif positions == "mean":
            term = squared.mean()
        else:
            raise ValueError(f"unknown form {positions!r}: sum or mean")
        total = term if total is None else total + term
    assert total is not None
    return total
