"""Noise in the form of a dataset, for steps that are timed or counted and learn nothing: no file is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dfkd_bench.data.catalog import DatasetFacts
from dfkd_bench.data.source import Images, Labels, Source, Which

SIZE = 1024  # training images: some batches, and little memory


def noise_like(facts: DatasetFacts) -> DatasetFacts:
    """Facts of noise with the shape, classes and augmentation of a dataset, which need not be here."""
    return replace(facts, name="noise", loader="noise:source", train_size=SIZE, test_size=0, sha256="", needs=())


def source(facts: DatasetFacts) -> Source:
    """Uniform bytes and uniform labels, always the same."""

    def read(which: Which) -> tuple[Images, Labels]:
        size = facts.train_size if which == "train" else facts.test_size
        draws = np.random.default_rng(0)
        images = draws.integers(0, 256, (size, *facts.image_shape), dtype=np.uint8)
        return images, draws.integers(0, facts.classes, size)

    return Source(f"noise|{facts.classes}|{facts.train_size}", read)
