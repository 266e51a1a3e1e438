"""Load a dataset, verify it, and return its images; the only module through which real images are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfkd_bench.blocks.augmentation import random_crop, random_flip
from dfkd_bench.data.base import Dataset
from dfkd_bench.data.find import dataset
from dfkd_bench.data.source import SPLITS, Images, Labels, Which
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.method import Batch
from dfkd_bench.utils import guard

Arrays = tuple[Images, Labels]


@dataclass(frozen=True, eq=False)
class Split:
    """uint8 images (n, channels, height, width) and int64 labels (n,) on one device."""

    facts: Dataset
    images: Tensor
    labels: Tensor

    def normalised(self, rows: Tensor | slice) -> Tensor:
        """The images at `rows` in fp32, normalised with mean and std of `facts`."""
        return normalise(self.images[rows], self.facts)


def normalise(images: Tensor, facts: Dataset) -> Tensor:
    """uint8 images (n, c, h, w) to fp32: scaled to 0..1, minus the dataset's mean, divided by its std."""
    mean = torch.tensor(facts.mean, device=images.device).view(1, -1, 1, 1)
    std = torch.tensor(facts.std, device=images.device).view(1, -1, 1, 1)
    return (images.float() / 255.0 - mean) / std


def fingerprint(arrays: tuple[Any, ...]) -> str:
    """SHA-256 over dtype, shape and bytes of train images, train labels, test images, test labels."""
    digest = hashlib.sha256()
    for array in arrays:
        a = np.ascontiguousarray(array)
        digest.update(f"{a.dtype.str}{a.shape}".encode())
        digest.update(a.reshape(-1).view(np.uint8).data)  # no copy: the images may be a file larger than the memory
    return digest.hexdigest()


Key = tuple[object, str, tuple[int, ...]]
_digests: dict[Key, str] = {}  # only digests: a method could find images that are cached here


class _OpenedDataset:
    """An opened dataset and the cache key of its checksum."""

    def __init__(self, which: str | Dataset) -> None:
        guard.check_allowed()
        self.facts = dataset(which) if isinstance(which, str) else which
        if self.facts.reader is None:
            raise UsageError(f"dataset {self.facts.name} has no images, only facts")
        self._source = self.facts.reader(self.facts)
        self._key: Key = (self.facts.reader, self._source.stamp, self.facts.image_shape)

    def read(self, which: Which) -> Arrays:
        """Images and labels of one split. Raises `RunError` if size, shape or labels differ from the facts."""
        facts, (images, labels) = self.facts, self._source.read(which)
        size = facts.train_size if which == "train" else facts.test_size
        if images.shape != (size, *facts.image_shape) or labels.shape != (size,):
            actual, expected = ("x".join(map(str, shape)) for shape in (images.shape, (size, *facts.image_shape)))
            raise RunError(f"dataset {facts.name}: the {which} images are {actual}, not {expected}: it is incomplete")
        if size and not 0 <= labels.min() <= labels.max() < facts.classes:
            raise RunError(f"dataset {facts.name}: a {which} label is outside of its {facts.classes} classes")
        return images, labels

    def digest(self, loaded: dict[Which, Arrays]) -> str:
        """SHA-256 of both splits; splits not in `loaded` are read. Computed once per process for the same files."""
        if self._key not in _digests:
            train, test = (loaded[which] if which in loaded else self.read(which) for which in SPLITS)
            _digests[self._key] = fingerprint((*train, *test))
        return _digests[self._key]

    def verify(self, loaded: dict[Which, Arrays]) -> None:
        """Raise `RunError` if the arrays differ from those of the protocol."""
        facts, actual = self.facts, self.digest(loaded)
        if facts.sha256 and actual != facts.sha256:
            raise RunError(
                f"dataset {facts.name} has SHA-256 {actual[:12]}, the protocol's is {facts.sha256[:12]}: "
                "its source or the library that reads it changed; numbers would not be comparable"
            )

    def split(self, arrays: Arrays, device: torch.device | str) -> Split:
        """`arrays` on `device`, in one transfer."""
        # torch has no read-only tensors: a cached file that is mapped read-only is copied into memory
        images, labels = (torch.from_numpy(a if a.flags.writeable else np.array(a)).to(device) for a in arrays)
        return Split(self.facts, images, labels)


def load(which: str | Dataset, device: torch.device | str = "cpu") -> tuple[Split, Split]:
    """(train, test) of a dataset on `device`, by name or by facts (a teacher may have its own normalisation).

    Raises `UsageError` if the dataset is not on this machine, `RunError` if its bytes are not the registered ones.
    """
    opened = _OpenedDataset(which)
    train, test = (opened.read(split) for split in SPLITS)
    opened.verify({"train": train, "test": test})
    return opened.split(train, device), opened.split(test, device)


def load_test(which: str | Dataset, device: torch.device | str = "cpu") -> Split:
    """Only the test split, on `device`. The first call reads the training split too, for the checksum.

    Raises the errors of `load`.
    """
    opened = _OpenedDataset(which)
    test = opened.read("test")
    opened.verify({"test": test})
    return opened.split(test, device)


def digest(facts: Dataset) -> str:
    """SHA-256 of a dataset's arrays on this machine; needed where `facts.sha256` is empty. Raises as `load` does."""
    return _OpenedDataset(facts).digest({})


class TrainingBatches:
    """The training set as augmented batches, with the position in the pass as checkpoint state."""

    def __init__(self, split: Split) -> None:
        if not len(split.labels):
            raise UsageError(f"dataset {split.facts.name} has no training images")
        self._split = split
        self._order = torch.empty(0, dtype=torch.long, device=split.labels.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Row numbers left in the current pass."""
        return {"order": self._order}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue a pass."""
        self._order = state["order"].to(self._split.labels.device)

    def batch(self, n: int, stream: torch.Generator) -> Batch:
        """`n` augmented, normalised images with labels; each pass uses every image once."""
        while len(self._order) < n:
            count = len(self._split.labels)
            fresh = torch.randperm(count, generator=stream, device=stream.device)
            self._order = torch.cat([self._order, fresh])
        rows, self._order = self._order[:n], self._order[n:]
        facts = self._split.facts
        images = self._split.images[rows]
        if facts.crop_padding:
            images = random_crop(images, facts.crop_padding, stream)
        if facts.flip:
            images = random_flip(images, stream)
        return Batch(normalise(images, facts), labels=self._split.labels[rows])
