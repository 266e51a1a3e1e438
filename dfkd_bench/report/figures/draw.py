"""Draws all figures of some records into a folder, and gives a reason for each figure that was not drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfkd_bench.errors import BenchError, UsageError, did_you_mean
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.base import kinds as known_kinds
from dfkd_bench.report.figures.data import labelled
from dfkd_bench.report.figures.input import FigureInput
from dfkd_bench.report.figures.style import FORMATS, figure_bytes, looks, slug, style
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.text import one_line

DEFAULT_FORMATS = ("pdf", "png")  # LaTeX includes PDF directly, with its fonts embedded
MAX_FIGURES = 40  # figures of a kind in one call: thousands of rows would take hours


@dataclass(frozen=True)
class Selection:
    """Which records are drawn; an empty field selects all. Bounds are kept when methods are selected."""

    tasks: tuple[str, ...] = ()
    tracks: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()  # of the figure `schedules`; empty: those that `scheduled_settings` finds
    protocols: tuple[str, ...] = ()

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The selected rows of a long table or a leaderboard."""
        for name, wanted in (
            ("task", self.tasks), ("track", self.tracks), ("budget", self.budgets), ("protocol", self.protocols)
        ):  # fmt: skip
            if wanted:
                rows = rows[rows[name].isin(wanted)]
        return rows[rows["method"].isin(self.methods) | rows["bound"]] if self.methods else rows


@dataclass(frozen=True)
class Skipped:
    """A figure that was not drawn, and why."""

    name: str
    reason: str


def drawings(
    runs: pd.DataFrame, board: pd.DataFrame, out: Path, kinds: Sequence[str] = (), choice: Selection | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS, limit: int = MAX_FIGURES,
) -> Iterator[Path | Skipped]:  # fmt: skip
    """Draw the figures of `kinds` (all if empty) into the folder `out`; yields each file written or figure skipped.

    `runs`: a long table; `board`: its leaderboard. Files are named `<kind>-<task>-<track>-<budget>`, plus other terms
    that differ. A competitor has the same colour and marker in all figures, whatever is selected. A figure is skipped,
    with the reason, if a record lacks its data, if the code of the kind raises, and beyond `limit` figures of a kind.
    Raises `UsageError` for an unknown kind or format, before the first figure, and `RunError` if a file cannot be
    written. Creates `out` if it does not exist.
    """
    entries = known_kinds()
    for words, known, noun in ((kinds, list(entries), "kind of figure"), (formats, list(FORMATS), "format")):
        for word in words:
            if word not in known:
                raise UsageError(f"unknown {noun} {word!r}{did_you_mean(word, known)}")
    choice = choice or Selection()
    every = labelled(board, board)
    palette = looks(every.loc[~every["bound"], "label"])
    given = FigureInput(choice.of(labelled(runs, board)), choice.of(every), palette, choice.columns)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the folder {out}: {error.strerror}") from error
    taken: set[str] = set()  # file names without their suffix
    for name, entry in entries.items():
        if name in kinds or not kinds:
            yield from _draw(entry, given, out, formats, limit, taken)


def _draw(
    entry: Entry, given: FigureInput, out: Path, formats: Sequence[str], limit: int, taken: set[str]
) -> Iterator[Path | Skipped]:
    """All figures of a kind. An error that its code raises is the reason of a skipped figure."""
    done, stem = 0, slug(entry.name)
    try:
        kind = registry.load_object(registry.sole(entry), FigureKind)
        jobs = registry.call_plugin(entry, _jobs, kind, given)
    except BenchError as error:
        yield Skipped(stem, one_line(str(error)))
        return
    for number, (job_name, job) in enumerate(jobs):
        if done == limit:
            rest = f"{len(jobs) - number} more are beyond the limit of {limit} of a kind"
            yield Skipped(stem, f"{rest}: choose some, or raise the limit")
            return
        name = f"{stem}-{job_name}" if job_name else stem
        if name in taken:
            yield Skipped(name, f"another figure already has this name: rename the one of {entry.who}")
            continue
        taken.add(name)
        try:
            files = registry.call_plugin(entry, _files, job, formats)
        except BenchError as error:
            yield Skipped(name, one_line(str(error)))
            continue
        if not files:
            yield Skipped(name, one_line(str(job.empty)))
            continue
        for form, content in files.items():
            write_atomic(path := out / f"{name}.{form}", content)
            yield path
        done += 1


def _jobs(kind: FigureKind, given: FigureInput) -> list[tuple[str, Job]]:
    """The figures of a kind, each with a name that is safe in a file name."""
    jobs = list(kind.jobs(given))
    if invalid := [job for job in jobs if not isinstance(job, Job)]:
        raise TypeError(f"each of its figures must be a Job, got {invalid[0]!r}")
    return [(slug(job.name) if job.name else "", job) for job in jobs]


def _files(job: Job, formats: Sequence[str]) -> dict[str, bytes]:
    """The bytes of the figure in each format; empty if there is no figure."""
    with style():
        figure = job.draw()
        return {} if figure is None else {form: figure_bytes(figure, form) for form in formats}
