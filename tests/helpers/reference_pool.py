"""The losses of the invert-and-pool methods in float64 NumPy. Imports neither torch nor dfkd_bench.

Logits s, t are (n, classes); images x (n, channels, h, w); y labels (n,); `moments` and `running` lists of (mean,
variance), one for each BatchNorm layer; `local` and `glob` features (n, d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from reference_blocks import js, masked_kl, total_variation
from reference_numpy import Array, bn_statistics, cross_entropy, log_softmax, unit

Moments = Sequence[tuple[Array, Array]]
Terms = dict[str, float]


def deep_inversion(
    s: Array, t: Array, y: Sequence[int], rough: Array, moments: Moments, running: Moments, tv: str, competition: str
) -> Terms:
    """Cross-entropy, R_feature, R_TV of the images `rough`, and -JS at temperature 3 or 1 - JS within [0, 1]."""
    return {
        "L_oh": cross_entropy(t, y),
        "R_feature": bn_statistics(moments, running),
        "R_TV": total_variation(rough, tv),
        "R_compete": -js(s, t) if competition == "js" else 1.0 - min(max(js(s, t), 0.0), 1.0),
    }


def projected(f: Array, head: Sequence[Array]) -> Array:
    """Linear, ReLU, Linear, unit length."""
    w1, b1, w2, b2 = head
    return unit(np.maximum(f @ w1.T + b1, 0.0) @ w2.T + b2)


def contrast(local: Array, glob: Array, cached: Sequence[Array], head: Sequence[Array], tau: float = 0.1) -> float:
    """Mean over current rows plus mean over cached rows of -log of the share of the row's own global view."""
    a, b = (projected(np.concatenate(pair), head) for pair in zip((local, glob), cached, strict=True))
    rows = [-log_softmax(np.array([a[i] @ b[j] / tau for j in range(len(b))]))[i] for i in range(len(a))]
    n = len(local)
    return math.fsum(rows[:n]) / n + (math.fsum(rows[n:]) / (len(rows) - n) if len(rows) > n else 0.0)


def smoothed(moments: Moments, average: Moments, m: float) -> Moments:
    """(1 - m) batch + m average, or the batch if there is no average yet."""
    if not average:
        return moments
    pairs = zip(moments, average, strict=True)
    return [((1 - m) * a + m * c, (1 - m) * b + m * d) for (a, b), (c, d) in pairs]


def noisy(
    s: Array, t: Array, y: Sequence[int], moments: Moments, running: Moments, average: Moments = (), m: float = 0.9
) -> Terms:
    """The terms that FastDFKD and NAYER minimise; the last one has a minus sign."""
    return {
        "L_oh": cross_entropy(t, y),
        "L_bn": bn_statistics(smoothed(moments, average, m), running),
        "D_agree": masked_kl(s, t),
    }


def adam(p: Array, gradients: Sequence[Array], lr: float, beta1: float, beta2: float = 0.999) -> Array:
    """p after one step of Adam per gradient."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for k, g in enumerate(gradients, 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        p = p - lr * (m / (1 - beta1**k)) / (np.sqrt(v / (1 - beta2**k)) + 1e-8)
    return p
