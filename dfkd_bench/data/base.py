"""The class `Dataset`: the facts of a dataset, how to read and download it, and the training terms of its tasks.

Importing this module imports no torch. Another package adds a dataset with an object of this class, named in its entry
points (group `dfkd_bench.datasets`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.terms import USUAL, USUAL_TEACHER, Pinned, TeacherRecipe

if TYPE_CHECKING:
    from dfkd_bench.data.source import Source

FOLDER = "folder:"  # prefix of the name of a user's dataset; the path of its folder follows


@dataclass(frozen=True)
class Download:
    """Address and size of a download, and the function that downloads into a folder and verifies checksums."""

    address: str
    megabytes: int
    function: Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset.

    `reader` takes this object and returns a `Source`; it must import numpy or torchvision only when it is called.
    `sha256` is that of the decoded arrays (see `loading.fingerprint`), checked at each load. If it is empty, the
    protocol fixes no bytes for this dataset, and each run records the hash of the arrays it used.
    """

    name: str
    classes: int
    image_shape: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # of each channel, of pixels from 0 to 1
    std: tuple[float, ...]  # likewise
    train_size: int = 0
    test_size: int = 0
    crop_padding: int = 0  # augmentation for training on it: random crop with this padding, in pixels
    flip: bool = False  # and random horizontal flip; not for digits, because a mirrored digit is another symbol
    reader: Callable[[Dataset], Source] | None = None  # None: facts only, no images
    files: tuple[str, ...] = ()  # glob patterns of its image files, which the guard blocks
    sha256: str = ""
    about: str = ""
    source: str = ""  # authors and licence
    needs: tuple[str, ...] = ()  # files required in its folder; none: the images come with the package
    aliases: tuple[str, ...] = ()  # other accepted names of its folder in the data home
    home: str = ""  # absolute path of a user's folder (`folder:PATH`)
    made_of: str = ""  # name of the dataset whose files (and folder) this one is derived from
    download: Download | None = field(default=None, repr=False, compare=False)
    pinned: Pinned = field(default=USUAL, repr=False, compare=False)  # for its tasks without an entry in the protocol
    teacher_recipe: TeacherRecipe = field(default=USUAL_TEACHER, repr=False, compare=False)
