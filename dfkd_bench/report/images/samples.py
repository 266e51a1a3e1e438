"""A run's synthetic images as a labelled grid: read the images, run the teacher, draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_bench.errors import RunError
from dfkd_bench.report.images import grid
from dfkd_bench.runs.task_plugins import dataset_of, missing
from dfkd_bench.teachers.registry import load_teacher, teachers
from dfkd_bench.training.storage import read_images

FILE = "samples.safetensors"


def images_file(record: dict[str, Any]) -> Path:
    """The file of a record's synthetic images. Raises `RunError` if there is none."""
    result, file = record["result"], Path(record["path"]).parent / FILE
    if result["status"] == "failed":
        raise RunError(f"the run failed ({result.get('error')}): it has no images to show")
    if FILE not in result.get("files", {}):
        raise RunError(f"method {record['spec']['method']} saved no synthetic images")
    if not file.is_file():
        raise RunError(f"{file} is missing: copy it back beside the record")
    return file


def read_samples(record: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """A record's images (n, channels, height, width) and labels (n,), or None for the labels.

    Raises `RunError` if there are no images or they do not fit the task.
    """
    file, dataset = images_file(record), dataset_of(record)
    content = read_images([file], torch.device("cpu"), 1 << 30)
    assert content is not None
    images, labels = content
    if tuple(images.shape[1:]) != dataset.image_shape or not len(images):
        raise RunError(f"{file} holds images of shape {tuple(images.shape)}, the task needs {dataset.image_shape}")
    return images, labels


@torch.no_grad()
def teacher_answers(record: dict[str, Any], images: Tensor) -> grid.Labels | None:
    """The class that the record's teacher predicts for each image (n,).

    None if that teacher is not registered, or if a plug-in of the record's task is missing or has changed.
    """
    teacher_entry = next((t for t in teachers().values() if t.sha256 == record["spec"]["teacher"]), None)
    if teacher_entry is None or any(missing(record)):
        return None
    predicted: grid.Labels = load_teacher(teacher_entry, torch.device("cpu"))(images).argmax(1).numpy()
    return predicted


def picture(record: dict[str, Any], rows: int, columns: int) -> tuple[bytes, str]:
    """The PNG of a record's images and one line about it: at most `rows` classes with `columns` images each.

    Raises `RunError` if there are no images or they do not fit the task.
    """
    spec, result = record["spec"], record["result"]
    dataset = dataset_of(record)
    images, labels = read_samples(record)
    predicted = teacher_answers(record, images)
    known_labels = None if labels is None else labels.numpy()
    grid_rows = grid.choose(grid.visible(images.numpy(), dataset), known_labels, predicted, rows, columns)

    shown = sum(len(row.images) for row in grid_rows)
    wrong = sum(bool(caption) for row in grid_rows for caption in row.captions)
    note = f"{wrong} of {shown} shown: the teacher predicts another class, given in the corner" if wrong else ""
    margin = "pseudo-label" if known_labels is not None else "teacher's class" if predicted is not None else ""
    title = f"{spec['method']} ({spec['preset']}) on {spec['task']}, seed {spec['seed']}"
    parts = [f"{result['counts']['student_images']:,} student images", f"{spec['track']}/{spec['budget']}"]
    parts.append(f"student {result['accuracy']['last']:.2f} %")
    if margin and len(grid_rows) < dataset.classes:
        parts.append(f"{len(grid_rows)} of {dataset.classes} classes")
    payload = grid.draw(grid_rows, title, " · ".join(parts), margin, note)
    summary = f"{shown} of {len(images)} images"
    if predicted is None:
        return payload, f"{summary}, its teacher is not available on this machine"
    return payload, summary + f", {wrong} for which the teacher predicts another class" * (known_labels is not None)
