"""The leaderboard parted into groups of comparable rows, each row with the runs that it counts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfkd_bench.protocol import budget_order, seconds_of, titled, version
from dfkd_bench.report.labels import details
from dfkd_bench.report.tables.leaderboard import GROUP, NAMES, ROW
from dfkd_bench.report.tables.runs import by_outcome
from dfkd_bench.utils.hashing import sha256

SMALL = 40  # rows up to which a group has curves and images
OF_RUN = ("seed", "status", "last", "hash", "error", "alarms", "harness", "commit", "torch", "place")
DEPTH = 5  # parts of a record's path from the protocol on


@dataclass(frozen=True)
class Line:
    """One row of the leaderboard, what tells it from its namesakes, and its runs, complete ones first, by seed."""

    row: Mapping[str, Any]
    details: tuple[str, ...]
    runs: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """Method and preset, and what else tells the row apart."""
        return ", ".join([f"{self.row['method']} ({self.row['preset']})", *self.details])


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: best first, bounds last."""

    id: str  # stable: a digest of the group's key
    task: str
    label: str  # what tells it from the other groups of its task
    terms: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """What is compared here."""
        return f"{self.task}, {self.label}"

    @property
    def small(self) -> bool:
        """Whether curves and images of every row would still be readable."""
        return len(self.lines) <= SMALL


def groups(runs: pd.DataFrame, board: pd.DataFrame, results: Path | None) -> list[Group]:
    """Every group of the leaderboard in its order. `runs` is the `long_table` that `board` was made from."""
    of_row = _runs_by_row(runs, results)
    columns = [board[name].tolist() for name in NAMES]
    rows: list[dict[str, Any]] = [dict(zip(NAMES, values, strict=True)) for values in zip(*columns, strict=True)]
    parts: dict[Hashable, list[dict[str, Any]]] = {}
    for row in rows:
        parts.setdefault(tuple(row[k] for k in GROUP), []).append(row)
    by_task: dict[str, list[dict[str, Any]]] = {}
    for found in parts.values():
        by_task.setdefault(found[0]["task"], []).append(found[0])
    made = [_group(found, by_task[found[0]["task"]], of_row) for found in parts.values()]
    return sorted(made, key=_telling_first)


def _telling_first(group: Group) -> tuple[str, int, int, str, float, float, int]:
    """Tasks by name, the latest protocol first, tracks by name, the longest budget first, of one budget most rows."""
    row = group.lines[0].row
    major, minor = version(row["protocol"]) or (-1, -1)
    kind, length = budget_order(row["budget"])
    return group.task, -major, -minor, row["track"], -kind, -length, -len(group.lines)


def _runs_by_row(runs: pd.DataFrame, results: Path | None) -> dict[Hashable, list[dict[str, Any]]]:
    """The runs that the leaderboard counts, by row: of a run on disk twice the record it takes, as it does."""
    counted = by_outcome(runs).drop_duplicates("hash").sort_values(["_order", "seed", "hash"], kind="stable")
    counted["place"] = [relative(path, results) for path in counted["path"]]
    found: dict[Hashable, list[dict[str, Any]]] = {}
    keys, values = (zip(*(counted[k].tolist() for k in names), strict=True) for names in (ROW, OF_RUN))
    for key, value in zip(keys, values, strict=True):
        found.setdefault(key, []).append(dict(zip(OF_RUN, value, strict=True)))
    return found


def beside(run: Mapping[str, Any], results: Path, name: str) -> str:
    """The path of a file beside a run's record."""
    return os.path.join(results, os.path.dirname(run["place"]), name)


def relative(path: str, results: Path | None) -> str:
    """A record's path below `results`, or from its protocol on: a page names no folder of the machine that made it."""
    posix = path.replace(os.sep, "/")
    root = "" if results is None else results.as_posix().rstrip("/") + "/"
    return posix[len(root) :] if root and posix.startswith(root) else "/".join(posix.split("/")[-DEPTH:])


def _group(rows: list[dict[str, Any]], heads: Sequence[Mapping[str, Any]], of_row: Mapping[Hashable, Any]) -> Group:
    first = rows[0]
    namesakes: dict[Hashable, list[dict[str, Any]]] = {}
    for row in rows:
        namesakes.setdefault((row["method"], row["preset"], row["overrides"]), []).append(row)
    lines = tuple(
        Line(
            row,
            tuple(details(row, namesakes[row["method"], row["preset"], row["overrides"]])),
            tuple(of_row.get(tuple(row[k] for k in ROW), ())),
        )
        for row in rows
    )
    key = json.dumps([first[k] for k in GROUP])
    return Group(digest("g", key), first["task"], _label(first, heads), tuple(_terms(rows)), lines)


def digest(kind: str, text: str) -> str:
    """A short name for an element of the page that stays the same from page to page."""
    return kind + sha256(text)[:10]


def _label(row: Mapping[str, Any], heads: Sequence[Mapping[str, Any]]) -> str:
    """Track and budget, and whatever else parts the groups of one task."""
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
    """What every row of the group has in common, as name and value."""
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
