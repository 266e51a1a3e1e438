"""The shared blocks in float64 NumPy, as plain sums from their definitions. Imports neither torch nor dfkd_bench.

Logits s, t are (n, classes); images x and feature maps (n, channels, h, w); features f and latents z (n, d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from reference_numpy import Array, log_softmax, softmax

Weights = dict[str, Array]

# -- priors -----------------------------------------------------------------------------------------------------------


def one_hot(t: Array) -> float:
    """Mean of -log p at the most probable class."""
    return -math.fsum(max(log_softmax(row)) for row in t) / len(t)


def balance(t: Array, base: float = math.e, temperature: float = 1.0) -> float:
    """Sum over classes of q log q, q the batch mean of softmax(t / T)."""
    rows = [softmax(row / temperature) for row in t]
    total = 0.0
    for c in range(t.shape[1]):
        q = math.fsum(p[c] for p in rows) / len(rows)
        total += q * math.log(q, base)
    return total


def activation(f: Array) -> float:
    """Minus the mean absolute entry."""
    return -math.fsum(abs(v) for v in f.ravel()) / f.size


def total_variation(x: Array, norm: str) -> float:
    """The differences to the pixels right, below, below right, below left: four norms, or means of absolute values."""
    total = 0.0
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        found = []
        for n, c, i, j in np.ndindex(x.shape):
            if i + down < x.shape[2] and 0 <= j + right < x.shape[3]:
                found.append(x[n, c, i, j] - x[n, c, i + down, j + right])
        if norm == "l2":
            total += math.sqrt(math.fsum(d * d for d in found))
        else:
            total += math.fsum(abs(d) for d in found) / len(found)
    return total


def unit_moments(z: Array) -> float:
    """Mean over rows of m^2 + (s - 1)^2, s the biased deviation."""
    total = 0.0
    for row in z:
        mean = math.fsum(row) / len(row)
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in row) / len(row))
        total += mean**2 + (deviation - 1.0) ** 2
    return total / len(z)


# -- disagreements ----------------------------------------------------------------------------------------------------


def kl_rows(s: Array, t: Array, temperature: float = 1.0) -> list[float]:
    """Per row: sum p^T (log p^T - log p^S), both at temperature T."""
    rows = []
    for u, v in zip(s, t, strict=True):
        log_s, log_t = log_softmax(u / temperature), log_softmax(v / temperature)
        rows.append(math.fsum(math.exp(b) * (b - a) for a, b in zip(log_s, log_t, strict=True)))
    return rows


def kl(s: Array, t: Array) -> float:
    """Mean of the rows."""
    return math.fsum(kl_rows(s, t)) / len(s)


def l1(s: Array, t: Array) -> float:
    """Mean absolute difference of logits."""
    return math.fsum(abs(s[index] - t[index]) for index in np.ndindex(s.shape)) / s.size


def masked_kl(s: Array, t: Array) -> float:
    """The sum over rows where both predict the same class, divided by the number of all rows."""
    rows = kl_rows(s, t)
    return math.fsum(
        r for r, u, v in zip(rows, s, t, strict=True) if list(u).index(max(u)) == list(v).index(max(v))
    ) / len(s)


def js(s: Array, t: Array, temperature: float = 3.0, clamp: bool = True, mixture_first: bool = True) -> float:
    """Half the sum of KL(m, p_S) and KL(m, p_T), or of KL(p_S, m) and KL(p_T, m)."""
    total = 0.0
    for u, v in zip(s, t, strict=True):
        p_s, p_t = softmax(u / temperature), softmax(v / temperature)
        for c in range(len(u)):
            three = [p_s[c], p_t[c], (p_s[c] + p_t[c]) / 2]
            a, b, m = (min(max(p, 0.01), 0.99) for p in three) if clamp else three
            for p in (a, b):
                total += 0.5 * (m * math.log(m / p) if mixture_first else p * math.log(p / m))
    return total / len(s)


# -- attention --------------------------------------------------------------------------------------------------------


def average_pool(a: Array, size: tuple[int, int]) -> Array:
    """(c, h, w) to (c, *size): cell i averages rows floor(i h / H) up to ceil((i + 1) h / H), exclusive."""
    channels, h, w = a.shape
    out = np.zeros((channels, *size))
    for c, i, j in np.ndindex(out.shape):
        rows = range(i * h // size[0], math.ceil((i + 1) * h / size[0]))
        columns = range(j * w // size[1], math.ceil((j + 1) * w / size[1]))
        out[c, i, j] = math.fsum(a[c, p, q] for p in rows for q in columns) / (len(rows) * len(columns))
    return out


def attention_map(a: Array) -> Array:
    """(c, h, w) to a unit vector (h * w,): mean square over channels."""
    q = [math.fsum(a[c, i, j] ** 2 for c in range(a.shape[0])) / a.shape[0] for i, j in np.ndindex(a.shape[1:])]
    return np.array(q) / max(math.sqrt(math.fsum(v * v for v in q)), 1e-12)


def attention(student: Sequence[Array], teacher: Sequence[Array], positions: str = "sum") -> float:
    """Mean over samples of the squared distance; `sum`: mean over taps, else sum over taps of means over positions."""
    taps, total = min(len(student), len(teacher)), 0.0
    for k in range(1, taps + 1):
        a, b = student[-k], teacher[-k]
        size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
        for one, other in zip(a, b, strict=True):
            pair = [attention_map(m if m.shape[1:] == size else average_pool(m, size)) for m in (one, other)]
            distance = math.fsum((pair[0][i] - pair[1][i]) ** 2 for i in range(len(pair[0]))) / len(a)
            total += distance / taps if positions == "sum" else distance / (size[0] * size[1])
    return total


# -- generators, with stored statistics -------------------------------------------------------------------------------


def upsample(x: Array) -> Array:
    """(c, h, w) to (c, 2h, 2w) by repeating pixels."""
    c, h, w = x.shape
    return np.array([[[x[k, i // 2, j // 2] for j in range(2 * w)] for i in range(2 * h)] for k in range(c)])


def convolve(x: Array, weight: Array, bias: Array | None) -> Array:
    """3x3, padded with zeros: (i, h, w) to (o, h, w)."""
    (outputs, inputs, *_), (_, h, w) = weight.shape, x.shape
    out = np.zeros((outputs, h, w))
    for o, i, a, b in np.ndindex(outputs, inputs, 3, 3):
        for p in range(max(0, 1 - a), min(h, h + 1 - a)):
            for q in range(max(0, 1 - b), min(w, w + 1 - b)):
                out[o, p, q] += weight[o, i, a, b] * x[i, p + a - 1, q + b - 1]
    return out if bias is None else out + bias[:, None, None]


def transposed(x: Array, weight: Array) -> Array:
    """4x4, stride 2, padding 1: pixel (p, q) is added to (2p - 1 + a, 2q - 1 + b) for each a, b of the kernel."""
    (inputs, outputs, *_), (_, h, w) = weight.shape, x.shape
    out = np.zeros((outputs, 2 * h, 2 * w))
    for o, i, a, b in np.ndindex(outputs, inputs, 4, 4):
        for p, q in np.ndindex(h, w):
            row, column = 2 * p - 1 + a, 2 * q - 1 + b
            if 0 <= row < 2 * h and 0 <= column < 2 * w:
                out[o, row, column] += weight[i, o, a, b] * x[i, p, q]
    return out


def normed(x: Array, w: Weights, name: str) -> Array:
    """Batch-norm with stored statistics."""
    out = (x - w[f"{name}.running_mean"][:, None, None]) / np.sqrt(w[f"{name}.running_var"][:, None, None] + 1e-5)
    if f"{name}.weight" in w:
        out = out * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]
    return out


def leaky(x: Array) -> Array:
    """Slope 0.2 below zero."""
    return np.where(x > 0, x, 0.2 * x)


def painted(z: Array, w: Weights, start: tuple[int, int, int], blocks: int, end: str, *, deep: bool = False) -> Array:
    """One image: linear, batch-norm, `blocks` of (enlarge, batch-norm, leaky ReLU), convolution, `end`."""
    x = normed((w["fc.weight"] @ z + w["fc.bias"]).reshape(start), w, "bn0")
    for k in range(blocks):
        if deep:
            x = transposed(x, w[f"convs.{k}.weight"])
        else:
            x = convolve(upsample(x), w[f"convs.{k}.weight"], w.get(f"convs.{k}.bias"))
        x = leaky(normed(x, w, f"norms.{k}"))
    x = convolve(x, w["out.weight"], w["out.bias"])
    if end == "sigmoid":
        return 1.0 / (1.0 + np.exp(-x))
    if end == "bn":
        return normed(x, w, "end")
    return normed(np.tanh(x), w, "end" if deep else "end.1")
