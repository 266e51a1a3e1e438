"""Datasets that torchvision reads as arrays, each split in one call. Downloads are in `fetch`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dfkd_bench.data.base import Dataset
from dfkd_bench.data.home import require_folder
from dfkd_bench.data.source import Images, Labels, Source, Which, stamp_of
from dfkd_bench.errors import RunError

Arrays = Callable[[Path, Which], tuple[Images, Labels]]  # (torchvision's root folder, split) -> images and labels
READ_ERRORS = (
    RuntimeError,
    ValueError,
    AssertionError,
    LookupError,
    TypeError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
)


def array_source(dataset: Dataset, arrays: Arrays) -> Source:
    """A source whose splits `arrays` reads. Raises `UsageError` if the dataset is not on this machine."""
    root = require_folder(dataset)

    def read(which: Which) -> tuple[Images, Labels]:
        try:
            return arrays(root, which)
        except READ_ERRORS as error:
            why = (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")
            raise RunError(
                f"dataset {dataset.name} in {root} cannot be read ({why}): a file is damaged or of another version; "
                f"move it away and get it again with `dfkd-bench data fetch {dataset.name}`"
            ) from error

    return Source(f"{root}|{stamp_of(root, [root / path for path in dataset.needs])}", read)


def padded(kind: str) -> Arrays:
    """MNIST or FashionMNIST, 28x28 padded with black to (n, 1, 32, 32), the size of our networks and generators."""

    def arrays(root: Path, which: Which) -> tuple[Images, Labels]:
        from torchvision import datasets

        found: Any = getattr(datasets, kind)(root, train=which == "train")
        images = np.pad(found.data.numpy(), ((0, 0), (2, 2), (2, 2)))[:, None]
        return images, found.targets.numpy().astype(np.int64)

    return arrays


def cifar(kind: str) -> Arrays:
    """CIFAR10 or CIFAR100, (n, 3, 32, 32)."""

    def arrays(root: Path, which: Which) -> tuple[Images, Labels]:
        from torchvision import datasets

        found: Any = getattr(datasets, kind)(root, train=which == "train")  # checks MD5 sums before it unpickles
        return np.ascontiguousarray(found.data.transpose(0, 3, 1, 2)), np.asarray(found.targets, np.int64)

    return arrays
