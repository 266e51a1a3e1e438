"""What a dataset's reader returns: a function that reads a split, and a stamp that changes with the files."""

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
    """A dataset on this machine. Equal stamps mean equal arrays; a stamp starts with the folder of the dataset."""

    stamp: str
    read: Callable[[Which], tuple[Images, Labels]]


def stamp_of(root: Path, paths: Iterable[Path], *also: object) -> str:
    """SHA-256 over relative path, size and modification time of every file, and over `also`; opens no file.

    Raises `OSError` for a missing file.
    """
    sha = hashlib.sha256(repr(also).encode())
    for path in paths:
        state = path.stat()
        line = f"{path.relative_to(root)}|{state.st_size}|{state.st_mtime_ns}\n"
        sha.update(line.encode(errors="surrogateescape"))
    return sha.hexdigest()
