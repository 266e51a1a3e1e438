"""Datasets of the catalog made small: their facts, and files in their stock layouts."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dfkd_bench.data.base import Dataset
from dfkd_bench.data.catalog import DATASETS


def small(name: str, train: int, test: int, classes: int | None = None) -> Dataset:
    """Facts of a dataset of the catalog, of another size and with no bytes known."""
    facts = DATASETS[name]
    return replace(facts, train_size=train, test_size=test, classes=classes or facts.classes, sha256="")


def write_idx(root: Path, train: int = 5, test: int = 3, kind: str = "MNIST", label: int = 0) -> Path:
    """MNIST's four files with images of one grey each and labels 0, 1, 2, ... (the last train label as given)."""
    raw = root / kind / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for stem, count in (("train", train), ("t10k", test)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8) + 1, 784).tobytes()
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + pixels)
        labels = list(range(count))
        if stem == "train" and label:
            labels[-1] = label
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + bytes(labels))
    return raw


def picture(path: Path, seed: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> None:
    """A JPEG of soft blobs, of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, "JPEG")


def tiny_tree(home_: Path) -> tuple[Path, Dataset]:
    """Tiny-ImageNet's stock layout with three classes; wnids.txt is in no order, as in the real one."""
    top = home_ / "tiny-imagenet" / "tiny-imagenet-200"
    for number, name in enumerate(("n03", "n01", "n02")):
        for k in range(2):
            picture(top / "train" / name / "images" / f"{name}_{k}.JPEG", 10 * number + k, mode="L" if k else "RGB")
        (top / "train" / name / f"{name}_boxes.txt").write_text("n03_0.JPEG\t0\t10\t20\t30\n")
    (top / "wnids.txt").write_text("n03\nn01\nn02\n")
    lines = []
    for k, name in enumerate(("n02", "n03", "n01", "n03")):
        picture(top / "val" / "images" / f"val_{k}.JPEG", 100 + k)
        lines.append(f"val_{k}.JPEG\t{name}\t0\t0\t62\t62\n")
    (top / "val" / "val_annotations.txt").write_text("".join(lines))
    return top, small("tiny-imagenet", 6, 4, classes=3)
