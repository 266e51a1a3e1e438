"""A run's synthetic images as a labelled grid: read them, ask the teacher, draw."""

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
    """The file of a record's synthetic images. Raises `RunError` where the run left none."""
    result, file = record["result"], Path(record["path"]).parent / FILE
    if result["status"] == "failed":
        raise RunError(f"the run failed ({result.get('error')}): it has no images to show")
    if FILE not in result.get("files", {}):
        raise RunError(f"method {record['spec']['method']} has no images of its own to show")
    if not file.is_file():
        raise RunError(f"{file} is missing: copy it back beside the record")
    return file


def read_samples(record: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """A record's images (n, channels, height, width) and labels, if it has any.

    Raises `RunError` where there are no images or they do not fit the task.
    """
    file, facts = images_file(record), dataset_of(record)
    found = read_images([file], torch.device("cpu"), 1 << 30)
    assert found is not None
    images, labels = found
    if tuple(images.shape[1:]) != facts.image_shape or not len(images):
        raise RunError(f"{file} holds images of shape {tuple(images.shape)}, the task's are {facts.image_shape}")
    return images, labels


@torch.no_grad()
def said_by_teacher(record: dict[str, Any], images: Tensor) -> grid.Labels | None:
    """The class that the record's teacher sees in each image.

    None where that teacher is not registered here, or what another package brought of its task is not as it was.
    """
    teacher_entry = next((t for t in teachers().values() if t.sha256 == record["spec"]["teacher"]), None)
    if teacher_entry is None or any(missing(record)):
        return None
    said: grid.Labels = load_teacher(teacher_entry, torch.device("cpu"))(images).argmax(1).numpy()
    return said


def picture(record: dict[str, Any], rows: int, columns: int) -> tuple[bytes, str]:
    """The PNG of a record's images and one line about it; `rows` classes, `columns` images of each at most.

    Raises `RunError` where there are no images or they do not fit the task.
    """
    spec, result = record["spec"], record["result"]
    facts = dataset_of(record)
    images, labels = read_samples(record)
    said = said_by_teacher(record, images)
    known = None if labels is None else labels.numpy()
    chosen = grid.choose(grid.visible(images.numpy(), facts), known, said, rows, columns)

    shown = sum(len(row.images) for row in chosen)
    wrong = sum(bool(caption) for row in chosen for caption in row.captions)
    note = f"{wrong} of {shown} shown: the teacher sees another class, given in the corner" if wrong else ""
    margin = "pseudo-label" if known is not None else "the teacher's answer" if said is not None else ""
    title = f"{spec['method']} ({spec['preset']}) on {spec['task']}, seed {spec['seed']}"
    about = [f"{result['counts']['student_images']:,} student images", f"{spec['track']}/{spec['budget']}"]
    about.append(f"student {result['accuracy']['last']:.2f} %")
    if margin and len(chosen) < facts.classes:
        about.append(f"{len(chosen)} of {facts.classes} classes")
    payload = grid.draw(chosen, title, " · ".join(about), margin, note)
    seen = "its teacher is not here" if said is None else f"{wrong} seen as another class by the teacher"
    return payload, f"{shown} of {len(images)} images" + (f", {seen}" if known is not None or said is None else "")
