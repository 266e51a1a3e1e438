"""Quality of the synthetic images, measured with the teacher, and alarms for a collapsed synthesis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dfkd_bench.metrics.base import Column, Metric, View

if TYPE_CHECKING:
    from torch import Tensor

    from dfkd_bench.models.tapped import Tapped

DUPLICATE_DISTANCE = 1e-3  # images with a smaller mean absolute difference of normalised pixels are duplicates
ALARM_COVERAGE = 0.5  # of the classes
ALARM_DUPLICATES = 0.1  # of the images
ALARM_KD = 1e-3  # nats
ALARM_ENTROPY = 0.1  # entropy of the mean prediction, divided by ln(classes)


def sample_quality(teacher: Tapped, images: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """Coverage, label agreement, diversity and duplicates of synthetic images (n, channels, height, width).

    coverage: share of classes that the teacher predicts at least once. label_consistency: the label agreement, percent
    of images whose label is the teacher's top-1; None without labels. balance: entropy of the mean prediction divided
    by ln(classes). diversity: mean over predicted classes of the mean pairwise cosine distance between teacher features
    within the class; 0 for copies, None if no class has two images. duplicate_rate: share of images that have a
    duplicate. entropy: mean entropy of the teacher's predictions, in nats. Labels are (n,) int64.
    """
    import torch
    import torch.nn.functional as F

    with torch.no_grad():
        out = teacher.eval().observe(images.contiguous(memory_format=torch.channels_last), taps=("penultimate",))
    p = torch.softmax(out.logits.double(), 1)
    predicted, classes = p.argmax(1), p.shape[1]
    mean_p = p.mean(0)
    features = F.normalize(out.features.double(), dim=1)
    spread = []
    for c in predicted.unique():
        f = features[predicted == c]
        if len(f) > 1:
            similar = f @ f.T
            spread.append(float(1.0 - (similar.sum() - similar.trace()) / (len(f) * (len(f) - 1))))
    flat = images.flatten(1).double()
    distance = torch.cdist(flat, flat, p=1.0) / flat.shape[1]
    distance.fill_diagonal_(math.inf)
    return {
        "images": len(images),
        "coverage": len(predicted.unique()) / classes,
        "label_consistency": None if labels is None else 100.0 * float((predicted == labels).double().mean()),
        "balance": float(-(mean_p * mean_p.clamp_min(1e-12).log()).sum() / math.log(classes)),
        "diversity": sum(spread) / len(spread) if spread else None,
        "duplicate_rate": float((distance.min(1).values < DUPLICATE_DISTANCE).double().mean()),
        "entropy": float(-(p * p.clamp_min(1e-12).log()).sum(1).mean()),
    }


def alarms(quality: dict[str, Any] | None, kd: float | None) -> list[str]:
    """Warnings about collapsed synthesis, one line each. `kd`: KL on synthetic images, in nats.

    The texts are part of `result`, so they must not change within a protocol.
    """
    found = []
    if quality is not None:
        if quality["coverage"] < ALARM_COVERAGE:
            found.append(f"coverage: the images show {quality['coverage']:.0%} of the classes")
        if quality["duplicate_rate"] > ALARM_DUPLICATES:
            found.append(f"duplicates: {quality['duplicate_rate']:.0%} of the images have a twin")
        if kd is not None and kd < ALARM_KD and quality["balance"] < ALARM_ENTROPY:
            found.append("collapse: distillation loss near zero on images of one kind")
    return found


def compute(view: View) -> dict[str, Any] | None:
    """`sample_quality` of the synthetic images of the end of the run."""
    return None if view.synthetic is None else sample_quality(view.teacher, view.synthetic, view.synthetic_labels)


METRIC = Metric(
    "samples",
    compute,
    (
        Column("coverage", "classes that the teacher sees in the synthetic images", "share"),
        Column(
            "label_consistency",
            "label agreement: synthetic images that the teacher takes for the class they were made as",
            "%",
        ),
        Column("diversity", "mean cosine distance of teacher features within a class"),
        Column("duplicate_rate", "synthetic images that have a twin", "share"),
    ),
    source="samples",
    tolerance={
        "label_consistency": lambda edges: 100.0 * edges.samples,
        "coverage": lambda edges: edges.samples * edges.shown / edges.classes,
        "diversity": lambda edges: 8.0 * edges.samples,  # an image can move from one class to another
    },
    place=(4, 3),
)
