"""digits16, the dataset inside this package: the UCI optical digits (also in scikit-learn), enlarged to 16x16.

`optdigits.npz` beside this file contains the images of scikit-learn's `load_digits` and the row numbers of a
`train_test_split` of them (a test reproduces both). Loading them through scikit-learn would cost each run 100 MB and up
to two seconds.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, under CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.data.base import Dataset
from dfkd_bench.data.terms import SMALL_TEACHER, TeacherRecipe, small_pinned

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dfkd_bench.data.source import Images, Labels, Source, Which

FILE = Path(__file__).with_name("optdigits.npz")


def read(dataset: Dataset) -> Source:
    """The digits of `FILE`."""
    from dfkd_bench.data.source import Source

    def split(which: Which) -> tuple[Images, Labels]:
        train_images, train_labels, test_images, test_labels = load()
        return (train_images, train_labels) if which == "train" else (test_images, test_labels)

    return Source(dataset.name, split)


def load() -> tuple[Images, Labels, Images, Labels]:
    """Train images (1200, 1, 16, 16) uint8 and labels (1200,), test images (597, 1, 16, 16) and labels."""
    import numpy as np

    with np.load(FILE) as stored:
        images = _double(stored["images"].astype(np.int64))[:, None]
        labels, train, test = (stored[name].astype(np.int64) for name in ("labels", "train", "test"))
    return images[train], labels[train], images[test], labels[test]


def _double(images: npt.NDArray[np.int64]) -> Images:
    """Bilinear resize by two (pixel centres aligned) of (n, 8, 8) values 0..16 to (n, 16, 16) uint8.

    In integers, so that every machine gets the same bytes: the weights are 3/4 and 1/4 in each direction, so sixteen
    times the result is an integer; the factor 255/16 maps 0..16 to 0..255.
    """
    import numpy as np

    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")

    def along(x: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.int64]:
        before, middle, after = (np.take(x, np.arange(k, x.shape[axis] - 2 + k), axis) for k in range(3))
        both = np.stack([before + 3 * middle, 3 * middle + after], axis + 1)
        return both.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])

    sixteenths = along(along(padded, 1), 2)
    return ((sixteenths * 255 + 128) // 256).astype(np.uint8)


DATASET = Dataset(
    name="digits16",
    classes=10,
    image_shape=(1, 16, 16),
    mean=(0.3053,),
    std=(0.3186,),
    train_size=1200,
    test_size=597,
    crop_padding=2,
    reader=read,
    files=("*digits.csv*", "*optdigits*"),
    sha256="2d5661a7b446c27b83eb6addaf1180f9314be2ab07f506a5616b540592cc5281",
    about="1,797 handwritten digits (UCI, as in scikit-learn) resized from 8x8 to 16x16, stratified 1200/597",
    source="Alpaydin and Kaynak 1998, CC BY 4.0",
    pinned=small_pinned(30, 3),
    teacher_recipe=TeacherRecipe(60, 64, SMALL_TEACHER),
)
