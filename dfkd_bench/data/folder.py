"""`folder:PATH`: images of one's own as a dataset, laid out as torchvision's ImageFolder wants them.

PATH/train/CLASS/* and PATH/test/CLASS/* (or PATH/val/CLASS/*); or PATH/CLASS/* alone, images for testing only.
PATH/dataset.toml may state `image_shape`, `mean`, `std`, `crop_padding` and `flip`.
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
_facts: dict[Key, tuple[str, Dataset]] = {}  # with a cheap sign of the folder as it was


@dataclass(frozen=True)
class _Layout:
    """Where the images of each split are, and their classes in order."""

    root: Path
    classes: list[str]
    parts: dict[Which, Path]

    @property
    def class_paths(self) -> list[Path]:
        return [part / name for part in self.parts.values() for name in self.classes]

    def samples(self) -> dict[Which, Samples]:
        return {split: by_class(self.parts[split], self.classes) if split in self.parts else [] for split in SPLITS}


def facts(path: str, image_shape: Shape | None = None) -> Dataset:
    """Facts of the images at `path`; `image_shape` (channels, height, width) goes before what its dataset.toml says.

    What no file states is measured, once: the shape (all images must agree), mean and standard deviation of the
    training images (without any: 0.5). Raises `UsageError` for a folder that is not laid out as a dataset.
    """
    layout = _layout(path)
    root, toml = layout.root, layout.root / TOML
    flat = root in layout.parts.values()
    guard.watch(FOLDER + str(root), layout.class_paths if flat else layout.parts.values())
    # a new or a lost file changes the time of its folder; looking at folders alone keeps naming a dataset cheap
    sign = stamp_of(root, [path for path in (*layout.class_paths, toml) if path.exists()])
    known = _facts.get((root, image_shape))
    if known is None or known[0] != sign:
        known = _facts[root, image_shape] = sign, _read_facts(layout, image_shape)
    return known[1]


def _read_facts(layout: _Layout, image_shape: Shape | None) -> Dataset:
    root, samples = layout.root, layout.samples()
    if not samples["test"]:
        raise UsageError(
            f"folder {root} has no image files to test on: its folders {', '.join(layout.classes)} are empty"
        )
    said = read_settings(root / TOML)
    if image_shape:
        said["image_shape"] = image_shape
    found = Dataset(
        name=FOLDER + str(root),
        classes=len(layout.classes),
        image_shape=said.get("image_shape") or (0, 0, 0),
        mean=said.get("mean", ()),
        std=said.get("std", ()),
        train_size=len(samples["train"]),
        test_size=len(samples["test"]),
        flip=said.get("flip", False),  # what a flip does to images that nobody described, nobody knows
        reader=source,
        about=f"images in {root}",
        home=str(root),
    )
    if not found.image_shape[0]:
        found = replace(found, image_shape=_common_shape(found, samples))
    channels, height, _ = found.image_shape
    for key in ("mean", "std"):
        if key in said and len(said[key]) != channels:
            raise UsageError(f"{root / TOML}: {key} has {len(said[key])} values for images of {channels} channels")
    if not (found.mean and found.std):
        mean, std = _normalisation(found)
        found = replace(found, mean=found.mean or mean, std=found.std or std)
    return replace(found, crop_padding=said.get("crop_padding", height // 8))


def source(facts: Dataset) -> Source:
    """The images for the door, in the shape that `facts` states."""
    layout = _layout(facts.home)
    return source_of(facts, layout.root, layout.samples())


def _layout(path: str) -> _Layout:
    root = Path(os.path.abspath(os.path.expanduser(path)))
    what = f"folder {root}"
    if not path or not root.is_dir():
        raise UsageError(f"{FOLDER}{path}: there is no such folder")
    # a split holds folders; a class that happens to be called `train` holds images
    named = {part: class_folders(root / part) for part in PARTS if (root / part).is_dir()}
    named = {part: classes for part, classes in named.items() if classes}
    if not named:
        return _Layout(root, _check_class_count(class_folders(root), what), {"test": root})
    tested = next((part for part in ("test", "val") if part in named), None)
    if tested is None:
        raise UsageError(f"{what} has train/ but neither test/ nor val/: there is nothing to evaluate on")
    classes = _check_class_count(named[tested], f"{what}/{tested}")
    parts: dict[Which, Path] = {"test": root / tested}
    if "train" in named:
        odd = sorted(set(named["train"]) ^ set(classes))
        if odd:
            there, missing = ("train", tested) if odd[0] in named["train"] else (tested, "train")
            raise UsageError(f"{what}: class {odd[0]!r} is in {there}/ but not in {missing}/; the classes must agree")
        parts["train"] = root / "train"
    return _Layout(root, classes, parts)


def _check_class_count(classes: list[str], what: str) -> list[str]:
    if len(classes) < 2:
        raise UsageError(f"{what} must have a folder of images for each class, at least two; it has {len(classes)}")
    return classes


def _common_shape(facts: Dataset, samples: dict[Which, Samples]) -> Shape:
    """The shape of all images, grey if all are. Raises `UsageError` where they differ in size."""
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
                    f"{path.relative_to(root)} is {w}x{h}; say in {root / TOML} what to bring them to, such as "
                    f"image_shape = [3, {side}, {side}]"
                )
            grey = grey and is_grey
        return {"image_shape": [1 if grey else 3, height, width]}

    channels, height, width = cached_measurement(f"{cache_name(facts)}-shape", stamp_of(root, paths), measure)[
        "image_shape"
    ]
    return int(channels), int(height), int(width)


def _normalisation(facts: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the training images, 0.5 where there are none."""
    if not facts.train_size:
        return (0.5,) * facts.image_shape[0], (0.5,) * facts.image_shape[0]
    images = source(facts)
    stamp = images.stamp.rpartition("|")[2]

    def measure() -> dict[str, Any]:
        mean, std = mean_and_std(images.read("train")[0])
        # images of one colour have no deviation, and dividing by none gives no numbers
        return {"mean": mean, "std": [s or 1.0 for s in std]}

    found = cached_measurement(f"{cache_name(facts)}-mean", stamp, measure)
    return tuple(found["mean"]), tuple(found["std"])


def read_settings(toml: Path) -> dict[str, Any]:
    """What a dataset.toml states, checked; nothing if there is none. Raises `UsageError` naming file and key."""
    if not toml.is_file():
        return {}
    return check(read_toml(toml), SETTINGS, str(toml), "must be {}, not {!r:.200}")


def _numbers(least: float) -> Any:
    return Annotated[tuple[Annotated[float, Meta(ge=least, le=1)], ...], Meta(min_length=1)]


Size = Annotated[int, Meta(ge=1)]
# key -> its type, and that in words
SETTINGS: dict[str, tuple[Any, str]] = {
    "image_shape": (tuple[Literal[1, 3], Size, Size], "[channels, height, width] with 1 or 3 channels"),
    "mean": (_numbers(0.0), "a list of numbers from 0 to 1, one for each channel"),
    "std": (_numbers(1e-6), "a list of numbers above 0, at most 1, one for each channel"),
    "crop_padding": (Annotated[int, Meta(ge=0)], "a number of pixels"),
    "flip": (bool, "true or false"),
}
