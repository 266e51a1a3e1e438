"""What a loader gives to the door: a way to read each split, and a stamp that tells whether the files changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Which = Literal["train", "test"]
SPLITS: tuple[Which, Which] = ("train", "test")
Images = npt.NDArray[np.uint8]  # (n, channels, height, width)
Labels = npt.NDArray[np.int64]  # (n,)


@dataclass(frozen=True)
class Source:
    """A dataset as it lies here. Equal stamps mean equal arrays; a stamp begins with the folder of the dataset."""

    stamp: str
    read: Callable[[Which], tuple[Images, Labels]]


def stamp_of(root: Path, paths: Iterable[Path], *also: object) -> str:
    """SHA-256 of name below `root`, size and time of change of every file, and of `also`; opens none of them.

    Raises `OSError` for a file that is not there.
    """
    sha = hashlib.sha256(repr(also).encode())
    for path in paths:
        state = path.stat()
        line = f"{path.relative_to(root)}|{state.st_size}|{state.st_mtime_ns}\n"
        sha.update(line.encode(errors="surrogateescape"))
    return sha.hexdigest()
