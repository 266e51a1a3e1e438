"""Where real images come in: load a dataset, verify it, hand out normalised tensors."""

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
        """Images of `rows`, fp32, in the teacher's input space."""
        return normalise(self.images[rows], self.facts)


def normalise(images: Tensor, facts: Dataset) -> Tensor:
    """uint8 images 0..255 to fp32 with the dataset's mean and standard deviation taken out."""
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
_digests: dict[Key, str] = {}  # digests alone: images kept here could be found by a method


class _OpenedDataset:
    """A dataset in the hands of the door, with what is known of its bytes."""

    def __init__(self, which: str | Dataset) -> None:
        guard.check_allowed()
        self.facts = dataset(which) if isinstance(which, str) else which
        if self.facts.reader is None:
            raise UsageError(f"there are no images of {self.facts.name}: its facts alone are known")
        self._source = self.facts.reader(self.facts)
        self._key: Key = (self.facts.reader, self._source.stamp, self.facts.image_shape)

    def read(self, which: Which) -> Arrays:
        """Images and labels of one split. Raises `RunError` where they are not what the catalog says."""
        facts, (images, labels) = self.facts, self._source.read(which)
        size = facts.train_size if which == "train" else facts.test_size
        if images.shape != (size, *facts.image_shape) or labels.shape != (size,):
            found, wanted = ("x".join(map(str, shape)) for shape in (images.shape, (size, *facts.image_shape)))
            raise RunError(f"dataset {facts.name}: the {which} images are {found}, not {wanted}: it is not whole")
        if size and not 0 <= labels.min() <= labels.max() < facts.classes:
            raise RunError(f"dataset {facts.name}: a {which} label is outside of its {facts.classes} classes")
        return images, labels

    def digest(self, held: dict[Which, Arrays]) -> str:
        """SHA-256 of both splits, read here unless they are `held`; computed once per process for the same files."""
        if self._key not in _digests:
            train, test = (held[which] if which in held else self.read(which) for which in SPLITS)
            _digests[self._key] = fingerprint((*train, *test))
        return _digests[self._key]

    def verify(self, held: dict[Which, Arrays]) -> None:
        """Raise `RunError` if the arrays are not those that the protocol knows."""
        facts, found = self.facts, self.digest(held)
        if facts.sha256 and found != facts.sha256:
            raise RunError(
                f"dataset {facts.name} has SHA-256 {found[:12]}, the protocol's is {facts.sha256[:12]}: "
                "its source or the library that reads it changed; numbers would not be comparable"
            )

    def split(self, arrays: Arrays, device: torch.device | str) -> Split:
        """`arrays` on `device`, in one transfer."""
        # a cached file is mapped for reading only, which torch cannot express: such arrays are copied into memory
        images, labels = (torch.from_numpy(a if a.flags.writeable else np.array(a)).to(device) for a in arrays)
        return Split(self.facts, images, labels)


def load(which: str | Dataset, device: torch.device | str = "cpu") -> tuple[Split, Split]:
    """(train, test) of a dataset on `device`, by name or by facts (a teacher may bring its own normalisation).

    Raises `UsageError` where it is not on this machine, `RunError` if its bytes are not the registered ones.
    """
    opened = _OpenedDataset(which)
    train, test = (opened.read(split) for split in SPLITS)
    opened.verify({"train": train, "test": test})
    return opened.split(train, device), opened.split(test, device)


def load_test(which: str | Dataset, device: torch.device | str = "cpu") -> Split:
    """The test split alone, on `device`; verified like `load`, for which the first call reads the training split too.

    Raises as `load` does.
    """
    opened = _OpenedDataset(which)
    test = opened.read("test")
    opened.verify({"test": test})
    return opened.split(test, device)


def digest(facts: Dataset) -> str:
    """SHA-256 of the arrays that lie here for a dataset of which the protocol knows none. Raises as `load` does."""
    return _OpenedDataset(facts).digest({})


class TrainingBatches:
    """The training set as augmented batches; the only way a bound sees real images. Position is checkpointed."""

    def __init__(self, split: Split) -> None:
        if not len(split.labels):
            raise UsageError(f"dataset {split.facts.name} has test images only: there is nothing to train on")
        self._split = split
        self._order = torch.empty(0, dtype=torch.long, device=split.labels.device)

    def state_dict(self) -> dict[str, Tensor]:
        """What is left of the present pass."""
        return {"order": self._order}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on within a pass."""
        self._order = state["order"].to(self._split.labels.device)

    def batch(self, n: int, stream: torch.Generator) -> Batch:
        """`n` augmented, normalised images with labels; every image once per pass."""
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
