"""Predictions on single test images, read from the file beside a record."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.errors import RunError
from dfkd_bench.protocol import parts
from dfkd_bench.stats.mcnemar import Flags

FILE = "predictions.safetensors"


def correct(record: str | Path) -> Flags | None:
    """For each test image, True if the record's student classifies it correctly: (images,), in the dataset's order.

    None if the record at this path has no predictions. Raises `RunError` for a file that cannot be read.
    """
    file = Path(record).parent / FILE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="numpy") as stored:
            right: Flags = stored.get_tensor("student") == stored.get_tensor("labels")
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {error}; copy it again, or remove it") from error
    return right


def resolution(task: str, records: Iterable[str | Path]) -> float:
    """The smallest difference of two accuracies on `task` in %: 100 / number of test images; 0 if that is unknown.

    For a dataset that is not in the catalog, the number is taken from the predictions beside one of the `records`.
    """
    dataset = DATASETS.get(parts(task)[0])
    if dataset is not None:
        return 100 / dataset.test_size
    answers = next((right for right in map(correct, records) if right is not None), None)
    return 0.0 if answers is None or not answers.size else 100 / answers.size
