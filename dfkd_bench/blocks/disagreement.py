"""Disagreement between student and teacher: the student minimises it, a generator minimises its negative.

`s` and `t` are logits (n, classes). Gradients flow to both: the caller detaches the network that must not learn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DISAGREEMENTS = ("kl", "l1", "js")


def kl_per_sample(s: Tensor, t: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) per row, (n,), in nats, without the factor T^2."""
    log_p_s, log_p_t = (F.log_softmax(v / temperature, dim=1) for v in (s, t))
    return (log_p_t.exp() * (log_p_t - log_p_s)).sum(1)


def l1_loss(s: Tensor, t: Tensor) -> Tensor:
    """Mean absolute difference of raw logits, over batch and classes. Source: Fang et al., 2019 (arXiv 1912.11006)."""
    return (s - t).abs().mean()


def masked_kl(s: Tensor, t: Tensor) -> Tensor:
    """KL(teacher || student) at temperature 1, zero in rows whose arg-max differs, averaged over *all* rows.

    So a generator gains only on images on which both still predict the same class. Source: Fang et al., IJCAI 2021,
    L_adv ("decision adversarial", with the opposite sign).
    """
    agree = (s.argmax(1) == t.argmax(1)).to(s.dtype)
    return (kl_per_sample(s, t) * agree).mean()


def js_divergence(
    s: Tensor, t: Tensor, *, temperature: float = 3.0, clamp: bool = True, mixture_first: bool = True
) -> Tensor:
    """Jensen-Shannon-like divergence, averaged over rows, in nats.

    m is the mean of both softened predictions. `mixture_first` is the published form, (KL(m, p_S) + KL(m, p_T)) / 2;
    otherwise the standard form (KL(p_S, m) + KL(p_T, m)) / 2. `clamp` restricts p_S, p_T and m to [0.01, 0.99] after m
    is computed and without renormalising, as published; with many classes most entries are then 0.01 and have no
    gradient. Source: Yin et al., CVPR 2020, eq. 8.
    """
    p_s, p_t = (F.softmax(v / temperature, dim=1) for v in (s, t))
    m = 0.5 * (p_s + p_t)
    if clamp:
        p_s, p_t, m = (p.clamp(0.01, 0.99) for p in (p_s, p_t, m))

    def kl(p: Tensor, q: Tensor) -> Tensor:
        tiny = torch.finfo(p.dtype).tiny
        return (p * (p.clamp_min(tiny).log() - q.clamp_min(tiny).log())).sum(1).mean()

    if mixture_first:
        return 0.5 * kl(m, p_s) + 0.5 * kl(m, p_t)
    return 0.5 * kl(p_s, m) + 0.5 * kl(p_t, m)


def disagreement(s: Tensor, t: Tensor, form: str) -> Tensor:
    """D(s, t) by name: `kl` at temperature 1, `l1` of raw logits, `js` at temperature 3. Raises `ValueError`."""
    if form == "kl":
        return kl_per_sample(s, t).mean()
    if form == "l1":
        return l1_loss(s, t)
    if form == "js":
        return js_divergence(s, t)
    raise ValueError(f"unknown disagreement {form!r}: one of {', '.join(DISAGREEMENTS)}")
