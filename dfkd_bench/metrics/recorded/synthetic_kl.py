"""KL divergence between teacher and student on synthetic images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkd_bench.metrics.base import Metric, View

if TYPE_CHECKING:
    from torch import Tensor

    from dfkd_bench.models.tapped import Tapped


def synthetic_kl(teacher: Tapped, student: Tapped, images: Tensor) -> float:
    """Mean KL(teacher || student) in nats on images (n, channels, height, width)."""
    import torch

    from dfkd_bench.metrics.logits import logits_of

    log_s, log_t = (torch.log_softmax(logits_of(m, images).double(), 1) for m in (student, teacher))
    return float((log_t.exp() * (log_t - log_s)).sum(1).mean())


def compute(view: View) -> float | None:
    """`synthetic_kl` on the synthetic images of the end of the run."""
    return None if view.synthetic is None else synthetic_kl(view.teacher, view.student, view.synthetic)


METRIC = Metric("synthetic_kl", compute, source="samples", place=(6, 6))
