"""Fashion-MNIST: articles of clothing, 28x28, zero-padded to 32x32. Zalando Research 2017."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset, Download
from dfkd_bench.data.datasets.mnist import idx_files
from dfkd_bench.data.terms import SMALL_TEACHER, TeacherRecipe, small_pinned

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source


def read(dataset: Dataset) -> Source:
    """Images (n, 1, 32, 32)."""
    from dfkd_bench.data.vision import array_source, padded

    return array_source(dataset, padded("FashionMNIST"))


def download(root: Path) -> None:
    """The four files in IDX format."""
    from torchvision.datasets import FashionMNIST

    FashionMNIST(root, download=True)


DATASET = Dataset(
    name="fashion-mnist",
    classes=10,
    image_shape=(1, 32, 32),
    mean=(0.219,),  # of the padded training images
    std=(0.3318,),
    train_size=60000,
    test_size=10000,
    crop_padding=2,
    flip=True,
    reader=read,
    files=("*/FashionMNIST/raw/*", "*/FashionMNIST/processed/*", "*/fashion*/*-ubyte*"),
    sha256="0d0fff298b2e3532fcfe0f7df791741733bffef7c1fce62eb043422995e5b27c",
    about="articles of clothing, 28x28 zero-padded to 32x32",
    source="Zalando Research 2017, MIT",
    needs=idx_files("FashionMNIST"),
    aliases=("fashion",),
    download=Download("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", 31, download),
    pinned=small_pinned(4, 2),
    teacher_recipe=TeacherRecipe(12, 128, SMALL_TEACHER, threads=1),
)
