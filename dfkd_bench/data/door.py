"""Where real images come in: load a dataset, verify it, hand out normalised tensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfkd_bench.blocks.augmentation import random_crop, random_flip
from dfkd_bench.data import guard
from dfkd_bench.data.catalog import DatasetFacts, dataset
from dfkd_bench.errors import RunError
from dfkd_bench.method import Batch


@dataclass(frozen=True, eq=False)
class Split:
    """uint8 images (n, channels, height, width) and int64 labels (n,) on one device."""

    facts: DatasetFacts
    images: Tensor
    labels: Tensor

    def normalised(self, rows: Tensor | slice) -> Tensor:
        """Images of `rows`, fp32, in the teacher's input space."""
        return normalise(self.images[rows], self.facts)


def normalise(images: Tensor, facts: DatasetFacts) -> Tensor:
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
        digest.update(a.tobytes())
    return digest.hexdigest()


def load(which: str | DatasetFacts, device: torch.device | str = "cpu") -> tuple[Split, Split]:
    """(train, test) of a dataset on `device`, by name or by facts (a teacher may bring its own normalisation).

    Raises `RunError` if its bytes are not the registered ones.
    """
    guard.check_open()
    facts = dataset(which) if isinstance(which, str) else which
    module, function = facts.loader.split(":")
    arrays = getattr(import_module(f"dfkd_bench.data.{module}"), function)()
    found = fingerprint(arrays)
    if found != facts.sha256:
        raise RunError(
            f"dataset {facts.name} has SHA-256 {found[:12]}, the protocol's is {facts.sha256[:12]}: "
            "its source or the library that reads it changed; numbers would not be comparable"
        )
    train_images, train_labels, test_images, test_labels = (torch.from_numpy(a).to(device) for a in arrays)
    return Split(facts, train_images, train_labels), Split(facts, test_images, test_labels)


def digest(facts: DatasetFacts) -> str:
    """SHA-256 of the arrays that lie here for a dataset of which the protocol knows none."""
    guard.check_open()
    module, function = facts.loader.split(":")
    return fingerprint(getattr(import_module(f"dfkd_bench.data.{module}"), function)())


class TrainingBatches:
    """The training set as augmented batches; the only way a bound sees real images. Position is checkpointed."""

    def __init__(self, split: Split) -> None:
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
