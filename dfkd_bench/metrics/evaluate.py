"""Evaluate a finished run: every snapshot on a fresh twin of the student, the last one in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from dfkd_bench import models
from dfkd_bench.data import loading
from dfkd_bench.metrics import registry
from dfkd_bench.metrics.base import Curves, View
from dfkd_bench.metrics.logits import agreement, logits_of, top1
from dfkd_bench.metrics.recorded.samples import alarms
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.protocol import Task
from dfkd_bench.utils.fail_points import fail_point


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Numbers for the record, per-snapshot columns for the curves, predictions for a file beside it."""

    numbers: dict[str, Any]
    columns: dict[str, list[float | None]]
    predictions: dict[str, Tensor]
    view: View  # of the run, for metrics of other packages


def evaluate(
    task: Task,
    teacher: Tapped,
    snapshots: Sequence[Path],
    student_images: Sequence[float],
    probe: tuple[Tensor, Tensor | None] | None,
    final: tuple[Tensor, Tensor | None] | None,
    device: torch.device,
    report: Callable[[int, float], None] = lambda snapshot, top1: None,
) -> Evaluation:
    """All metrics over the snapshots (student weights in order of training).

    `probe`: held-out synthetic images pooled over the run, on which agreement selects a snapshot; `final`: images and
    labels (or None) of the last generator, whose quality is judged. Both None for methods without images to show.
    `report(snapshot, top1)` is called as each snapshot has been tested.
    """
    test = loading.load_test(task.dataset, device)
    images = test.normalised(slice(None))
    t = logits_of(teacher, images)
    t_probe = None if probe is None else logits_of(teacher, probe[0])

    accuracies: list[float] = []
    agreements: list[float | None] = []
    s = torch.empty(0)
    twin = place(models.build(task.student, task.dataset.classes, task.dataset.image_shape), device)
    for path in snapshots:
        fail_point("evaluation")
        twin.load_state_dict(load_file(path, device=str(device)))
        s = logits_of(twin, images)
        accuracies.append(top1(s, test.labels))
        report(len(accuracies) - 1, accuracies[-1])
        agreed = None
        if probe is not None and t_probe is not None:
            agreed = agreement(logits_of(twin, probe[0]), t_probe)
        agreements.append(agreed)

    view = View(
        accuracies, agreements, student_images, top1(t, test.labels), teacher, twin, t, s, test.labels, images,
        *(final or (None, None)),
    )  # fmt: skip
    columns: dict[str, list[float | None]] = {"top1": list(accuracies), "probe_agreement": list(agreements)}
    return Evaluation(
        {**curve_metrics(view), **student_metrics(view)}, columns, predictions_of(s, t, test.labels), view
    )


def curve_metrics(curves: Curves) -> dict[str, Any]:
    """The parts of a result that follow from the curves alone."""
    view = cast(View, curves)  # these metrics read nothing else of it
    return {metric.key: metric.compute(view) for metric in registry.METRICS if metric.source == "curves"}


def student_metrics(view: View) -> dict[str, Any]:
    """The parts of a result that need the student, and the alarms, which follow from them."""
    found: dict[str, Any] = {
        metric.key: metric.compute(view) for metric in registry.METRICS if metric.source != "curves"
    }
    return {**found, "alarms": alarms(found["samples"], found["synthetic_kl"])}


def predictions_of(s: Tensor, t: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Per test image the classes that student and teacher predict, the label, and the student's confidence."""
    return {
        "student": s.argmax(1).to(torch.int32).cpu(),
        "teacher": t.argmax(1).to(torch.int32).cpu(),
        "labels": labels.to(torch.int32).cpu(),
        "student_confidence": torch.softmax(s.double(), 1).max(1).values.float().cpu(),
    }
