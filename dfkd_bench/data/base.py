"""A dataset as one value: its facts, how it is read and downloaded, and the terms of tasks on it.

Plain data and functions: listing it imports no torch. Another package brings a dataset as an object of the class
`Dataset`, named in its entry points (group `dfkd_bench.datasets`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.terms import USUAL, USUAL_TEACHER, Pinned, TeacherRecipe

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source

FOLDER = "folder:"  # what the name of a dataset of one's own begins with; the path of its folder follows


@dataclass(frozen=True)
class Download:
    """Where a dataset comes from, and what brings it into a folder, checksums verified."""

    address: str
    megabytes: int
    bring: Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset.

    `reader` takes this object and gives a `Source`; it imports what it needs (numpy, torchvision) when it is called.
    `sha256` is over the decoded arrays (see `loading.fingerprint`) and checked at each load; where it is empty, the
    protocol knows no bytes of this dataset and a run states those that it found.
    """

    name: str
    classes: int
    image_shape: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # of each channel, of pixels from 0 to 1
    std: tuple[float, ...]
    train_size: int = 0
    test_size: int = 0
    crop_padding: int = 0  # augmentation for training on it: random crop with this padding, in pixels
    flip: bool = False  # and random horizontal flip; never for digits, whose meaning it changes
    reader: Callable[[Dataset], Source] | None = None  # none: there are no images behind these facts
    files: tuple[str, ...] = ()  # glob patterns of the files that hold its images, watched by the guard
    sha256: str = ""
    about: str = ""
    source: str = ""  # whose it is and on what terms
    needs: tuple[str, ...] = ()  # what must lie in its folder; none: it comes with its package
    aliases: tuple[str, ...] = ()  # other names that its folder below the data home may have
    home: str = ""  # absolute path of a dataset of one's own
    made_of: str = ""  # the dataset whose files it is made from; they lie in that one's folder
    download: Download | None = field(default=None, repr=False, compare=False)
    pinned: Pinned = field(default=USUAL, repr=False, compare=False)  # of its tasks that have no terms of their own
    teacher_recipe: TeacherRecipe = field(default=USUAL_TEACHER, repr=False, compare=False)
