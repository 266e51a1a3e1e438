"""What things are called: rows of a leaderboard, runs, numbers of things."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dfkd_bench.runs.settings import LATER
from dfkd_bench.utils.text import counted

NAME = ("method", "preset", "overrides", "addons")


def namesakes(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """For each row those that share its name, itself among them: the `others` that `details` needs to look at."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    keys = [tuple(row.get(k) for k in NAME) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        found.setdefault(key, []).append(row)
    return [found[key] for key in keys]


def details(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What else tells this row from its neighbours: add-ons, changed settings, what differs between namesakes."""
    if row["addons"]:
        yield f"with {row['addons']}"
    for key, value in json.loads(row["overrides"]).items():
        yield f"{key}={value}"
    if row["compile"]:
        yield "compiled"
    yield from (f"{name}={row[name]}" for name, usual in LATER.items() if name in row and row[name] != usual)
    alike = [o for o in others if all(o[k] == row[k] for k in ("method", "addons", "preset", "overrides"))]
    if len({o["threads"] for o in alike}) > 1:
        yield counted(int(row["threads"]), "thread")
    for what in ("code", "settings"):
        if len({o[f"{what}_sha256"] for o in alike}) > 1:
            yield f"{what} {row[f'{what}_sha256'][:8]}"
