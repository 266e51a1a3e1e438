"""Published accuracies beside ours, for one task.

Published numbers share a panel only with rows of the recipe track, which follow the published recipes, and a mark shows
the kind of number: best epoch on the test set (`oracle`) or last checkpoint. Rows of the pinned track have other terms
by design; they have their own panel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dfkd_bench.protocol import parts
from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.data import means_note, missing_note, protocol_suffix, require_same
from dfkd_bench.report.figures.input import FigureInput
from dfkd_bench.report.figures.layout import TOP1, finish, new_figure, panel_title
from dfkd_bench.report.figures.style import COLOURS, COLUMN, PAGE, clean, styled
from dfkd_bench.report.tables.leaderboard import GROUP
from dfkd_bench.report.tables.published import SUPERSEDED
from dfkd_bench.report.tables.published import published as read

SELECTIONS = {"best-on-test": "^", "last": "o", "mean-over-epochs": "D", "unknown": "s"}
PUBLISHED_COLOUR = "0.2"
TERMS = tuple(name for name in GROUP if name != "track")  # equal in all rows of one figure
TRACKS = ("recipe", "pinned")
OURS = {"recipe": (COLOURS[0], SELECTIONS["last"]), "pinned": (COLOURS[1], "v")}
TEACHER_TOLERANCE = 0.3  # percentage points; a number is marked if the teachers differ by more
LINE = 0.16  # inches per line


def numbers_for_task(task: str, numbers: pd.DataFrame) -> pd.DataFrame:
    """The published numbers for the dataset and pair of `task`, without superseded ones and ones without accuracy."""
    data, teacher, student = parts(task)
    matches = (numbers["dataset"] == data) & (numbers["teacher"] == teacher) & (numbers["student"] == student)
    return numbers[matches & numbers["top1"].notna() & ~numbers["note"].fillna("").str.startswith(SUPERSEDED)]


@styled
def published(rows: pd.DataFrame, printed: pd.DataFrame | None = None) -> Figure | None:
    """Published top-1 in % of the methods measured on one task, beside ours.

    `rows`: labelled rows of a leaderboard, of one task, budget, protocol, device and precision, of any track;
    `printed`: as `report.tables.published.published` returns it, which is the default. The shape of a mark shows how
    the checkpoint was selected; a mark is hollow if the published teacher's top-1 differs from ours by more than 0.3
    points or is not given. None if no method has both a published number on this task and one of ours. Raises
    `UsageError` for rows of several tasks or terms.
    """
    require_same(rows, TERMS)
    rows = rows[rows["last_mean"].notna()]
    if rows.empty:
        return None
    numbers = numbers_for_task(str(rows["task"].iloc[0]), read() if printed is None else printed)
    methods = sorted(set(rows["method"]) & set(numbers["method"]))
    if not methods:
        return None
    numbers, rows = numbers[numbers["method"].isin(methods)], rows[rows["method"].isin(methods)]
    teachers = rows["teacher_top1_mean"].dropna()
    teacher = float(teachers.mean()) if len(teachers) else float("nan")
    lines: list[tuple[str, str | None]] = []  # method, and the label of our row or None for published numbers
    for method in methods:
        own = sorted(rows.loc[rows["method"] == method, "label"].unique())
        lines += [(method, None), *((method, label) for label in own)]
    tracks = [track for track in TRACKS if (rows["track"] == track).any()]
    panels = ["recipe", *(["pinned"] if "pinned" in tracks else [])]
    width, high = PAGE if len(panels) > 1 else COLUMN, 0.5 + LINE * len(lines)
    figure, axes = new_figure(len(panels), len(panels), width, high, share_x=True, share_y=True)
    for place, (method, label) in enumerate(lines):
        if label is None:
            _draw_published(axes[0], place, numbers[numbers["method"] == method], teacher)
            if place:
                for panel in axes:
                    panel.axhline(place - 0.5, color="0.85", linewidth=0.6, zorder=0.5)
        else:
            for panel, track in zip(axes, panels, strict=True):
                _draw_ours(panel, place, rows[(rows["label"] == label) & (rows["track"] == track)], track)
    names = [f"{method}: published" if label is None else f"{label}: ours" for method, label in lines]
    axes[0].set_yticks(range(len(lines)), [clean(name, 36) for name in names])
    for text in axes[0].get_yticklabels():
        text.set_parse_math(False)
    axes[0].set_ylim(len(lines) - 0.4, -0.6)
    titles = {"recipe": "published" + ", and our recipe track" * ("recipe" in tracks), "pinned": "our pinned track"}
    for panel, track in zip(axes, panels, strict=True):
        panel.set_xlabel(TOP1 + ", axis not from 0")
        panel_title(panel, titles[track])
        panel.grid(visible=False, axis="y")
    title = f"{rows['task'].iloc[0]}, {rows['budget'].iloc[0]} budget{protocol_suffix(rows['protocol'].iloc[0])}"
    notes = [*_notes(rows, numbers, tracks, teacher), missing_note(rows)]
    return finish(figure, title, notes, *_handles(numbers, tracks))


def _draw_published(panel: Axes, place: int, numbers: pd.DataFrame, teacher: float) -> None:
    """Published numbers of one method."""
    for row in numbers.to_dict("records"):
        hollow = not abs(row["teacher_top1"] - teacher) <= TEACHER_TOLERANCE  # also true if one of them is NaN
        if row["std"] == row["std"]:
            panel.hlines(
                place, row["top1"] - row["std"], row["top1"] + row["std"], color=PUBLISHED_COLOUR, linewidth=0.7
            )
        panel.plot(
            [row["top1"]], [place], marker=SELECTIONS.get(row["selection"], "s"), color=PUBLISHED_COLOUR, markersize=4,
            linestyle="none", alpha=0.85, markerfacecolor="none" if hollow else PUBLISHED_COLOUR,
        )  # fmt: skip


def _draw_ours(panel: Axes, place: int, rows: pd.DataFrame, track: str) -> None:
    """Our row of one track, if any: the last checkpoint with its interval; on the recipe track also the best one."""
    colour, marker = OURS[track]
    for row in rows.to_dict("records"):
        mean, half = row["last_mean"], row["last_ci95"]
        if half == half:
            panel.hlines(place, mean - half, mean + half, color=colour, linewidth=1.0)
        panel.plot([mean], [place], marker=marker, color=colour, linestyle="none", zorder=3)
        if track == "recipe" and row["oracle_mean"] == row["oracle_mean"]:
            panel.plot([row["oracle_mean"]], [place], marker="^", color=colour, linestyle="none", zorder=3)


def _notes(rows: pd.DataFrame, numbers: pd.DataFrame, tracks: Sequence[str], teacher: float) -> list[str]:
    notes = [f"Ours: {means_note(rows)} Published: whiskers are the spread over runs, where one is given."]
    ours = f" ({teacher:.2f} %)" if teacher == teacher else ", which is not known,"
    hollow = f"teacher differs from ours{ours} by more than {TEACHER_TOLERANCE} points or is not given"
    any_hollow = (~((numbers["teacher_top1"] - teacher).abs() <= TEACHER_TOLERANCE)).any()
    notes += [f"Hollow: the published {hollow}."] * bool(any_hollow)
    if "recipe" in tracks and rows["budget"].iloc[0] != "full":
        notes.append("Ours are shorter than the published runs (only the full budget is as long): not like for like.")
    if "pinned" in tracks:
        notes.append("The pinned track has other terms than any publication: drawn apart, not to be compared with it.")
    return [" ".join(notes)]


def _handles(numbers: pd.DataFrame, tracks: Sequence[str]) -> tuple[list[Line2D], list[Line2D]]:
    def mark(colour: str, marker: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4, label=label)

    used = set(numbers["selection"])
    printed = [
        mark(PUBLISHED_COLOUR, marker, f"published, {name}") for name, marker in SELECTIONS.items() if name in used
    ]
    ours = [mark(*OURS[track], f"ours, {track} track, last") for track in tracks]
    if "recipe" in tracks:
        ours.insert(1, mark(OURS["recipe"][0], "^", "ours, recipe track, best-on-test"))
    return printed, ours


def jobs(given: FigureInput) -> Iterator[Job]:
    """One figure per task, with both tracks."""
    for key, rows in given.board.groupby(list(TERMS), sort=True):
        yield Job(given.name_of(key, TERMS), partial(published, rows), "nothing published on this task")


KIND = FigureKind("published", "published numbers beside ours", jobs)
