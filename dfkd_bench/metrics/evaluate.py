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
from dfkd_bench.data import loading
from dfkd_bench.metrics import accuracy, convergence, sample_quality
from dfkd_bench.metrics.fidelity import fidelity
from dfkd_bench.metrics.realism import realism
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.protocol import Task
from dfkd_bench.utils.fail_points import fail_point


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
    test = loading.load_test(task.dataset, device)
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

    numbers = {
        **over_run(accuracies, agreements, student_images, accuracy.top1(t, test.labels)),
        **of_last(teacher, twin, s, t, test.labels, final, images),
    }
    columns: dict[str, list[float | None]] = {"top1": list(accuracies), "probe_agreement": agreements}
    return Evaluation(numbers, columns, predictions_of(s, t, test.labels))


def over_run(
    accuracies: Sequence[float],
    agreements: Sequence[float | None],
    student_images: Sequence[float],
    teacher_top1: float,
) -> dict[str, Any]:
    """What the snapshots give together: accuracy and convergence. All in percent, a value per snapshot."""
    return {
        "accuracy": accuracy.over_snapshots(accuracies, agreements),
        "convergence": {
            "student_images_to": convergence.first_reaching(accuracies, student_images, teacher_top1),
            "area": convergence.area(accuracies, student_images),
        },
    }


def of_last(
    teacher: Tapped,
    student: Tapped,
    s: Tensor,
    t: Tensor,
    labels: Tensor,
    final: tuple[Tensor, Tensor | None] | None,
    images: Tensor,
) -> dict[str, Any]:
    """What the last student gives alone.

    From the logits `s` of student and `t` of teacher (n, classes) on the test set, and from the images `final` of the
    last generator (None where there are none) beside the test images `images`.
    """
    close = fidelity(s, t, labels)
    quality, kd = on_samples(teacher, student, final)
    return {
        "fidelity": close,
        "rel_teacher": accuracy.top1(s, labels) / close["teacher_top1"],
        "samples": quality,
        "realism": None if final is None else realism(teacher, images, final[0]),
        "synthetic_kl": kd,
        "alarms": sample_quality.alarms(quality, kd),
    }


def predictions_of(s: Tensor, t: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Per test image the classes that student and teacher predict, the label, and the student's confidence."""
    return {
        "student": s.argmax(1).to(torch.int32).cpu(),
        "teacher": t.argmax(1).to(torch.int32).cpu(),
        "labels": labels.to(torch.int32).cpu(),
        "student_confidence": torch.softmax(s.double(), 1).max(1).values.float().cpu(),
    }


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
    return sample_quality.sample_quality(teacher, *final), float((log_t.exp() * (log_t - log_s)).sum(1).mean())
