"""A group's table as JSON for the page: numbers, and text as indices into a list that all groups share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dfkd_bench.protocol import in_names, seconds_of
from dfkd_bench.report.html.groups import Group, Line
from dfkd_bench.report.tables.time_budget import spent
from dfkd_bench.runs.records import STATUSES


class StringTable:
    """Texts of all rows, each stored once."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._places: dict[str, int] = {}

    def __call__(self, text: str | None) -> int | None:
        """The index of `text`, which is added if it is new; None for None."""
        if text is None:
            return None
        if text not in self._places:
            self._places[text] = len(self.all)
            self.all.append(text)
        return self._places[text]


def as_json(value: Any) -> str:
    """JSON with `<`, `>` and `&` escaped, so that it is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


# the keys of a row, in the order of its values
ROW = (
    "rank", "bound", "method", "preset", "details", "n", "diverged", "failed", "alarmed", "last", "ci", "oracle",
    "mean", "selected", "agreement", "coverage", "labels", "seconds", "passes", "uses", "owner", "version", "device",
    "threads", "code", "settings", "harness", "commit", "torch", "folder", "runs", "spent", "off", "made", "seen",
    "steps",
)  # fmt: skip


def table(group: Group, strings: StringTable) -> dict[str, Any]:
    """The data from which the page's script builds a group's table."""
    first = group.lines[0].row
    return {
        "title": group.title,
        "teacher": [first["teacher"], first["teacher_sha256"]],
        "data": first["data_sha256"],
        "track": first["track"],
        "budget": in_names(first["budget"]),  # as in the folder names of its runs
        "timed": seconds_of(first["budget"]) is not None,
        "rows": [_row(line, strings) for line in group.lines],
    }


def _row(line: Line, strings: StringTable) -> list[Any]:
    row = line.row
    passes = row["teacher_forwards_mean"] + row["teacher_backwards_mean"]
    timed = seconds_of(row["budget"]) is not None
    folder = line.runs[0]["place"].rpartition("/")[0].rpartition("/")[0] if line.runs else ""
    values = {
        "rank": None if pd.isna(row["rank"]) else int(row["rank"]),
        "bound": int(row["bound"]),
        "method": strings(row["method"]),
        "preset": strings(row["preset"]),
        "details": [strings(text) for text in line.details],
        "n": row["n_complete"],
        **{key: row[f"n_{key}"] for key in ("diverged", "failed", "alarmed")},
        "last": _number(row["last_mean"]),
        "ci": _number(row["last_ci95"]),
        **{key: _number(row[f"{key}_mean"]) for key in ("oracle", "selected", "agreement")},
        "mean": _number(row["snapshot_mean_mean"]),
        "coverage": _number(100 * row["coverage_mean"], 0),
        "labels": _number(row["label_consistency_mean"], 1),
        "seconds": _seconds(row["seconds_mean"]),
        "passes": _number(passes, 0),
        "uses": strings(row["privileges"]),
        "device": strings(row["device_name"]),
        **{key: strings(row[key]) for key in ("owner", "version")},
        "threads": row["threads"],
        "code": strings(row["code_sha256"]),
        "settings": strings(row["settings_sha256"]),
        **{key: strings(_listed(line, key)) for key in ("harness", "commit", "torch")},
        "folder": strings(folder),
        "runs": [_run(run, folder, f"{row['track']}-{in_names(row['budget'])}", strings) for run in line.runs],
        "spent": _seconds(spent(row)) if timed else None,
        "off": _number(row["seconds_off"], 1),
        **{
            key: _number(row[f"{name}_mean"], 0) if timed else None
            for key, name in (("made", "images_synthesised"), ("seen", "student_images"), ("steps", "student_steps"))
        },
    }
    return [values[key] for key in ROW]


def _run(run: Mapping[str, Any], folder: str, terms: str, strings: StringTable) -> list[Any]:
    """Seed, status, last top-1, hash; then, if needed, the record's path if it is not the usual one, and the error
    or alarms.
    """
    usual = f"{folder}/{terms}-s{run['seed']}-{run['hash']}/record.json"
    path = None if run["place"] == usual else strings(run["place"])
    values = [run["seed"], STATUSES.index(run["status"]), _number(run["last"]), run["hash"]]
    message = run["error"] if run["status"] == "failed" else run["alarms"]
    return [*values, path, strings(message)] if message else [*values, path] if path is not None else values


def _number(value: float, digits: int = 2) -> float | int | None:
    """The number as it is shown; None if it is missing."""
    if value is None or not math.isfinite(value):
        return None
    return round(value, digits) if digits else round(value)


def _seconds(value: float) -> float | int | None:
    return _number(value, 1 if value < 100 else 0)


def _listed(line: Line, key: str) -> str | None:
    return ", ".join(sorted({str(run[key]) for run in line.runs if run[key] is not None})) or None
