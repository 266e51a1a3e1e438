"""CIFAR-10: animals and vehicles. Krizhevsky 2009."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset, Download

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source


def read(dataset: Dataset) -> Source:
    """Images (n, 3, 32, 32)."""
    from dfkd_bench.data.vision import array_source, cifar

    return array_source(dataset, cifar("CIFAR10"))


def download(root: Path) -> None:
    """The Python version."""
    from torchvision.datasets import CIFAR10

    CIFAR10(root, download=True)


DATASET = Dataset(
    name="cifar10",
    classes=10,
    image_shape=(3, 32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),  # the usual published values: means of the per-image deviations
    train_size=50000,
    test_size=10000,
    crop_padding=4,
    flip=True,
    reader=read,
    files=("*/cifar-10-batches-py/*", "*/cifar-10-python.tar*"),
    sha256="e6216b9018fcebdb2fc8d67681111ecdcbcb1599320d6cfc1c4f6ff4b91839a8",
    about="animals and vehicles",
    source="Krizhevsky 2009, no licence stated",
    needs=tuple(f"cifar-10-batches-py/{part}" for part in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")),
    download=Download("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", 171, download),
)
