"""Caltech-101: 101 objects without the background class, 80/20 by class. Li et al. 2003."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset, Download
from dfkd_bench.data.home import require_folder

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source


def read(dataset: Dataset) -> Source:
    """Split per class: of n images, max(floor(0.2 n), 2) are test images (a published rule).

    The test images are those with the lowest SHA-256 of their names: a random choice that is the same everywhere.
    """
    from dfkd_bench.data.array_cache import source_of
    from dfkd_bench.data.image_folders import by_class, check_class_count, class_folders

    root = require_folder(dataset)
    top = root / "caltech101" / "101_ObjectCategories"
    classes = [name for name in class_folders(top) if name != "BACKGROUND_Google"]
    check_class_count(dataset, root, classes)
    everything = by_class(top, classes)
    train: list[tuple[Path, int]] = []
    test: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        of_class = [sample for sample in everything if sample[1] == label]
        shuffled = sorted(of_class, key=lambda sample: hashlib.sha256(f"{name}/{sample[0].name}".encode()).digest())
        held_out = set(shuffled[: max(len(of_class) // 5, 2)])
        test += [sample for sample in of_class if sample in held_out]
        train += [sample for sample in of_class if sample not in held_out]
    return source_of(dataset, root, {"train": train, "test": test})


def download(root: Path) -> None:
    """The archive, unpacked."""
    from torchvision.datasets import Caltech101

    Caltech101(root, download=True)


DATASET = Dataset(
    name="caltech101",
    classes=101,
    image_shape=(3, 128, 128),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    train_size=6983,
    test_size=1694,
    crop_padding=12,
    flip=True,
    reader=read,
    files=("*/101_ObjectCategories/*", "*101_ObjectCategories.tar*", "*/caltech-101.zip"),
    about="101 objects without the background class, 80/20 by class, short side to 128, centre crop",
    source="Li et al. 2003, CC BY 4.0",
    needs=("caltech101/101_ObjectCategories",),
    download=Download("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip", 137, download),
)
