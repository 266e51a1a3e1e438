"""Datasets that torchvision reads as whole arrays, each split in one call. Nothing is downloaded here; see `fetch`."""

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

Arrays = Callable[[Path, Which], tuple[Images, Labels]]  # of a root as torchvision has it
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
    """A source of a few files, each read as a whole. Raises `UsageError` where they are not here."""
    root = require_folder(dataset)

    def read(which: Which) -> tuple[Images, Labels]:
        try:
            return arrays(root, which)
        except READ_ERRORS as error:
            why = (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")
            raise RunError(
                f"dataset {dataset.name} in {root} cannot be read ({why}): a file is damaged or of another edition; "
                f"move it away and get it anew with `dfkd-bench data fetch {dataset.name}`"
            ) from error

    return Source(f"{root}|{stamp_of(root, [root / path for path in dataset.needs])}", read)


def padded(kind: str) -> Arrays:
    """MNIST or FashionMNIST, 28x28 with a black margin of two pixels, since networks and generators are for 32x32."""

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
