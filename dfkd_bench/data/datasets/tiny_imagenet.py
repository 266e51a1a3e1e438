"""Tiny-ImageNet: 200 classes of ImageNet at 64x64; its validation images are the test split. Stanford CS231n."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset, Download
from dfkd_bench.data.home import require_folder
from dfkd_bench.errors import RunError

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source

ADDRESS = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def read(dataset: Dataset) -> Source:
    """The folders of the archive. Classes are numbered in the order of their sorted WordNet names.

    The labels of the validation images come from the annotation file. The images may be anywhere below `val`, because
    common scripts move them into one folder per class.
    """
    from dfkd_bench.data.array_cache import source_of
    from dfkd_bench.data.image_folders import by_class, check_class_count

    root = require_folder(dataset)
    top = root / "tiny-imagenet-200"
    names, annotations = top / "wnids.txt", top / "val" / "val_annotations.txt"
    classes = sorted(names.read_text().split())
    check_class_count(dataset, root, classes)
    missing = next((name for name in classes if not (top / "train" / name).is_dir()), None)
    if missing:
        raise RunError(f"dataset {dataset.name}: there is no folder {top / 'train' / missing}")
    files = {path.name: path for path in (top / "val").rglob("*.JPEG")}
    test = []
    for line in annotations.read_text().splitlines():
        file, name, *_ = [*line.split("\t"), ""]
        if file not in files or name not in classes:
            raise RunError(f"dataset {dataset.name}: {annotations} lists {file!r} of class {name!r}, which is missing")
        test.append((files[file], classes.index(name)))
    train = by_class(top / "train", classes)
    return source_of(dataset, root, {"train": train, "test": test}, also=(names, annotations))


def download(root: Path, address: str = ADDRESS, md5: str = MD5) -> None:
    """The archive, unpacked."""
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(address, root, md5=md5)


DATASET = Dataset(
    name="tiny-imagenet",
    classes=200,
    image_shape=(3, 64, 64),
    mean=(0.5,) * 3,  # as in published scripts
    std=(0.5,) * 3,
    train_size=100000,
    test_size=10000,
    crop_padding=4,
    flip=True,
    reader=read,
    files=("*/tiny-imagenet-200/*", "*tiny-imagenet-200.zip"),
    about="200 classes of ImageNet at 64x64; its validation images are the test split",
    source="Stanford CS231n, terms of ImageNet (non-commercial)",
    needs=tuple(f"tiny-imagenet-200/{f}" for f in ("train", "val/val_annotations.txt", "wnids.txt")),
    download=Download(ADDRESS, 248, download),
)
