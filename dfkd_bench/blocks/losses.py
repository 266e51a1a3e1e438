"""Distillation losses on logits; `s` and `t` are fp32 logits (n, classes) of student and teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def kd_loss(s: Tensor, t: Tensor, *, temperature: float = 1.0, weights: Tensor | None = None) -> Tensor:
    """Forward KL(teacher || student) at `temperature`, summed over classes, averaged over samples, times T^2.

    `weights` (n,) multiply each sample's divergence before the average. Gradients flow to both arguments: detach `t` if
    the teacher needs none. Source: Hinton et al., 2015.
    """
    log_p_s = F.log_softmax(s / temperature, dim=1)
    log_p_t = F.log_softmax(t / temperature, dim=1)
    divergence = (log_p_t.exp() * (log_p_t - log_p_s)).sum(1)
    if weights is not None:
        divergence = divergence * weights
    return divergence.mean() * temperature**2


def ikd_loss(s: Tensor, t: Tensor, form: str, eps: float = 1e-8) -> Tensor:
    """Disagreement of raw logits in three forms; sign and detaching are up to the caller. Source: Shao et al., 2023.

    `mse`: mean squared difference over samples and classes; `log_mse`: its natural logarithm; `log_norm`: logarithm of
    the Frobenius norm of the (n, classes) difference. `eps` is added inside the logarithms, which have no lower bound.
    Raises `ValueError` for another form.
    """
    difference = s - t
    if form == "mse":
        return difference.square().mean()
    if form == "log_mse":
        return torch.log(difference.square().mean() + eps)
    if form == "log_norm":
        return torch.log(torch.linalg.vector_norm(difference) + eps)
    raise ValueError(f"unknown form {form!r}: mse, log_mse or log_norm")


def pseudo_ce_loss(logits: Tensor, labels: Tensor, on: str = "logits") -> Tensor:
    """Cross-entropy against pseudo-labels (n,), averaged over samples. Source: Shao et al., 2023.

    `on="logits"` is the standard form. `on="probs"` uses softmax probabilities in place of logits, as one official code
    does: the value is then within [log(e + C - 1) - 1, log(e + C - 1)], and the gradient at uniform logits is 1/C of
    the standard one. Raises `ValueError` for another word.
    """
    if on == "logits":
        return F.cross_entropy(logits, labels)
    if on == "probs":
        return F.cross_entropy(F.softmax(logits, dim=1), labels)
    raise ValueError(f"unknown input {on!r}: logits or probs")
