"""What is known of each dataset without opening it. Plain data: listing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from dfkd_bench.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of one dataset.

    `sha256` is over the decoded arrays (see `door.fingerprint`) and checked at each load; where it is empty, the
    protocol knows no bytes of this dataset and a run states those that it found.
    """

    name: str
    classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_size: int
    test_size: int
    crop_padding: int  # augmentation for training on it: random crop with this padding, in pixels
    flip: bool  # and random horizontal flip; never for digits, whose meaning it changes
    loader: str  # module:function inside dfkd_bench.data
    files: tuple[str, ...]  # glob patterns of the files that hold its images, watched by the guard
    sha256: str
    about: str


DATASETS: dict[str, DatasetFacts] = {
    "digits16": DatasetFacts(
        name="digits16",
        classes=10,
        image_shape=(1, 16, 16),
        mean=(0.3053,),
        std=(0.3186,),
        train_size=1200,
        test_size=597,
        crop_padding=2,
        flip=False,
        loader="digits:load",
        files=("*digits.csv*", "*optdigits*"),
        sha256="2d5661a7b446c27b83eb6addaf1180f9314be2ab07f506a5616b540592cc5281",
        about="1,797 handwritten digits (UCI, as in scikit-learn) resized from 8x8 to 16x16, stratified 1200/597",
    ),
}


def dataset(name: str) -> DatasetFacts:
    """Facts of `name`; raises `UsageError` for an unknown dataset."""
    if name not in DATASETS:
        raise UsageError(f"unknown dataset {name!r}{did_you_mean(name, list(DATASETS))}")
    return DATASETS[name]
