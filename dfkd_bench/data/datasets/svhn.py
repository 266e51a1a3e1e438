"""SVHN: house numbers, one digit each, without the extra images. Netzer et al. 2011."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset, Download

if TYPE_CHECKING:
    from dfkd_bench.data.source import Images, Labels, Source, Which


def read(dataset: Dataset) -> Source:
    """Images (n, 3, 32, 32)."""
    from dfkd_bench.data.vision import array_source

    return array_source(dataset, arrays)


def arrays(root: Path, which: Which) -> tuple[Images, Labels]:
    """One split; the digit 0 is class 0."""
    import numpy as np
    from torchvision.datasets import SVHN

    found = SVHN(root, split=which)  # checks MD5 sums
    return np.ascontiguousarray(found.data), np.asarray(found.labels, np.int64)


def download(root: Path) -> None:
    """The two files of cropped digits."""
    from torchvision.datasets import SVHN

    for split in ("train", "test"):
        SVHN(root, split=split, download=True)


DATASET = Dataset(
    name="svhn",
    classes=10,
    image_shape=(3, 32, 32),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    train_size=73257,
    test_size=26032,
    crop_padding=4,
    reader=read,
    files=("*train_32x32.mat", "*test_32x32.mat", "*extra_32x32.mat"),
    about="house numbers, one digit each, without the extra images",
    source="Netzer et al. 2011, non-commercial use",
    needs=("train_32x32.mat", "test_32x32.mat"),
    download=Download("http://ufldl.stanford.edu/housenumbers/", 246, download),
)
