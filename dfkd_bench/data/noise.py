"""A dataset of noise, for timing or counting steps without real images: no file is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dfkd_bench.data.base import Dataset
from dfkd_bench.data.source import Images, Labels, Source, Which

SIZE = 1024  # training images


def noise_like(facts: Dataset) -> Dataset:
    """Noise with the shape, classes and augmentation of a dataset, whose files are not needed."""
    return replace(facts, name="noise", reader=source, train_size=SIZE, test_size=0, sha256="", needs=())


def source(facts: Dataset) -> Source:
    """Uniform bytes and uniform labels from a fixed seed."""

    def read(which: Which) -> tuple[Images, Labels]:
        size = facts.train_size if which == "train" else facts.test_size
        draws = np.random.default_rng(0)
        images = draws.integers(0, 256, (size, *facts.image_shape), dtype=np.uint8)
        return images, draws.integers(0, facts.classes, size)

    return Source(f"noise|{facts.classes}|{facts.train_size}", read)
