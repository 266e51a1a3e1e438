"""Everything that the records allow, drawn into a folder; what cannot be drawn is said with its reason."""

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
from dfkd_bench.report.figures.style import FORMATS, looks, payload, slug, style
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.text import one_line

# PDF is the vector format unless asked otherwise: LaTeX takes it as it is, with its type embedded as text
DEFAULT_FORMATS = ("pdf", "png")
LIMIT = 40  # figures of a kind in one call: thousands of rows would take hours, and nobody looks at them


@dataclass(frozen=True)
class Choice:
    """What is drawn of the records; nothing named means all. Bounds stay beside chosen methods."""

    tasks: tuple[str, ...] = ()
    tracks: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()  # of schedules; nothing named: those that are schedules by the look of them
    protocols: tuple[str, ...] = ()

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The chosen rows of a long table or a leaderboard."""
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
    runs: pd.DataFrame, board: pd.DataFrame, out: Path, kinds: Sequence[str] = (), choice: Choice | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS, limit: int = LIMIT,
) -> Iterator[Path | Skipped]:  # fmt: skip
    """Draw the figures of `kinds` (all, if none is named) into the folder `out`, which is made if need be.

    Each file, and each figure left out, as it comes. `runs`: a long table; `board`: its leaderboard. Files are named
    `<kind>-<task>-<track>-<budget>`, with what else tells them apart. A competitor has one colour and marker in all
    figures, whatever is chosen. What a record lacks or breaks leaves its figure out, with the reason; so do an error of
    a kind and the `limit` of figures of a kind. Raises `UsageError` for an unknown kind or format, before anything is
    drawn, `RunError` where the disk refuses.
    """
    entries = known_kinds()
    for words, known, what in ((kinds, list(entries), "kind of figure"), (formats, list(FORMATS), "format")):
        for word in words:
            if word not in known:
                raise UsageError(f"unknown {what} {word!r}{did_you_mean(word, known)}")
    choice = choice or Choice()
    every = labelled(board, board)
    palette = looks(every.loc[~every["bound"], "label"])
    given = FigureInput(choice.of(labelled(runs, board)), choice.of(every), palette, choice.columns)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {out}: {error.strerror}") from error
    taken: set[str] = set()  # names of files, without their ending
    for name, entry in entries.items():
        if name in kinds or not kinds:
            yield from _draw(entry, given, out, formats, limit, taken)


def _draw(
    entry: Entry, given: FigureInput, out: Path, formats: Sequence[str], limit: int, taken: set[str]
) -> Iterator[Path | Skipped]:
    """All figures of a kind. Whatever its code raises is the reason why something is not drawn."""
    done, stem = 0, slug(entry.name)
    try:
        kind = registry.load_object(registry.without_clash(entry), FigureKind)
        jobs = registry.call_plugin(entry, _jobs, kind, given)
    except BenchError as error:
        yield Skipped(stem, one_line(str(error)))
        return
    for number, (own, job) in enumerate(jobs):
        if done == limit:
            rest = f"{len(jobs) - number} more are beyond the limit of {limit} of a kind"
            yield Skipped(stem, f"{rest}: choose some, or raise the limit")
            return
        name = f"{stem}-{own}" if own else stem
        if name in taken:
            yield Skipped(name, f"{entry.who} or a kind before it has a figure of this name already")
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
    """The figures of a kind, each with its name as a file may have it."""
    jobs = list(kind.jobs(given))
    if strange := [job for job in jobs if not isinstance(job, Job)]:
        raise TypeError(f"each of its figures must be a Job, got {strange[0]!r}")
    return [(slug(job.name) if job.name else "", job) for job in jobs]


def _files(job: Job, formats: Sequence[str]) -> dict[str, bytes]:
    """The bytes of the figure in each format; empty where there is no figure."""
    with style():
        figure = job.draw()
        return {} if figure is None else {form: payload(figure, form) for form in formats}
