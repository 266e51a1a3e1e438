"""The objectives of the streaming methods in float64 NumPy, from their formulas. Imports neither torch nor dfkd_bench.

`c` are a method's settings, of which the weights are read; `v` the outputs of the networks for a batch, from hooks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import reference_blocks as blocks
from reference_numpy import Array, bn_statistics, cross_entropy, kd, moments, softmax, unit


@dataclass
class Seen:
    """Logits s, t (n, classes), features, stage maps (n, c, h, w), the teacher's BN inputs and running statistics."""

    s: Array
    t: Array
    f_s: Array
    f_t: Array
    maps_s: list[Array]
    maps_t: list[Array]
    inputs: list[Array]
    running: list[tuple[Array, Array]]

    def bn(self) -> float:
        """Distance of the batch's BN statistics to the running ones."""
        return bn_statistics([moments(a) for a in self.inputs], self.running)

    def rows(self, part: slice) -> tuple[Array, Array]:
        """Student and teacher logits of the rows `part`."""
        return self.s[part], self.t[part]


Terms = dict[str, float]


def disagreement(v: Seen, form: str) -> float:
    return {"kl": blocks.kl, "l1": blocks.l1, "js": blocks.js}[form](v.s, v.t)


# -- DAFL, DFAD, ZSKT, DFQ-gen ----------------------------------------------------------------------------------------


def dafl(c: Any, v: Seen) -> Terms:
    base = 10.0 if c.log_base == "10" else math.e
    terms = {"L_oh": blocks.one_hot(v.t), "L_bal": blocks.balance(v.t, base), "L_act": blocks.activation(v.f_t)}
    return {"L_G": c.w_oh * terms["L_oh"] + c.alpha * terms["L_act"] + c.beta * terms["L_bal"], **terms}


def dfad(c: Any, v: Seen) -> Terms:
    gap = float(np.abs(v.s - v.t).mean())
    return {"L_G": -gap, "D": gap}


def zskt_kl(c: Any, v: Seen) -> float:
    """KL(T || S), mean over the batch; in the published form also over classes."""
    return blocks.kl(v.s, v.t) / (v.s.shape[1] if c.kl_reduction == "mean" else 1)


def zskt(c: Any, v: Seen) -> Terms:
    return {"L_G": -zskt_kl(c, v), "D": zskt_kl(c, v)}


def zskt_student(c: Any, v: Seen) -> float:
    """beta times the sum over taps of the mean over batch and positions of squared differences of unit maps."""
    total = zskt_kl(c, v)
    for a, b in zip(v.maps_s, v.maps_t, strict=True):
        for one, other in zip(a, b, strict=True):
            gap = blocks.attention_map(one) - blocks.attention_map(other)
            total += c.beta * float((gap**2).mean()) / len(a)
    return total


def dfq_gen(c: Any, v: Seen) -> Terms:
    terms = {"L_oh": blocks.one_hot(v.t), "L_bn": v.bn(), "L_bal": blocks.balance(v.t), "D": blocks.kl(v.s, v.t)}
    total = c.w_oh * terms["L_oh"] + c.w_bn * terms["L_bn"] + c.w_bal * terms["L_bal"] - c.w_adv * terms["D"]
    return {"L_G": total, **terms}


# -- CGDD -------------------------------------------------------------------------------------------------------------


def cgdd(c: Any, v: Seen, y: Sequence[int]) -> Terms:
    terms = {
        "L_cls": cross_entropy(v.t, y),
        "L_bn": v.bn(),
        "D": disagreement(v, c.disc),
        "L_ie": blocks.balance(v.t),
        "L_act": blocks.activation(v.f_t),
    }
    weights = {"L_cls": c.lambda_cls, "L_bn": c.lambda_bn, "D": -c.lambda_adv, "L_ie": c.lambda_ie}
    weights["L_act"] = c.lambda_act
    used = {name: terms[name] for name, weight in weights.items() if weight}
    return {"L_G": sum(weights[name] * value for name, value in used.items()), **used}


