"""CIFAR-100 with its 100 fine classes. Krizhevsky 2009."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset, Download

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source


def read(dataset: Dataset) -> Source:
    """Images (n, 3, 32, 32)."""
    from dfkd_bench.data.vision import array_source, cifar

    return array_source(dataset, cifar("CIFAR100"))


def download(root: Path) -> None:
    """The Python version."""
    from torchvision.datasets import CIFAR100

    CIFAR100(root, download=True)


DATASET = Dataset(
    name="cifar100",
    classes=100,
    image_shape=(3, 32, 32),
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
    train_size=50000,
    test_size=10000,
    crop_padding=4,
    flip=True,
    reader=read,
    files=("*/cifar-100-python/*", "*/cifar-100-python.tar*"),
    about="things, plants and animals, 100 fine classes",
    source="Krizhevsky 2009, no licence stated",
    needs=("cifar-100-python/train", "cifar-100-python/test"),
    download=Download("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", 169, download),
)
