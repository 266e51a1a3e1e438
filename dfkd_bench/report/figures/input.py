"""The argument of every kind of figure: runs and leaderboard rows by group of comparable rows, and file names."""

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
    """`labelled` runs, rows of their leaderboard, the look of each label, and the columns that `schedules` draws."""

    def __init__(self, runs: pd.DataFrame, board: pd.DataFrame, looks: Looks, columns: Sequence[str] = ()) -> None:
        self.runs, self.board, self.looks, self.columns = runs, board, looks, columns
        self._stems_of: dict[tuple[str, ...], dict[Key, str]] = {}
        # consecutive figures are often of the same group
        self._curves = lru_cache(maxsize=2)(lambda key: curves_of(self.runs_of[key]))

    @cached_property
    def runs_of(self) -> dict[Key, pd.DataFrame]:
        """Runs by group of comparable rows."""
        return dict(iter(self.runs.groupby(list(GROUP), sort=True)))

    @cached_property
    def rows_of(self) -> dict[Key, pd.DataFrame]:
        """Rows of the leaderboard by group of comparable rows."""
        return dict(iter(self.board.groupby(list(GROUP), sort=True)))

    def curves_of(self, key: Key) -> pd.DataFrame:
        """The curves of a group, from `data.curves_of`. Raises `RunError` for a curve that cannot be read."""
        return self._curves(key)

    def competitors(self) -> Iterator[tuple[str, Key, str, pd.DataFrame]]:
        """For each competitor in each group: a name for its files, the group's key, its label, its runs."""
        for key, runs in self.runs_of.items():
            stem = self.name_of(key)
            ranked = runs[~runs["bound"]]
            labels = [str(label) for label in sorted(ranked["label"].unique())]
            slugs = [slug(label) for label in labels]
            for k, label in enumerate(labels):
                suffix = f"-{k}" * (slugs.count(slugs[k]) > 1)  # different labels may have the same slug
                yield f"{stem}-{slugs[k]}{suffix}", key, label, ranked[ranked["label"] == label]

    def name_of(self, key: Any, terms: Sequence[str] = GROUP) -> str:
        """The file name stem of a figure of the rows with the values `key` of `terms`; see `stems`."""
        columns = tuple(terms)
        if columns not in self._stems_of:
            keys = self.board[list(terms)].drop_duplicates().sort_values(list(terms)).itertuples(index=False, name=None)
            self._stems_of[columns] = stems(terms, list(keys))
        return self._stems_of[columns][tuple(key)]


def stems(terms: Sequence[str], keys: Sequence[Key]) -> dict[Key, str]:
    """A unique file name stem for each key: task, track and budget, and other terms in which such keys differ."""
    plain = [name for name in ("task", "track", "budget") if name in terms]
    rows = [{name: slug(str(value)) for name, value in zip(terms, key, strict=True)} for key in keys]
    same_stem: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        same_stem.setdefault("-".join(row[name] for name in plain).lower(), []).append(row)
    result: dict[Key, str] = {}
    taken: set[str] = set()
    for key, row in zip(keys, rows, strict=True):
        stem = "-".join(row[name] for name in plain)
        others = same_stem[stem.lower()]
        differing = [name for name in terms if name not in plain and len({other[name] for other in others}) > 1]
        stem = "-".join([stem, *(row[name][:8] for name in differing)])
        stem = next(n for n in (stem, *(f"{stem}-{k}" for k in range(2, len(keys) + 2))) if n.lower() not in taken)
        result[key] = stem
        taken.add(stem.lower())
    return result