def cgdd_student(c: Any, v: Seen, y: Sequence[int], tables: Sequence[tuple[Array, Array]] = ()) -> float:
    form = c.disc if c.imitation == "same" else c.imitation
    l_kd = kd(v.s, v.t, c.tau) if form == "kl" else disagreement(v, form)
    kept = [i for i in range(len(y)) if not c.ce_mask or int(v.t[i].argmax()) == y[i]]
    l_ce = -sum(math.log(softmax(v.s[i])[y[i]]) for i in kept) / len(y)
    l_at = 0.0
    if c.lambda_at:
        l_at = hint(v.maps_s, v.maps_t, tables) if c.feat == "hint" else blocks.attention(v.maps_s, v.maps_t)
    return c.lambda_kd * l_kd + c.lambda_ce * l_ce + c.lambda_at * l_at


def hint(maps_s: Sequence[Array], maps_t: Sequence[Array], tables: Sequence[tuple[Array, Array]]) -> float:
    """Mean over taps of the mean square of r(A^S) - A^T, r a 1x1 convolution; maps of equal size."""
    terms = []
    for a, b, (weight, bias) in zip(maps_s, maps_t, tables, strict=True):
        mapped = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], a) + bias[None, :, None, None]
        terms.append(float(((mapped - b) ** 2).mean()))
    return sum(terms) / len(terms)


# -- AdaDFKD ----------------------------------------------------------------------------------------------------------


def hardness(e: int, epochs: int, f_b: float, f_e: float, k: float) -> float:
    """3.3: (1 - k) (e - e_b) / Delta, between 0 and 1 - k."""
    e_b, delta = int(f_b * epochs), int((f_e - f_b) * epochs)
    return min(max((1 - k) * (e - e_b) / delta, 0.0), 1 - k)


def window(h: float, k: float, size: int) -> slice:
    """3.2: ranks from floor(h K) to before floor((h + k) K)."""
    return slice(int(h * size), int((h + k) * size))


def alpha(e: int, epochs: int, f_b: float, f_e: float, alpha_0: float, slope: float) -> float:
    """4.2: the weight *for* epoch e, set at the end of epoch e - 1; epoch 0 uses alpha_0."""
    e_b, e_e, finished = int(f_b * epochs), int(f_e * epochs), e - 1
    if e == 0 or finished <= e_b:
        return alpha_0
    return alpha_0 + slope * (finished - e_b if finished < e_e else e_e - e_b)


def r2m(f_t: Array, f_s: Array, queue: Array, ranks: slice, tau: float) -> float:
    """3.4, with the negatives of `ranks`; the least similar has rank 0."""
    total = 0.0
    for q, key in zip(unit(f_t), unit(f_s), strict=True):
        ranked = sorted(float(q @ column) for column in queue.T)
        scores = [float(q @ key) / tau, *(similarity / tau for similarity in ranked[ranks])]
        total -= scores[0] - math.log(math.fsum(math.exp(score) for score in scores))
    return total / len(f_t)


def relation(f_t: Array, f_s: Array, tau: float) -> float:
    """3.6: the teacher's row is the anchor, the student's rows of the batch are the candidates."""
    total = 0.0
    keys = unit(f_s)
    for i, q in enumerate(unit(f_t)):
        scores = [float(q @ key) / tau for key in keys]
        total -= scores[i] - math.log(math.fsum(math.exp(score) for score in scores))
    return total / len(f_t)


def adversarial(c: Any, v: Seen) -> float:
    """4.1: -9 KL at temperature 3, with a mask only of rows where both agree, divided by all rows; or 1 - J."""
    if c.adv_type == "js":
        return 1.0 - min(max(blocks.js(v.s, v.t), 0.0), 1.0)
    rows = blocks.kl_rows(v.s, v.t, 3.0)
    agree = [c.adv_mask == "none" or a.argmax() == b.argmax() for a, b in zip(v.s, v.t, strict=True)]
    return -9.0 * sum(row for row, kept in zip(rows, agree, strict=True) if kept) / len(rows)


