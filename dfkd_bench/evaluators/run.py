"""Evaluate a finished run: every snapshot on a fresh twin of the student, the last one in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dfkd_bench import models
from dfkd_bench.data import door
from dfkd_bench.evaluators import accuracy, convergence, samples
from dfkd_bench.evaluators.fidelity import fidelity
from dfkd_bench.faults import fail_point
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.protocol import Task


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Numbers for the record, per-snapshot columns for the curves, predictions for a file beside it."""

    numbers: dict[str, Any]
    columns: dict[str, list[float | None]]
    predictions: dict[str, Tensor]


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
    """All evaluators over the snapshots (student weights in order of training).

    `probe`: held-out synthetic images pooled over the run, on which agreement selects a snapshot; `final`: images and
    labels (or None) of the last generator, whose quality is judged. Both None for methods without images to show.
    `report(snapshot, top1)` is called as each snapshot has been tested.
    """
    test = door.load_test(task.dataset, device)
    images = test.normalised(slice(None))
    t = accuracy.logits_of(teacher, images)
    t_probe = None if probe is None else accuracy.logits_of(teacher, probe[0])

    accuracies: list[float] = []
    agreements: list[float | None] = []
    s = torch.empty(0)
    twin = place(models.build(task.student, task.dataset.classes, task.dataset.image_shape), device)
    for path in snapshots:
        fail_point("evaluation")
        twin.load_state_dict(load_file(path, device=str(device)))
        s = accuracy.logits_of(twin, images)
        accuracies.append(accuracy.top1(s, test.labels))
        report(len(accuracies) - 1, accuracies[-1])
        agreed = None
        if probe is not None and t_probe is not None:
            agreed = agreement(accuracy.logits_of(twin, probe[0]), t_probe)
        agreements.append(agreed)

    close = fidelity(s, t, test.labels)
    quality, kd = on_samples(teacher, twin, final)
    teacher_top1 = close["teacher_top1"]
    numbers = {
        "accuracy": accuracy.over_snapshots(accuracies, agreements),
        "fidelity": close,
        "rel_teacher": accuracies[-1] / teacher_top1,
        "samples": quality,
        "synthetic_kl": kd,
        "convergence": {
            "student_images_to": convergence.first_reaching(accuracies, student_images, teacher_top1),
            "area": convergence.area(accuracies, student_images),
        },
        "alarms": samples.alarms(quality, kd),
    }
    predictions = {
        "student": s.argmax(1).to(torch.int32).cpu(),
        "teacher": t.argmax(1).to(torch.int32).cpu(),
        "labels": test.labels.to(torch.int32).cpu(),
        "student_confidence": torch.softmax(s.double(), 1).max(1).values.float().cpu(),
    }
    return Evaluation(numbers, {"top1": list(accuracies), "probe_agreement": agreements}, predictions)


def agreement(s: Tensor, t: Tensor) -> float:
    """Percent of rows of two tables of logits (n, classes) with the same top-1."""
    return 100.0 * float((s.argmax(1) == t.argmax(1)).double().mean())


def on_samples(
    teacher: Tapped, student: Tapped, final: tuple[Tensor, Tensor | None] | None
) -> tuple[dict[str, Any] | None, float | None]:
    """Quality of the synthetic images `final` and mean KL(teacher || student) on them, nats; None without images."""
    if final is None:
        return None, None
    log_s, log_t = (torch.log_softmax(accuracy.logits_of(m, final[0]).double(), 1) for m in (student, teacher))
    return samples.sample_quality(teacher, *final), float((log_t.exp() * (log_t - log_s)).sum(1).mean())
