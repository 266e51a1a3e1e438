"""The file `curves.csv` beside a record: one row per snapshot, one column per number."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkd_bench.errors import RunError

FILE = "curves.csv"
Row = dict[str, float | None]


def as_csv(curves: Sequence[Mapping[str, Any]]) -> str:
    """The curves as CSV, floats in full precision, columns in the order in which they appear."""
    columns = list(dict.fromkeys(k for row in curves for k in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({k: "" if v is None else repr(v) for k, v in row.items()} for row in curves)
    return text.getvalue()


def read(path: Path) -> list[Row]:
    """The rows of a curves file, None for an empty cell.

    Raises `RunError` if the file cannot be read or has no rows; the message does not name the file.
    """
    try:
        with open(path, newline="") as file:
            rows: list[Row] = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(f"cannot be read: {error}") from error
    if not rows:
        raise RunError("has no rows")
    return rows
