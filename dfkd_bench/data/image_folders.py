"""Folders of image files, one per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dfkd_bench.data.array_cache import Samples
from dfkd_bench.data.base import Dataset
from dfkd_bench.errors import RunError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in `folder`, without hidden ones."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def by_class(folder: Path, classes: Sequence[str]) -> Samples:
    """The image files below `folder`/CLASS, sorted by class and name; a class may be empty."""
    from torchvision.datasets.folder import make_dataset

    numbers = {name: number for number, name in enumerate(classes)}
    found = make_dataset(folder, numbers, extensions=SUFFIXES, allow_empty=True)
    return [(Path(path), label) for path, label in found]


def check_class_count(dataset: Dataset, root: Path, classes: Sequence[str]) -> None:
    """Raise `RunError` unless there are as many classes as the dataset has."""
    if len(classes) != dataset.classes:
        raise RunError(
            f"dataset {dataset.name} in {root} has {len(classes)} classes, not {dataset.classes}: it is incomplete"
        )