def adadfkd(c: Any, v: Seen, weight: float, queue: Array, ranks: slice, f_s: Array | None = None) -> Terms:
    """4.1; `weight` is alpha, `f_s` the projected student features where widths differ."""
    terms = {
        "H": -blocks.balance(v.t, temperature=c.ent_temperature or c.T_kd),
        "L_oh": blocks.one_hot(v.t),
        "L_bn": v.bn(),
        "L_adv": adversarial(c, v),
    }
    total = c.w_ent * terms["H"] + c.w_oh * terms["L_oh"] + c.w_bn * terms["L_bn"] + weight * terms["L_adv"]
    if c.w_act:
        terms["L_act"] = blocks.activation(v.f_t)
        total += c.w_act * terms["L_act"]
    if c.gamma:
        terms["L_R2M"] = r2m(v.f_t, v.f_s if f_s is None else f_s, queue, ranks, c.tau)
        total += c.gamma * terms["L_R2M"]
    return {"L_G": total, **terms}


def self_paced(loss: float, threshold: float, family: str) -> float:
    """4.4."""
    if family == "log":
        return (1.0 + math.exp(-threshold)) / (1.0 + math.exp(loss - threshold))
    if family == "none":
        return 1.0
    return 0.0 if loss >= threshold else 1.0 if family == "hard" else 1.0 - loss / threshold


def adadfkd_student(c: Any, v: Seen, threshold: float, f_s: Array | None = None) -> float:
    """4.3 and 4.4."""
    if c.kd_loss == "kl":
        rows = [c.T_kd**2 * row for row in blocks.kl_rows(v.s, v.t, c.T_kd)]
    else:
        rows = [float(np.abs(a - b).mean()) for a, b in zip(v.s, v.t, strict=True)]
    if c.spl_granularity == "batch":
        rows = [sum(rows) / len(rows)]
    extra = c.eta * relation(v.f_t, v.f_s if f_s is None else f_s, c.tau) if c.eta else 0.0
    return sum(self_paced(row + extra, threshold, c.spl) * (row + extra) for row in rows) / len(rows)


# -- PRE-DFKD and MAD -------------------------------------------------------------------------------------------------


def pre_dfkd(c: Any, v: Seen) -> Terms:
    terms = {
        "L_oh": blocks.one_hot(v.t),
        "L_bal": blocks.balance(v.t, 10.0),
        "L_act": blocks.activation(v.f_t),
        "L_adv": 1.0 - blocks.js(v.s, v.t, 3.0),
    }
    weights = {"L_oh": c.w_oh, "L_bal": c.w_bal, "L_act": c.w_act, "L_adv": c.w_adv}
    return {"L_G": sum(weights[name] * terms[name] for name in terms), **terms}


def memory(c: Any, x: Array, copy: Array, t: Array, t_copy: Array, mean: Array, log_variance: Array) -> float:
    """L1 of images, L1 of the teacher's logits, and KL(N(mean, variance) || N(0, I)) summed over the latent."""
    divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1.0 - log_variance).sum() / len(x)
    return float(np.abs(copy - x).mean() + np.abs(t_copy - t).mean() + c.w_kl * divergence)


def mad(c: Any, v: Seen, y: Sequence[int], table: Array | None) -> Terms:
    terms = {"L_bn": v.bn(), "D": blocks.kl(v.s, v.t)}
    if table is None:
        terms |= {"L_nll": blocks.one_hot(v.t), "L_bal": blocks.balance(v.t)}
    else:
        terms |= {"L_nll": cross_entropy(v.t, y), "L_norm": float((table[list(y)] ** 2).sum()) / len(y)}
    weights = {"L_nll": c.w_nll, "L_bn": c.w_bn, "D": -c.w_adv, "L_bal": c.w_bal, "L_norm": c.w_norm}
    return {"L_G": sum(weights[name] * value for name, value in terms.items()), **terms}


def mad_student(c: Any, v: Seen) -> float:
    """The first half of the rows comes from the generator, the second from its slow copy."""
    half = len(v.s) // 2
    first, second = blocks.kl(*v.rows(slice(half))), blocks.kl(*v.rows(slice(half, None)))
    return c.mix * first + (1.0 - c.mix) * second
