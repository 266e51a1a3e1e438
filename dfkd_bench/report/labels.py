"""Labels of leaderboard rows in tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dfkd_bench.runs.settings import LATER_DEFAULTS
from dfkd_bench.utils.text import counted

NAME = ("method", "preset", "overrides", "addons")


def rows_of_same_name(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """For each row the rows with the same `NAME` columns, itself included: the argument `others` of `details`."""
    rows_by_name: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    keys = [tuple(row.get(k) for k in NAME) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        rows_by_name.setdefault(key, []).append(row)
    return [rows_by_name[key] for key in keys]


def details(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The parts of a row's label besides method and preset.

    Add-ons, changed settings, and threads, code and settings where rows with the same name in `others` differ.
    """
    if row["addons"]:
        yield f"with {row['addons']}"
    for key, value in json.loads(row["overrides"]).items():
        yield f"{key}={value}"
    if row["compile"]:
        yield "compiled"
    yield from (f"{name}={row[name]}" for name, usual in LATER_DEFAULTS.items() if name in row and row[name] != usual)
    same_name = [o for o in others if all(o[k] == row[k] for k in ("method", "addons", "preset", "overrides"))]
    if len({o["threads"] for o in same_name}) > 1:
        yield counted(int(row["threads"]), "thread")
    for kind in ("code", "settings"):
        if len({o[f"{kind}_sha256"] for o in same_name}) > 1:
            yield f"{kind} {row[f'{kind}_sha256'][:8]}"
