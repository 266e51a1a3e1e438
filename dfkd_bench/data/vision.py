"""Datasets that torchvision reads as whole arrays. Nothing is downloaded here; see `fetch`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dfkd_bench.data.catalog import DatasetFacts
from dfkd_bench.data.home import require
from dfkd_bench.data.source import Images, Labels, Source, Which, stamp_of
from dfkd_bench.errors import RunError

Reader = Callable[[Path, Which], tuple[Images, Labels]]
BROKEN = (RuntimeError, ValueError, AssertionError, LookupError, TypeError, EOFError, OSError, pickle.UnpicklingError)


def _whole(facts: DatasetFacts, reader: Reader) -> Source:
    """A source of a few files, each read as a whole."""
    root = require(facts)

    def read(which: Which) -> tuple[Images, Labels]:
        try:
            return reader(root, which)
        except BROKEN as error:
            why = (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")
            raise RunError(
                f"dataset {facts.name} in {root} cannot be read ({why}): a file is damaged or of another edition; "
                f"move it away and get it anew with `dfkd-bench data fetch {facts.name}`"
            ) from error

    return Source(f"{root}|{stamp_of(root, [root / path for path in facts.needs])}", read)


def _padded(kind: str, root: Path, which: Which) -> tuple[Images, Labels]:
    """28x28 with a black margin of two pixels, so that every network and every generator for 32x32 fits."""
    from torchvision import datasets

    found: Any = getattr(datasets, kind)(root, train=which == "train")
    images = np.pad(found.data.numpy(), ((0, 0), (2, 2), (2, 2)))[:, None]
    return images, found.targets.numpy().astype(np.int64)


def _cifar(kind: str, root: Path, which: Which) -> tuple[Images, Labels]:
    from torchvision import datasets

    found: Any = getattr(datasets, kind)(root, train=which == "train")  # checks MD5 sums before it unpickles
    return np.ascontiguousarray(found.data.transpose(0, 3, 1, 2)), np.asarray(found.targets, np.int64)


def _halved(root: Path, which: Which) -> tuple[Images, Labels]:
    """CIFAR-10 at half its size, in whole numbers: (a + b + c + d + 2) // 4 of each 2x2 pixels, a half rounded up."""
    images, labels = _cifar("CIFAR10", root, which)
    quads = images.reshape(*images.shape[:2], 16, 2, 16, 2).sum((3, 5), dtype=np.uint16)
    return ((quads + 2) // 4).astype(np.uint8), labels


def _svhn(root: Path, which: Which) -> tuple[Images, Labels]:
    from torchvision import datasets

    found: Any = datasets.SVHN(root, split=which)  # checks MD5 sums; the digit 0 is class 0
    return np.ascontiguousarray(found.data), np.asarray(found.labels, np.int64)


def mnist(facts: DatasetFacts) -> Source:
    """MNIST, padded to (n, 1, 32, 32)."""
    return _whole(facts, partial(_padded, "MNIST"))


def fashion_mnist(facts: DatasetFacts) -> Source:
    """Fashion-MNIST, padded to (n, 1, 32, 32)."""
    return _whole(facts, partial(_padded, "FashionMNIST"))


def svhn(facts: DatasetFacts) -> Source:
    """SVHN's cropped digits, (n, 3, 32, 32)."""
    return _whole(facts, _svhn)


def cifar10(facts: DatasetFacts) -> Source:
    """CIFAR-10, (n, 3, 32, 32)."""
    return _whole(facts, partial(_cifar, "CIFAR10"))


def cifar10_halved(facts: DatasetFacts) -> Source:
    """CIFAR-10 halved, (n, 3, 16, 16)."""
    return _whole(facts, _halved)


def cifar100(facts: DatasetFacts) -> Source:
    """CIFAR-100 with its fine labels, (n, 3, 32, 32)."""
    return _whole(facts, partial(_cifar, "CIFAR100"))
