"""Verification: a dataset that lies here has the images, the classes and the bytes that the catalog says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dfkd_bench.data import loading
from dfkd_bench.data.base import Dataset
from dfkd_bench.errors import BenchError


@dataclass(frozen=True)
class Verdict:
    """What became of one verification; `problem` is empty if all is as it should be."""

    facts: Dataset
    fingerprint: str  # of what lies here; empty if it could not be read
    problem: str


def verify(facts: Dataset) -> Verdict:
    """Read a whole dataset: sizes, shapes, torchvision's checksums, images in every class, fingerprint."""
    try:
        train, test = loading.load(replace(facts, sha256=""))
        found = loading.digest(facts)
    except BenchError as error:
        return Verdict(facts, "", str(error))
    problem = ""
    for name, split in (("train", train), ("test", test)):
        counts = np.bincount(split.labels.numpy(), minlength=facts.classes)
        if len(split.labels) and not counts.all():
            problem = f"dataset {facts.name}: no {name} image of class {int(np.argmin(counts))}"
    if facts.sha256 and found != facts.sha256:
        problem = (
            f"dataset {facts.name} has SHA-256 {found[:12]}, the protocol's is {facts.sha256[:12]}: "
            f"move it away and get it anew with `dfkd-bench data fetch {facts.name}`"
        )
    return Verdict(facts, found, problem)
