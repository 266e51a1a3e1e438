"""The losses of CPSC in float64 NumPy, as plain sums from their formulas. Imports neither torch nor dfkd_bench.

Logits s, t are (n, classes); features h (n, d); y labels (n,); `activations` the inputs (n, channels, h, w) of the
teacher's BatchNorm layers; `running` their stored (mean, variance). Numbers in the docstrings are sections of the
method's specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
EPS = 1e-8  # inside the logarithms of IKD, which are unbounded below


def log_softmax(row: Array) -> Array:
    """log p_c = u_c - log sum_k e^{u_k}, shifted by the maximum."""
    top = max(row)
    log_sum = top + math.log(sum(math.exp(u - top) for u in row))
    return np.array([u - log_sum for u in row])


def softmax(row: Array) -> Array:
    """p_c."""
    return np.array([math.exp(v) for v in log_softmax(row)])


def kd(s: Array, t: Array, temperature: float = 1.0, weights: Array | None = None) -> float:
    """3.2: T^2 / n  sum_i w_i sum_c p^T (log p^T - log p^S), both at temperature T."""
    total = 0.0
    for i in range(len(s)):
        log_student, log_teacher = log_softmax(s[i] / temperature), log_softmax(t[i] / temperature)
        divergence = 0.0
        for c in range(s.shape[1]):
            divergence += math.exp(log_teacher[c]) * (log_teacher[c] - log_student[c])
        total += divergence * (1.0 if weights is None else weights[i])
    return total / len(s) * temperature**2


def squared_distance(s: Array, t: Array) -> float:
    """The sum over samples and classes of (s - t)^2."""
    return sum((s[i, c] - t[i, c]) ** 2 for i in range(s.shape[0]) for c in range(s.shape[1]))


def ikd(s: Array, t: Array, form: str) -> float:
    """3.3, without the generator's minus sign."""
    mse = squared_distance(s, t) / (s.shape[0] * s.shape[1])
    return {
        "mse": mse,
        "log_mse": math.log(mse + EPS),
        "log_norm": math.log(math.sqrt(squared_distance(s, t)) + EPS),
    }[form]


def cross_entropy(u: Array, y: Sequence[int], on: str = "logits") -> float:
    """3.5: the textbook form, or with probabilities where logits belong: -1/n sum_i [p_{i,y} - log sum_c e^{p_ic}]."""
    total = 0.0
    for i in range(len(u)):
        if on == "logits":
            total -= math.log(softmax(u[i])[y[i]])
        else:
            p = softmax(u[i])
            total -= p[y[i]] - math.log(sum(math.exp(p_c) for p_c in p))
    return total / len(u)


def moments(a: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel of (n, channels, h, w)."""
    means, variances = [], []
    for c in range(a.shape[1]):
        values = a[:, c].ravel().tolist()
        mean = math.fsum(values) / len(values)
        means.append(mean)
        variances.append(math.fsum((v - mean) ** 2 for v in values) / len(values))
    return np.array(means), np.array(variances)


def bn_statistics(
    batch: Sequence[tuple[Array, Array]],
    running: Sequence[tuple[Array, Array]],
    norm: str = "l2",
    reduce: str = "sum",
) -> float:
    """3.4: sum over layers of ||v - v_B|| + ||m - m_B||, un-squared; or mean squares; or the mean over layers."""
    total = 0.0
    for (mean, variance), (stored_mean, stored_variance) in zip(batch, running, strict=True):
        for found, stored in ((variance, stored_variance), (mean, stored_mean)):
            squares = math.fsum((found[c] - stored[c]) ** 2 for c in range(len(found)))
            total += math.sqrt(squares) if norm == "l2" else squares / len(found)
    return total / len(running) if reduce == "mean" else total


def unit(h: Array) -> Array:
    """Rows divided by their Euclidean length."""
    return np.array([row / math.sqrt(math.fsum(v * v for v in row)) for row in h])


def supervised_contrast(
    h_s: Array, h_t: Array, y: Sequence[int], temperature: float = 0.07, base_temperature: float = 0.07
) -> float:
    """3.6: anchors are all 2n vectors; A(i) all others, P(i) those of the same label."""
    h, labels = [*h_s, *h_t], [*y, *y]
    total = 0.0
    for i in range(len(h)):
        others = [a for a in range(len(h)) if a != i]
        similarity = {a: sum(h[i][k] * h[a][k] for k in range(len(h[i]))) / temperature for a in others}
        top = max(similarity.values())
        log_sum = top + math.log(math.fsum(math.exp(v - top) for v in similarity.values()))
        positives = [p for p in others if labels[p] == labels[i]]
        total += sum(similarity[p] - log_sum for p in positives) / len(positives)
    return -(temperature / base_temperature) * total / len(h)


def adapter(h: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> Array:
    """2.4: Linear, ReLU, Linear, on unit-length student features."""
    return np.maximum(h @ w1.T + b1, 0.0) @ w2.T + b2


def generator_terms(
    s: Array,
    t: Array,
    fixed_t: Array,
    activations: Sequence[Array],
    running: Sequence[tuple[Array, Array]],
    h_s: Array,
    h_t: Array,
    y: Sequence[int],
    *,
    ce_input: str = "probs",
    ikd_form: str = "mse",
    detach_teacher_in_kd: bool = False,
    tau: float = 0.07,
    tau_base: float = 0.07,
    bn_norm: str = "l2",
    bn_reduce: str = "sum",
) -> dict[str, float]:
    """The terms of J_G, unweighted (3.1). `fixed_t` are the teacher's logits where the gradient is stopped."""
    return {
        "L_KD": kd(s, fixed_t if detach_teacher_in_kd else t),
        "R_G": -ikd(s, fixed_t, ikd_form),
        "L_BN": bn_statistics([moments(a) for a in activations], running, bn_norm, bn_reduce),
        "L_SCL": supervised_contrast(h_s, h_t, y, tau, tau_base),
        "L_CE": cross_entropy(t, y, ce_input),
    }


def generator_total(
    terms: dict[str, float], alpha: float = 5.0, beta_bn: float = 1.0, gamma: float = 0.7, eta: float = 0.7
) -> float:
    """J_G = -L_KD + alpha R_G + beta_bn L_BN + gamma L_SCL + eta L_CE."""
    return (
        -terms["L_KD"] + alpha * terms["R_G"] + beta_bn * terms["L_BN"] + gamma * terms["L_SCL"] + eta * terms["L_CE"]
    )


def student_total(
    s: Array,
    t: Array,
    y: Sequence[int],
    *,
    ce_input: str = "probs",
    ikd_form: str = "mse",
    alpha: float = 5.0,
    eta: float = 0.7,
) -> float:
    """J_S = L_KD + alpha R_S + eta L_CE."""
    return kd(s, t) + alpha * ikd(s, t, ikd_form) + eta * cross_entropy(s, y, ce_input)


def slope(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Central finite differences of a scalar function, one entry at a time."""
    found = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        above, below = at.copy(), at.copy()
        above[index] += step
        below[index] -= step
        found[index] = (function(above) - function(below)) / (2.0 * step)
    return found
