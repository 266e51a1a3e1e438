"""`folder:PATH`: a user's own images as a dataset, in the layout of torchvision's ImageFolder.

PATH/train/CLASS/* and PATH/test/CLASS/* (or PATH/val/CLASS/*); or only PATH/CLASS/*, which are then all test images.
PATH/dataset.toml may set `image_shape`, `mean`, `std`, `crop_padding` and `flip`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from dfkd_bench.data.array_cache import Samples, Shape, cache_name, cached_measurement, header, mean_and_std, source_of
from dfkd_bench.data.base import FOLDER, Dataset
from dfkd_bench.data.image_folders import by_class, class_folders
from dfkd_bench.data.source import SPLITS, Source, Which, stamp_of
from dfkd_bench.errors import UsageError
from dfkd_bench.utils import guard
from dfkd_bench.utils.parse import check, read_toml

TOML = "dataset.toml"
PARTS: dict[str, Which] = {"train": "train", "test": "test", "val": "test"}  # folder -> split
Key = tuple[Path, Shape | None]
_facts: dict[Key, tuple[str, Dataset]] = {}  # with the stamp of the folder when they were read


@dataclass(frozen=True)
class _Layout:
    """The class names in order, and the folder of each split."""

    root: Path
    classes: list[str]
    parts: dict[Which, Path]

    @property
    def class_paths(self) -> list[Path]:
        return [part / name for part in self.parts.values() for name in self.classes]

    def samples(self) -> dict[Which, Samples]:
        return {split: by_class(self.parts[split], self.classes) if split in self.parts else [] for split in SPLITS}


def facts(path: str, image_shape: Shape | None = None) -> Dataset:
    """Facts of the images at `path`; `image_shape` (channels, height, width) overrides that of its dataset.toml.

    Values not given are measured once: the shape (the same for all images), mean and standard deviation of the training
    images (0.5 if there are none). Raises `UsageError` for a folder with a wrong layout.
    """
    layout = _layout(path)
    root, toml = layout.root, layout.root / TOML
    flat = root in layout.parts.values()
    guard.watch(FOLDER + str(root), layout.class_paths if flat else layout.parts.values())
    # an added or removed file changes the modification time of its folder, so the folders are enough for the stamp
    stamp = stamp_of(root, [path for path in (*layout.class_paths, toml) if path.exists()])
    cached = _facts.get((root, image_shape))
    if cached is None or cached[0] != stamp:
        cached = _facts[root, image_shape] = stamp, _read_facts(layout, image_shape)
    return cached[1]


def _read_facts(layout: _Layout, image_shape: Shape | None) -> Dataset:
    root, samples = layout.root, layout.samples()
    if not samples["test"]:
        raise UsageError(f"folder {root} has no test images: its folders {', '.join(layout.classes)} are empty")
    settings = read_settings(root / TOML)
    if image_shape:
        settings["image_shape"] = image_shape
    facts = Dataset(
        name=FOLDER + str(root),
        classes=len(layout.classes),
        image_shape=settings.get("image_shape") or (0, 0, 0),
        mean=settings.get("mean", ()),
        std=settings.get("std", ()),
        train_size=len(samples["train"]),
        test_size=len(samples["test"]),
        flip=settings.get("flip", False),  # off by default: a flip may change the class of unknown images
        reader=source,
        about=f"images in {root}",
        home=str(root),
    )
    if not facts.image_shape[0]:
        facts = replace(facts, image_shape=_common_shape(facts, samples))
    channels, height, _ = facts.image_shape
    for key in ("mean", "std"):
        if key in settings and len(settings[key]) != channels:
            raise UsageError(f"{root / TOML}: {key} has {len(settings[key])} values for images of {channels} channels")
    if not (facts.mean and facts.std):
        mean, std = _normalisation(facts)
        facts = replace(facts, mean=facts.mean or mean, std=facts.std or std)
    return replace(facts, crop_padding=settings.get("crop_padding", height // 8))


def source(facts: Dataset) -> Source:
    """The images of the folder, in the shape of `facts`."""
    layout = _layout(facts.home)
    return source_of(facts, layout.root, layout.samples())


def _layout(path: str) -> _Layout:
    root = Path(os.path.abspath(os.path.expanduser(path)))
    what = f"folder {root}"
    if not path or not root.is_dir():
        raise UsageError(f"{FOLDER}{path}: there is no such folder")
    # a split folder contains folders; a class named `train` contains images
    named = {part: class_folders(root / part) for part in PARTS if (root / part).is_dir()}
    named = {part: classes for part, classes in named.items() if classes}
    if not named:
        return _Layout(root, _check_class_count(class_folders(root), what), {"test": root})
    tested = next((part for part in ("test", "val") if part in named), None)
    if tested is None:
        raise UsageError(f"{what} has train/ but neither test/ nor val/: add test images")
    classes = _check_class_count(named[tested], f"{what}/{tested}")
    parts: dict[Which, Path] = {"test": root / tested}
    if "train" in named:
        unmatched = sorted(set(named["train"]) ^ set(classes))
        if unmatched:
            name = unmatched[0]
            present, missing = ("train", tested) if name in named["train"] else (tested, "train")
            raise UsageError(f"{what}: class {name!r} is in {present}/ but not in {missing}/; the classes must agree")
        parts["train"] = root / "train"
    return _Layout(root, classes, parts)


def _check_class_count(classes: list[str], what: str) -> list[str]:
    if len(classes) < 2:
        raise UsageError(f"{what} must have one folder of images per class, at least two; it has {len(classes)}")
    return classes


def _common_shape(facts: Dataset, samples: dict[Which, Samples]) -> Shape:
    """The common shape of all images; one channel if all are grey. Raises `UsageError` if their sizes differ."""
    root = Path(facts.home)
    paths = [path for split in SPLITS for path, _ in samples[split]]

    def measure() -> dict[str, Any]:
        height, width, grey = header(paths[0])
        for path in paths[1:]:
            h, w, is_grey = header(path)
            if (h, w) != (height, width):
                side = min(height, width, h, w)
                raise UsageError(
                    f"images in {root} differ in size: {paths[0].relative_to(root)} is {width}x{height}, "
                    f"{path.relative_to(root)} is {w}x{h}; set a common shape in {root / TOML}, such as "
                    f"image_shape = [3, {side}, {side}]"
                )
            grey = grey and is_grey
        return {"image_shape": [1 if grey else 3, height, width]}

    channels, height, width = cached_measurement(f"{cache_name(facts)}-shape", stamp_of(root, paths), measure)[
        "image_shape"
    ]
    return int(channels), int(height), int(width)


def _normalisation(facts: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the training images, 0.5 if there are none."""
    if not facts.train_size:
        return (0.5,) * facts.image_shape[0], (0.5,) * facts.image_shape[0]
    images = source(facts)
    stamp = images.stamp.rpartition("|")[2]

    def measure() -> dict[str, Any]:
        mean, std = mean_and_std(images.read("train")[0])
        # images of a single colour have deviation 0, by which nothing can be divided
        return {"mean": mean, "std": [s or 1.0 for s in std]}

    result = cached_measurement(f"{cache_name(facts)}-mean", stamp, measure)
    return tuple(result["mean"]), tuple(result["std"])


def read_settings(toml: Path) -> dict[str, Any]:
    """The checked values of a dataset.toml; empty if there is no file. Raises `UsageError` with file and key."""
    if not toml.is_file():
        return {}
    return check(read_toml(toml), SETTINGS, str(toml), "must be {}, not {!r:.200}")


def _numbers(least: float) -> Any:
    return Annotated[tuple[Annotated[float, Meta(ge=least, le=1)], ...], Meta(min_length=1)]


Size = Annotated[int, Meta(ge=1)]
# key -> type, and the type in words
SETTINGS: dict[str, tuple[Any, str]] = {
    "image_shape": (tuple[Literal[1, 3], Size, Size], "[channels, height, width] with 1 or 3 channels"),
    "mean": (_numbers(0.0), "a list of numbers from 0 to 1, one for each channel"),
    "std": (_numbers(1e-6), "a list of numbers above 0, at most 1, one for each channel"),
    "crop_padding": (Annotated[int, Meta(ge=0)], "a number of pixels"),
    "flip": (bool, "true or false"),
}
