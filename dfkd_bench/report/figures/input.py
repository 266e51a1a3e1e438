"""What kinds of figures get: runs and rows of their leaderboard by group of comparable rows, and names for files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

from dfkd_bench.report.figures.data import curves_of
from dfkd_bench.report.figures.style import Looks, slug
from dfkd_bench.report.tables.leaderboard import GROUP

Key = tuple[Any, ...]


class FigureInput:
    """`labelled` runs, rows of their leaderboard and the look of each label; `columns` are those of the schedules."""

    def __init__(self, runs: pd.DataFrame, board: pd.DataFrame, looks: Looks, columns: Sequence[str] = ()) -> None:
        self.runs, self.board, self.looks, self.columns = runs, board, looks, columns
        self._stems_of: dict[tuple[str, ...], dict[Key, str]] = {}
        # several figures in a row are of one group
        self._curves = lru_cache(maxsize=2)(lambda key: curves_of(self.runs_of[key]))

    @cached_property
    def runs_of(self) -> dict[Key, pd.DataFrame]:
        """Runs by group of comparable rows."""
        return dict(iter(self.runs.groupby(list(GROUP), sort=True)))

    @cached_property
    def rows_of(self) -> dict[Key, pd.DataFrame]:
        """Rows of the leaderboard by group."""
        return dict(iter(self.board.groupby(list(GROUP), sort=True)))

    def curves_of(self, key: Key) -> pd.DataFrame:
        """The curves of a group, as `data.curves_of` has them. Raises `RunError` for one that cannot be read."""
        return self._curves(key)

    def competitors(self) -> Iterator[tuple[str, Key, str, pd.DataFrame]]:
        """Of each competitor in each group: a name for its files, the group's key, its label, its runs."""
        for key, runs in self.runs_of.items():
            stem = self.name_of(key)
            ranked = runs[~runs["bound"]]
            labels = [str(label) for label in sorted(ranked["label"].unique())]
            slugs = [slug(label) for label in labels]
            for k, label in enumerate(labels):
                again = f"-{k}" * (slugs.count(slugs[k]) > 1)  # names that differ in what a file's name cannot hold
                yield f"{stem}-{slugs[k]}{again}", key, label, ranked[ranked["label"] == label]

    def name_of(self, key: Any, terms: Sequence[str] = GROUP) -> str:
        """What files are called after that show the rows with the values `key` of `terms`; see `stems`."""
        chosen = tuple(terms)
        if chosen not in self._stems_of:
            keys = self.board[list(terms)].drop_duplicates().sort_values(list(terms)).itertuples(index=False, name=None)
            self._stems_of[chosen] = stems(terms, list(keys))
        return self._stems_of[chosen][tuple(key)]


def stems(terms: Sequence[str], keys: Sequence[Key]) -> dict[Key, str]:
    """What files are called after, for each key: task, track and budget, and which other terms tell it from others."""
    plain = [name for name in ("task", "track", "budget") if name in terms]
    rows = [{name: slug(str(value)) for name, value in zip(terms, key, strict=True)} for key in keys]
    alike: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        alike.setdefault("-".join(row[name] for name in plain).lower(), []).append(row)
    found: dict[Key, str] = {}
    taken: set[str] = set()
    for key, row in zip(keys, rows, strict=True):
        stem = "-".join(row[name] for name in plain)
        others = alike[stem.lower()]
        telling = [name for name in terms if name not in plain and len({other[name] for other in others}) > 1]
        stem = "-".join([stem, *(row[name][:8] for name in telling)])
        stem = next(n for n in (stem, *(f"{stem}-{k}" for k in range(2, len(keys) + 2))) if n.lower() not in taken)
        found[key] = stem
        taken.add(stem.lower())
    return found
