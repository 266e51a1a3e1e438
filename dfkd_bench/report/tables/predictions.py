"""What lies beside a record about single test images, as the comparison of two methods needs it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.errors import RunError
from dfkd_bench.protocol import split_task_name
from dfkd_bench.stats.mcnemar import Flags

FILE = "predictions.safetensors"


def correct(record: str | Path) -> Flags | None:
    """Per test image, in the dataset's order, whether the student of the record at this path was right: (images,).

    None where the file is not there. Raises `RunError` for one that cannot be read.
    """
    file = Path(record).parent / FILE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="numpy") as stored:
            right: Flags = stored.get_tensor("student") == stored.get_tensor("labels")
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {error}; copy it back, or remove it to do without") from error
    return right


def resolution(task: str, records: Iterable[str | Path]) -> float:
    """The step of accuracies on `task` in %: 100 / test images. 0 if their number is not known.

    The catalog knows it of its datasets; of others, predictions beside one of the `records` do.
    """
    facts = DATASETS.get(split_task_name(task)[0])
    if facts is not None:
        return 100 / facts.test_size
    found = next((right for right in map(correct, records) if right is not None), None)
    return 0.0 if found is None or not found.size else 100 / found.size
