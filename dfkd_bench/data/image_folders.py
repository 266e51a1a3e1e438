"""Datasets that come as folders of JPEG files: which files belong to which split, with which labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dfkd_bench.data.array_cache import Samples, source_of
from dfkd_bench.data.catalog import DatasetFacts
from dfkd_bench.data.home import require
from dfkd_bench.data.source import Source
from dfkd_bench.errors import RunError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are no classes."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def by_class(folder: Path, classes: Sequence[str]) -> Samples:
    """The image files below `folder`/CLASS, sorted by class and name; a class may be empty."""
    from torchvision.datasets.folder import make_dataset

    numbers = {name: number for number, name in enumerate(classes)}
    found = make_dataset(folder, numbers, extensions=SUFFIXES, allow_empty=True)
    return [(Path(path), label) for path, label in found]


def _expect(facts: DatasetFacts, root: Path, classes: Sequence[str]) -> None:
    if len(classes) != facts.classes:
        raise RunError(
            f"dataset {facts.name} in {root} has {len(classes)} classes, not {facts.classes}: it is not whole"
        )


def tiny_imagenet(facts: DatasetFacts) -> Source:
    """Tiny-ImageNet as in its archive. Classes are numbered in the order of their sorted WordNet names.

    The validation images lie in one folder; their labels come from its annotations, wherever below `val` a script
    may have moved the files.
    """
    root = require(facts)
    top = root / "tiny-imagenet-200"
    names, notes = top / "wnids.txt", top / "val" / "val_annotations.txt"
    classes = sorted(names.read_text().split())
    _expect(facts, root, classes)
    missing = next((name for name in classes if not (top / "train" / name).is_dir()), None)
    if missing:
        raise RunError(f"dataset {facts.name}: there is no folder {top / 'train' / missing}")
    files = {path.name: path for path in (top / "val").rglob("*.JPEG")}
    test = []
    for line in notes.read_text().splitlines():
        file, name, *_ = [*line.split("\t"), ""]
        if file not in files or name not in classes:
            raise RunError(f"dataset {facts.name}: {notes} names {file!r} of class {name!r}, which is not here")
        test.append((files[file], classes.index(name)))
    train = by_class(top / "train", classes)
    return source_of(facts, root, {"train": train, "test": test}, also=(names, notes))


def caltech101(facts: DatasetFacts) -> Source:
    """Caltech-101 split class by class: of n images, max(floor(0.2 n), 2) for testing, a published rule.

    Which ones is decided by the SHA-256 of their names: by chance, and the same on every machine for ever.
    """
    root = require(facts)
    top = root / "caltech101" / "101_ObjectCategories"
    classes = [name for name in class_folders(top) if name != "BACKGROUND_Google"]
    _expect(facts, root, classes)
    everything = by_class(top, classes)
    train: list[tuple[Path, int]] = []
    test: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        mine = [sample for sample in everything if sample[1] == label]
        drawn = sorted(mine, key=lambda sample: hashlib.sha256(f"{name}/{sample[0].name}".encode()).digest())
        chosen = set(drawn[: max(len(mine) // 5, 2)])
        test += [sample for sample in mine if sample in chosen]
        train += [sample for sample in mine if sample not in chosen]
    return source_of(facts, root, {"train": train, "test": test})


def imagenette(facts: DatasetFacts) -> Source:
    """Imagenette, 160 px edition; its validation images are the test split."""
    root = require(facts)
    top = root / "imagenette2-160"
    classes = class_folders(top / "train")
    _expect(facts, root, classes)
    return source_of(facts, root, {"train": by_class(top / "train", classes), "test": by_class(top / "val", classes)})
