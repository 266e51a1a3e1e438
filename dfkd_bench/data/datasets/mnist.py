"""MNIST: handwritten digits, 28x28, zero-padded to 32x32. LeCun, Cortes and Burges 1998."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset, Download
from dfkd_bench.data.terms import SMALL_TEACHER, TeacherRecipe, small_pinned

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source


def idx_files(folder: str) -> tuple[str, ...]:
    """The four files of a dataset in MNIST's format, relative to torchvision's root folder."""
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{folder}/raw/{part}-ubyte" for part in parts)


def read(dataset: Dataset) -> Source:
    """Images (n, 1, 32, 32)."""
    from dfkd_bench.data.vision import array_source, padded

    return array_source(dataset, padded("MNIST"))


def download(root: Path) -> None:
    """The four files in IDX format."""
    from torchvision.datasets import MNIST

    MNIST(root, download=True)


DATASET = Dataset(
    name="mnist",
    classes=10,
    image_shape=(1, 32, 32),
    mean=(0.1,),  # of the padded training images; the usual 0.1307 and 0.3081 are for 28x28
    std=(0.2752,),
    train_size=60000,
    test_size=10000,
    crop_padding=2,
    reader=read,
    files=("*/MNIST/raw/*", "*/MNIST/processed/*", "*/mnist/*-ubyte*"),
    sha256="5e66db2ded29722b4b079e0db116b4bc060850e9ae87e9c7b23123ac64c61d80",
    about="handwritten digits, 28x28 zero-padded to 32x32",
    source="LeCun, Cortes and Burges 1998, CC BY-SA 3.0",
    needs=idx_files("MNIST"),
    download=Download("https://ossci-datasets.s3.amazonaws.com/mnist/", 12, download),
    pinned=small_pinned(4, 2),
    teacher_recipe=TeacherRecipe(5, 128, SMALL_TEACHER, threads=1),
)
