"""Contrastive losses over two views."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.blocks.precision import at_least_fp32


def supervised_contrastive_loss(
    views: tuple[Tensor, Tensor], labels: Tensor, *, temperature: float = 0.07, base_temperature: float = 0.07
) -> Tensor:
    """Supervised contrastive loss with two views per sample, all 2n vectors as anchors, average outside the log.

    views: two (n, d) tensors of unit vectors; labels: (n,). Positives of an anchor are all other vectors with its label
    in both views, at least its own other view; the denominator is over all 2n - 1 other vectors. The result is
    multiplied by temperature / base_temperature.
    Source: Khosla et al. 2020, eq. 2 (L_out); as used by Shao et al., 2023.

    Similarities are computed in fp32 outside autocast: at values near 1/0.07 half precision has steps of 0.008.
    """
    with torch.autocast(labels.device.type, enabled=False):
        h = at_least_fp32(torch.cat(views))
        similarity = h @ h.T / temperature
        y = labels.repeat(2)
        itself = torch.eye(len(h), dtype=torch.bool, device=h.device)
        log_prob = F.log_softmax(similarity.masked_fill(itself, float("-inf")), dim=1)
        positive = (y[:, None] == y[None, :]) & ~itself
        # the diagonal of log_prob is -inf and would turn a 0/1 product into NaN
        per_anchor = log_prob.masked_fill(~positive, 0.0).sum(1) / positive.sum(1)
        return -(temperature / base_temperature) * per_anchor.mean()
