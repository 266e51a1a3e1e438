"""Evaluates a finished run: test accuracy of every snapshot, all metrics of the last one."""

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
    """The numbers of a run for its record, curves and predictions file."""

    numbers: dict[str, Any]  # parts of `result`
    columns: dict[str, list[float | None]]  # of the curves, one value per snapshot
    predictions: dict[str, Tensor]
    view: View  # for metrics of other packages


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
    """All metrics of a run from its snapshots (files of student weights, in order of training).

    `probe`: held-out synthetic images and labels (or None) of all snapshots, for the selection of a snapshot by
    agreement. `final`: synthetic images and labels (or None) of the end of the run, for the sample metrics. Both are
    None for methods without preview. `report(snapshot, top1)` is called after each snapshot.
    """
    test = loading.load_test(task.dataset, device)
    images = test.normalised(slice(None))
    t = logits_of(teacher, images)
    t_probe = None if probe is None else logits_of(teacher, probe[0])

    accuracies: list[float] = []
    agreements: list[float | None] = []
    s = torch.empty(0)
    student = place(models.build(task.student, task.dataset.classes, task.dataset.image_shape), device)
    for path in snapshots:
        fail_point("evaluation")
        student.load_state_dict(load_file(path, device=str(device)))
        s = logits_of(student, images)
        accuracies.append(top1(s, test.labels))
        report(len(accuracies) - 1, accuracies[-1])
        if probe is None or t_probe is None:
            agreements.append(None)
        else:
            agreements.append(agreement(logits_of(student, probe[0]), t_probe))

    view = View(
        accuracies, agreements, student_images, top1(t, test.labels), teacher, student, t, s, test.labels, images,
        *(final or (None, None)),
    )  # fmt: skip
    columns: dict[str, list[float | None]] = {"top1": list(accuracies), "probe_agreement": list(agreements)}
    return Evaluation(
        {**curve_metrics(view), **student_metrics(view)}, columns, predictions_of(s, t, test.labels), view
    )


def curve_metrics(curves: Curves) -> dict[str, Any]:
    """The parts of a result that are computed from the curves alone."""
    view = cast(View, curves)  # metrics with source "curves" read only these fields
    return {metric.key: metric.compute(view) for metric in registry.METRICS if metric.source == "curves"}


def student_metrics(view: View) -> dict[str, Any]:
    """The other parts of a result, and the alarms that follow from them."""
    parts: dict[str, Any] = {
        metric.key: metric.compute(view) for metric in registry.METRICS if metric.source != "curves"
    }
    return {**parts, "alarms": alarms(parts["samples"], parts["synthetic_kl"])}


def predictions_of(s: Tensor, t: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Per test image: predicted class of student and teacher, label, and the student's confidence; (n,) each."""
    return {
        "student": s.argmax(1).to(torch.int32).cpu(),
        "teacher": t.argmax(1).to(torch.int32).cpu(),
        "labels": labels.to(torch.int32).cpu(),
        "student_confidence": torch.softmax(s.double(), 1).max(1).values.float().cpu(),
    }
