"""How closely the student follows the teacher on the test set, and how well calibrated it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkd_bench.metrics.base import Column, Metric, TieShares, View

if TYPE_CHECKING:
    from torch import Tensor


def fidelity(s: Tensor, t: Tensor, labels: Tensor) -> dict[str, float]:
    """Agreement, divergences, loyalty, NLL and ECE from student and teacher logits (n, classes) on the test images.

    agreement: percent of images with the same top-1. kl: mean KL(teacher || student) in nats, temperature 1. loyalty:
    mean of 1 - sqrt(JSD), JSD in nats (Xu et al., 2021). loyalty_published: mean of 1 - JSD^(1/4), as in published
    tables, whose code takes a second square root. nll: in nats. ece: 15 equal bins of the top-1 confidence, in [0, 1].
    """
    import numpy as np
    import torch.nn.functional as F
    from scipy.spatial.distance import jensenshannon

    from dfkd_bench.metrics.logits import agreement, top1

    log_s, log_t = F.log_softmax(s.double(), 1), F.log_softmax(t.double(), 1)
    p_s, p_t = log_s.exp().cpu().numpy(), log_t.exp().cpu().numpy()
    # scipy returns the square root of the divergence; for equal rows, rounding can give NaN
    distance = np.nan_to_num(np.asarray(jensenshannon(p_t, p_s, axis=1)), nan=0.0)
    return {
        "agreement": agreement(s, t),
        "kl": float((log_t.exp() * (log_t - log_s)).sum(1).mean()),
        "loyalty": float(np.mean(1.0 - distance)),
        "loyalty_published": float(np.mean(1.0 - np.sqrt(distance))),
        "nll": float(F.nll_loss(log_s, labels)),
        "ece": _ece(s, labels),
        "teacher_top1": top1(t, labels),
        "teacher_nll": float(F.nll_loss(log_t, labels)),
        "teacher_ece": _ece(t, labels),
    }


def _ece(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Sum over bins of |sum of (confidence - correct)|, divided by n: the gap of each bin weighted by its share.

    Not from torchmetrics (tests compare with it): its import takes twice as long as torch's, and 190 MB.
    """
    import torch

    confidence, predicted = torch.softmax(logits.double(), 1).max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=logits.device)
    which = torch.bucketize(confidence, edges[1:-1])  # (lower, upper]
    gap = torch.zeros(bins, dtype=torch.float64, device=logits.device)
    gap.index_add_(0, which, confidence - (predicted == labels).double())
    return float(gap.abs().sum()) / len(labels)


def compute(view: View) -> dict[str, float]:
    """`fidelity` on the test images."""
    return fidelity(view.student_logits, view.teacher_logits, view.labels)


def _percent(edges: TieShares) -> float:
    return 100.0 * edges.test


def _calibration(edges: TieShares) -> float:
    return 2.0 * (edges.test + edges.borders)


METRIC = Metric(
    "fidelity",
    compute,
    (
        Column("teacher_top1", "test top-1 of the teacher", "%"),
        Column("agreement", "test images with the teacher's top-1", "%"),
        Column("kl", "mean KL(teacher || student) on test images", "nats"),
        Column("loyalty", "mean of 1 - sqrt(JSD)"),
        Column("loyalty_published", "mean of 1 - JSD^(1/4), as in published tables"),
        Column("nll", "negative log-likelihood on the test set", "nats"),
        Column("ece", "expected calibration error, 15 bins", "share"),
    ),
    tolerance={"agreement": _percent, "teacher_top1": _percent, "ece": _calibration, "teacher_ece": _calibration},
    place=(2, 2),
)
