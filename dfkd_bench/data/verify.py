"""Verify that a dataset on this machine has the images, classes and bytes of the catalog."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dfkd_bench.data import loading
from dfkd_bench.data.base import Dataset
from dfkd_bench.errors import BenchError


@dataclass(frozen=True)
class Verdict:
    """Result of one verification."""

    facts: Dataset
    fingerprint: str  # of the arrays on this machine; empty if they could not be read
    problem: str  # empty if there is none


def verify(facts: Dataset) -> Verdict:
    """Read a whole dataset and check sizes, shapes, torchvision's checksums, images in every class, fingerprint."""
    try:
        train, test = loading.load(replace(facts, sha256=""))
        actual = loading.digest(facts)
    except BenchError as error:
        return Verdict(facts, "", str(error))
    problem = ""
    for name, split in (("train", train), ("test", test)):
        counts = np.bincount(split.labels.numpy(), minlength=facts.classes)
        if len(split.labels) and not counts.all():
            problem = f"dataset {facts.name}: no {name} image of class {int(np.argmin(counts))}"
    if facts.sha256 and actual != facts.sha256:
        problem = (
            f"dataset {facts.name} has SHA-256 {actual[:12]}, the protocol's is {facts.sha256[:12]}: "
            f"move it away and get it again with `dfkd-bench data fetch {facts.name}`"
        )
    return Verdict(facts, actual, problem)
