"""The leaderboard as groups of comparable rows, each row with its runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfkd_bench.protocol import length_key, seconds_of, titled, version
from dfkd_bench.report.labels import details
from dfkd_bench.report.tables.leaderboard import GROUP, NAMES, ROW
from dfkd_bench.report.tables.runs import by_outcome
from dfkd_bench.utils.hashing import sha256

MAX_ROWS = 40  # a group with more rows is shown without curves and images
RUN_COLUMNS = ("seed", "status", "last", "hash", "error", "alarms", "harness", "commit", "torch", "place")
DEPTH = 5  # path components of a record from the protocol on


@dataclass(frozen=True)
class Line:
    """One row of the leaderboard, its `details` and its runs: complete ones first, by seed."""

    row: Mapping[str, Any]
    details: tuple[str, ...]
    runs: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """Method, preset and details."""
        return ", ".join([f"{self.row['method']} ({self.row['preset']})", *self.details])


@dataclass(frozen=True)
class Group:
    """Comparable rows: best first, bounds last."""

    id: str  # a digest of the group's key
    task: str
    label: str  # the terms that differ between groups of the task
    terms: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """Task and label."""
        return f"{self.task}, {self.label}"

    @property
    def small(self) -> bool:
        """True if the group is shown with curves and images."""
        return len(self.lines) <= MAX_ROWS


def groups(runs: pd.DataFrame, board: pd.DataFrame, results: Path | None) -> list[Group]:
    """All groups of the leaderboard, sorted. `runs` is the `long_table` from which `board` was made."""
    of_row = _runs_by_row(runs, results)
    columns = [board[name].tolist() for name in NAMES]
    rows: list[dict[str, Any]] = [dict(zip(NAMES, values, strict=True)) for values in zip(*columns, strict=True)]
    by_group: dict[Hashable, list[dict[str, Any]]] = {}
    for row in rows:
        by_group.setdefault(tuple(row[k] for k in GROUP), []).append(row)
    by_task: dict[str, list[dict[str, Any]]] = {}
    for group_rows in by_group.values():
        by_task.setdefault(group_rows[0]["task"], []).append(group_rows[0])
    result = [_group(group_rows, by_task[group_rows[0]["task"]], of_row) for group_rows in by_group.values()]
    return sorted(result, key=_sort_key)


def _sort_key(group: Group) -> tuple[str, int, int, str, float, float, int]:
    """By task, latest protocol first, track, longest budget first, most rows first."""
    row = group.lines[0].row
    major, minor = version(row["protocol"]) or (-1, -1)
    kind, length = length_key(row["budget"])
    return group.task, -major, -minor, row["track"], -kind, -length, -len(group.lines)


def _runs_by_row(runs: pd.DataFrame, results: Path | None) -> dict[Hashable, list[dict[str, Any]]]:
    """The runs of each leaderboard row, each once: of several records of a run, the one that the leaderboard uses."""
    counted = by_outcome(runs).drop_duplicates("hash").sort_values(["_order", "seed", "hash"], kind="stable")
    counted["place"] = [relative(path, results) for path in counted["path"]]
    result: dict[Hashable, list[dict[str, Any]]] = {}
    keys, values = (zip(*(counted[k].tolist() for k in names), strict=True) for names in (ROW, RUN_COLUMNS))
    for key, value in zip(keys, values, strict=True):
        result.setdefault(key, []).append(dict(zip(RUN_COLUMNS, value, strict=True)))
    return result


def path_beside_record(run: Mapping[str, Any], results: Path, name: str) -> str:
    """The path of a file beside a run's record."""
    return os.path.join(results, os.path.dirname(run["place"]), name)


def relative(path: str, results: Path | None) -> str:
    """A record's path relative to `results`, or from its protocol on: the page must not contain local paths."""
    posix = path.replace(os.sep, "/")
    root = "" if results is None else results.as_posix().rstrip("/") + "/"
    return posix[len(root) :] if root and posix.startswith(root) else "/".join(posix.split("/")[-DEPTH:])


def _group(rows: list[dict[str, Any]], heads: Sequence[Mapping[str, Any]], of_row: Mapping[Hashable, Any]) -> Group:
    """`heads`: the first row of each group of the task; `of_row`: the runs by `ROW` values."""
    first = rows[0]
    same_name: dict[Hashable, list[dict[str, Any]]] = {}
    for row in rows:
        same_name.setdefault((row["method"], row["preset"], row["overrides"]), []).append(row)
    lines = tuple(
        Line(
            row,
            tuple(details(row, same_name[row["method"], row["preset"], row["overrides"]])),
            tuple(of_row.get(tuple(row[k] for k in ROW), ())),
        )
        for row in rows
    )
    key = json.dumps([first[k] for k in GROUP])
    return Group(digest("g", key), first["task"], _label(first, heads), tuple(_terms(rows)), lines)


def digest(kind: str, text: str) -> str:
    """A short, stable id for an element of the page."""
    return kind + sha256(text)[:10]


def _label(row: Mapping[str, Any], heads: Sequence[Mapping[str, Any]]) -> str:
    """Track, budget, and other terms in which `heads`, the first row of each group of the task, differ."""
    shown = [row["track"], row["budget"]]
    for key, text in (
        ("protocol", titled(row["protocol"])),
        ("device", row["device"]),
        ("precision", row["precision"]),
        ("teacher_sha256", f"teacher {row['teacher'] or ''} {row['teacher_sha256'][:8]}".replace("  ", " ")),
        ("data_sha256", f"data {row['data_sha256'][:8]}"),
    ):
        if len({head[key] for head in heads}) > 1:
            shown.append(text)
    return " · ".join(shown)


def _terms(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The terms of the group, as (name, value)."""
    first = rows[0]
    tops = [row["teacher_top1_mean"] for row in rows if not math.isnan(row["teacher_top1_mean"])]
    names = sorted({name for row in rows for name in (row["device_name"] or "").split(",") if name})
    hashes = [first[f"{what}_sha256"][:12] for what in ("teacher", "data")]
    ranked = sum(not row["bound"] for row in rows)
    timed = seconds_of(first["budget"]) is not None
    return [
        *([("Budget", f"{first['budget'].partition(':')[2]} s of synthesis and distillation")] if timed else []),
        ("Teacher", ", ".join([first["teacher"] or "unnamed", *(f"{top:.2f} %" for top in tops[:1]), hashes[0]])),
        ("Data", hashes[1]),
        ("Device", f"{first['device']} {first['precision']}" + (f", {', '.join(names)}" if names else "")),
        ("Protocol", titled(first["protocol"]).removeprefix("protocol ")),
        ("Rows", f"{ranked} ranked" + (f", {len(rows) - ranked} bounds" if ranked < len(rows) else "")),
    ]
