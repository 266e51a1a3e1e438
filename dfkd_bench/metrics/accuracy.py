"""Logits on the test set, and accuracies over the snapshots of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfkd_bench.models.tapped import Tapped


@torch.no_grad()
def logits_of(model: Tapped, images: Tensor, batch_size: int = 512) -> Tensor:
    """Logits (n, classes) fp32 of images (n, channels, height, width), model in eval mode."""
    model.eval()
    parts = images.split(batch_size)
    return torch.cat([model(p.contiguous(memory_format=torch.channels_last)).float() for p in parts])


def top1(logits: Tensor, labels: Tensor) -> float:
    """Percent of rows whose largest logit is at the label."""
    return 100.0 * float((logits.argmax(1) == labels).double().mean())


def over_snapshots(accuracies: Sequence[float], agreements: Sequence[float | None]) -> dict[str, Any]:
    """The primary number and its labelled neighbours, in percent.

    `last` is primary. `oracle` is the best over snapshots *on the test set*, what most papers print. `selected` is the
    snapshot with the highest teacher agreement on held-out synthetic images, the later one among equals.
    """
    a = np.asarray(accuracies, dtype=np.float64)
    result: dict[str, Any] = {
        "last": float(a[-1]),
        "oracle": float(a.max()),
        "oracle_snapshot": int(a.argmax()),
        "mean": float(a.mean()),
        "variance": float(a.var()),
        "selected": None,
        "selected_snapshot": None,
    }
    if all(x is not None for x in agreements):
        g = np.asarray(agreements, dtype=np.float64)
        chosen = int(len(g) - 1 - g[::-1].argmax())
        result.update(selected=float(a[chosen]), selected_snapshot=chosen)
    return result
