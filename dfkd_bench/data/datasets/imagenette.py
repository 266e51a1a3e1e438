"""Imagenette: 10 easy classes of ImageNet, 160 px version; its validation images are the test split. fast.ai."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset, Download
from dfkd_bench.data.home import require_folder

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source


def read(dataset: Dataset) -> Source:
    """Images (n, 3, 128, 128), classes in the order of their folders."""
    from dfkd_bench.data.array_cache import source_of
    from dfkd_bench.data.image_folders import by_class, check_class_count, class_folders

    root = require_folder(dataset)
    top = root / "imagenette2-160"
    classes = class_folders(top / "train")
    check_class_count(dataset, root, classes)
    return source_of(dataset, root, {"train": by_class(top / "train", classes), "test": by_class(top / "val", classes)})


def download(root: Path) -> None:
    """One archive with both splits."""
    from torchvision.datasets import Imagenette

    Imagenette(root, split="train", size="160px", download=True)


DATASET = Dataset(
    name="imagenette",
    classes=10,
    image_shape=(3, 128, 128),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    train_size=9469,
    test_size=3925,
    crop_padding=12,
    flip=True,
    reader=read,
    files=("*/imagenette2-160/*", "*/imagenette2-160.tgz"),
    about="10 easy classes of ImageNet (160 px edition), short side to 128, centre crop",
    source="fast.ai, Apache 2.0, images on the terms of ImageNet",
    needs=("imagenette2-160/train", "imagenette2-160/val"),
    download=Download("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz", 99, download),
)
