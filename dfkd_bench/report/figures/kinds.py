"""Which figures there are to draw from a leaderboard and its runs: the name of each, and how it is drawn when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib import import_module
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.report.figures.bars import SHARED, bars
from dfkd_bench.report.figures.confusion import confusion
from dfkd_bench.report.figures.cost import cost
from dfkd_bench.report.figures.curves import curves
from dfkd_bench.report.figures.data import ABOUT, CLOCK, blocks_of, bounds_of, confusion_of, curves_of, terms_of
from dfkd_bench.report.figures.losses import losses
from dfkd_bench.report.figures.published import published
from dfkd_bench.report.figures.ranks import ranks
from dfkd_bench.report.figures.schedules import schedules, steered
from dfkd_bench.report.figures.style import Looks, slug
from dfkd_bench.report.tables.leaderboard import GROUP

STATISTICS = "dfkd_bench.stats.ranks"
NO_MEAN = "no competitor has a complete run"
NO_CURVES = "no run has curves beside its record"
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Job:
    """One figure to come: its name without an ending, how to draw it, and what it means if that gives None."""

    name: str
    draw: Callable[[], Figure | None]
    empty: str


class Atlas:
    """All figures of `labelled` runs and rows of their leaderboard; `columns` are those of the schedules."""

    def __init__(self, runs: pd.DataFrame, board: pd.DataFrame, looks: Looks, columns: Sequence[str] = ()) -> None:
        self.runs, self.board, self.looks, self.columns = runs, board, looks, columns
        self._stems_of: dict[tuple[str, ...], dict[Key, str]] = {}
        self._curves = lru_cache(maxsize=2)(
            lambda key: curves_of(self.runs_of[key])
        )  # several figures in a row use one

    @cached_property
    def runs_of(self) -> dict[Key, pd.DataFrame]:
        """Runs by group of comparable rows."""
        return dict(iter(self.runs.groupby(list(GROUP), sort=True)))

    @cached_property
    def rows_of(self) -> dict[Key, pd.DataFrame]:
        """Rows of the leaderboard by group."""
        return dict(iter(self.board.groupby(list(GROUP), sort=True)))

    def cost(self) -> Iterator[Job]:
        """Accuracy against seconds, a figure per device, and against teacher passes."""
        empty = "no competitor has both a mean accuracy and that cost; seconds are empty over several devices"
        for key, rows in self.rows_of.items():
            name = self._name("cost", GROUP, key)
            for more, part in by_clock(rows):
                yield Job(name + more, partial(cost, part, self.looks, "seconds"), empty)
            yield Job(f"{name}-passes", partial(cost, rows, self.looks, "passes"), empty)

    def curves(self) -> Iterator[Job]:
        """Learning curves over student images, and over seconds, a figure per device."""
        for key, rows in self.rows_of.items():
            name = self._name("curves", GROUP, key)
            yield Job(name, partial(self._curve, key, rows, "student_images"), NO_CURVES)
            clocks = self.runs_of[key].loc[~self.runs_of[key]["bound"]].groupby(list(CLOCK), dropna=False, sort=True)
            for clock, _ in clocks:
                more = f"-{clock_name(clock)}" * (len(clocks) > 1)
                draw = partial(self._curve, key, rows, "seconds", clock)
                yield Job(f"{name}-seconds{more}", draw, f"{NO_CURVES}, or the records give no seconds")

    def _curve(self, key: Key, rows: pd.DataFrame, against: str, clock: Key | None = None) -> Figure | None:
        points = self._curves(key)
        if clock is not None:
            points = points[[same == clock for same in zip(*(points[name] for name in CLOCK), strict=True)]]
        if against == "seconds":
            points = points.dropna(subset=["seconds"])
        return curves(points, self.looks, bounds_of(rows), against, title=terms_of(rows))

    def bars(self) -> Iterator[Job]:
        """Accuracies: a figure per task, and one of all tasks that share their other terms."""
        for key, rows in self.rows_of.items():
            yield Job(self._name("bars", GROUP, key), partial(bars, rows, self.looks), NO_MEAN)
        for key, rows in self.board.groupby(list(SHARED), sort=True):
            if rows.groupby(list(GROUP)).ngroups > 1:
                yield Job(self._name("bars", SHARED, key), partial(bars, rows, self.looks), NO_MEAN)

    def ranks(self) -> Iterator[Job]:
        """Critical-difference diagrams, one per set of tasks that share their other terms."""
        empty = "fewer than three competitors with a complete run in every block, or fewer than two blocks"
        for key, runs in self.runs.groupby(list(SHARED), sort=True):
            yield Job(self._name("ranks", SHARED, key), partial(self._rank, runs), empty)

    def _rank(self, runs: pd.DataFrame) -> Figure | None:
        blocks = blocks_of(runs)
        if blocks.table.shape[0] < 2 or blocks.table.shape[1] < 3:
            return None
        try:
            found = import_module(STATISTICS).ranks(blocks.table)  # heavy, and for this figure alone
        except ImportError as error:
            raise RunError(f"mean ranks need what is not installed: {error}") from error
        notes = ["A block is a task with a seed."]
        notes += [f"Left out, for lack of a block: {', '.join(blocks.left_out)}."] * bool(blocks.left_out)
        notes += [f"{blocks.dropped} blocks left out, which half of the competitors lack."] * bool(blocks.dropped)
        return ranks(found, self.looks, terms_of(runs), [" ".join(notes)])

    def published(self) -> Iterator[Job]:
        """Published beside measured, both tracks in a figure."""
        terms = [name for name in GROUP if name != "track"]
        for key, rows in self.board.groupby(terms, sort=True):
            yield Job(self._name("published", terms, key), partial(published, rows), "nothing published on this task")

    def losses(self) -> Iterator[Job]:
        """Loss terms of each competitor."""
        for name, key, label, runs in self._each("losses"):
            title = f"{label}: {terms_of(runs)}"
            yield Job(name, partial(self._loss, key, label, title), NO_CURVES)

    def _loss(self, key: Key, label: str, title: str) -> Figure | None:
        points = self._curves(key)
        return losses(points[points["label"] == label], self.looks[label], title)

    def schedules(self) -> Iterator[Job]:
        """The named columns of each group, or those that are schedules by the look of them."""
        empty = "no column that is equal for all seeds and changes over the run; name some with --columns"
        for key, rows in self.rows_of.items():
            yield Job(self._name("schedules", GROUP, key), partial(self._schedule, key, terms_of(rows)), empty)

    def _schedule(self, key: Key, title: str) -> Figure | None:
        points = self._curves(key)
        points = points[~points["bound"].astype(bool)]
        for name in self.columns:
            if name not in points:
                known = [
                    str(column) for column in points if column not in (*ABOUT, "snapshot", "round", "student_images")
                ]
                raise UsageError(f"no curve has a column {name!r}{did_you_mean(name, known)}")
        return schedules(points, self.columns or steered(points), self.looks, title)

    def confusion(self) -> Iterator[Job]:
        """Confusion of each competitor with its teacher."""
        for name, _, label, runs in self._each("confusion"):
            draw = partial(_confusion, runs, f"{label}: {terms_of(runs)}")
            yield Job(name, draw, "no complete run has predictions beside its record")

    def _each(self, kind: str) -> Iterator[tuple[str, Key, str, pd.DataFrame]]:
        for key, runs in self.runs_of.items():
            stem = self._name(kind, GROUP, key)
            ranked = runs[~runs["bound"]]
            labels = [str(label) for label in sorted(ranked["label"].unique())]
            slugs = [slug(label) for label in labels]
            for k, label in enumerate(labels):
                again = f"-{k}" * (slugs.count(slugs[k]) > 1)  # names that differ in what a file's name cannot hold
                yield f"{stem}-{slugs[k]}{again}", key, label, ranked[ranked["label"] == label]

    def _name(self, kind: str, terms: Sequence[str], key: Any) -> str:
        return f"{kind}-{self._stems(tuple(terms))[tuple(key)]}"

    def _stems(self, terms: tuple[str, ...]) -> dict[Key, str]:
        if terms not in self._stems_of:
            keys = list(
                self.board[list(terms)].drop_duplicates().sort_values(list(terms)).itertuples(index=False, name=None)
            )
            self._stems_of[terms] = stems(terms, keys)
        return self._stems_of[terms]


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


def by_clock(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of a leaderboard whose seconds compare, each with the bounds, and what tells them in a file's name."""
    ranked, bounds = rows[~rows["bound"]], rows[rows["bound"]]
    parts = ranked.groupby(list(CLOCK), dropna=False, sort=True)
    for clock, part in parts:
        yield f"-{clock_name(clock)}" * (len(parts) > 1), pd.concat([part, bounds])


def clock_name(clock: Any) -> str:
    """A device with its number of threads, in a file's name."""
    device, threads = clock
    return f"{slug(str(device))[:40]}-{threads}-threads"


def _confusion(runs: pd.DataFrame, title: str) -> Figure | None:
    found = confusion_of(runs)
    return confusion(found, title) if found else None
