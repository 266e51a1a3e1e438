"""CIFAR-10 reduced to 16x16, made from the files of CIFAR-10: photographs small enough for a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset
from dfkd_bench.data.datasets.cifar10 import DATASET as CIFAR10
from dfkd_bench.data.terms import SMALL_TEACHER, TeacherRecipe, small_pinned

if TYPE_CHECKING:
    from dfkd_bench.data.source import Images, Labels, Source, Which


def read(dataset: Dataset) -> Source:
    """Images (n, 3, 16, 16)."""
    from dfkd_bench.data.vision import array_source

    return array_source(dataset, halved)


def halved(root: Path, which: Which) -> tuple[Images, Labels]:
    """One split: each 2x2 block becomes its mean in integers, (a + b + c + d + 2) // 4, a half rounded up."""
    import numpy as np

    from dfkd_bench.data.vision import cifar

    images, labels = cifar("CIFAR10")(root, which)
    quads = images.reshape(*images.shape[:2], 16, 2, 16, 2).sum((3, 5), dtype=np.uint16)
    return ((quads + 2) // 4).astype(np.uint8), labels


DATASET = Dataset(
    name="cifar10-16",
    classes=10,
    image_shape=(3, 16, 16),
    mean=(0.4919, 0.4827, 0.447),
    std=(0.2381, 0.2347, 0.2536),  # over all pixels
    train_size=50000,
    test_size=10000,
    crop_padding=2,
    flip=True,
    reader=read,
    files=CIFAR10.files,
    sha256="afe05f32081eccc2d2729f292d7f01cb0226265462d95dac40729c12244276bc",
    about="CIFAR-10 halved to 16x16: means of 2x2 pixels, rounded half up",
    source=CIFAR10.source,
    needs=CIFAR10.needs,
    made_of=CIFAR10.name,
    pinned=small_pinned(4, 2),
    teacher_recipe=TeacherRecipe(30, 128, SMALL_TEACHER, threads=1),
)
