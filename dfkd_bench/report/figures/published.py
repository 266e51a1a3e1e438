"""Published numbers beside ours, for one task: like beside like, and everything else drawn apart.

A published number stands beside rows of the recipe track alone, which follow the published recipes, and beside the same
kind of number: the best epoch on test beside ours (`oracle`), the last checkpoint beside ours. Rows of the pinned track
have other terms by design; they stand in a panel of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dfkd_bench.protocol import split_task_name
from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.data import means_of, missing_of, of_protocol, one_of
from dfkd_bench.report.figures.input import FigureInput
from dfkd_bench.report.figures.layout import TOP1, finish, new_figure, panel_title
from dfkd_bench.report.figures.style import COLOURS, COLUMN, PAGE, clean, styled
from dfkd_bench.report.tables.leaderboard import GROUP
from dfkd_bench.report.tables.published import SUPERSEDED
from dfkd_bench.report.tables.published import published as read

SELECTIONS = {"best-on-test": "^", "last": "o", "mean-over-epochs": "D", "unknown": "s"}
PRINTED = "0.2"
TERMS = tuple(name for name in GROUP if name != "track")  # of all rows in one figure
TRACKS = ("recipe", "pinned")
OURS = {"recipe": (COLOURS[0], SELECTIONS["last"]), "pinned": (COLOURS[1], "v")}
TEACHERS = 0.3  # points between two teachers from which a number is marked
LINE = 0.16  # inches per line


def printed_for(task: str, printed: pd.DataFrame) -> pd.DataFrame:
    """The published numbers of the pair and dataset of `task`: not superseded, and with an accuracy."""
    data, teacher, student = split_task_name(task)
    fit = (printed["dataset"] == data) & (printed["teacher"] == teacher) & (printed["student"] == student)
    return printed[fit & printed["top1"].notna() & ~printed["note"].fillna("").str.startswith(SUPERSEDED)]


@styled
def published(rows: pd.DataFrame, printed: pd.DataFrame | None = None) -> Figure | None:
    """Published top-1 in % of the methods measured on one task, beside ours.

    `rows`: labelled rows of a leaderboard, of one task, budget, protocol, device and precision, of any track;
    `printed`: as `report.tables.published.published` gives it, which is the default. The shape of a mark is the
    selection of its number; a mark is hollow where the teacher is another one by more than 0.3 points, or not given.
    None where no method has both a published number on this task and one of ours. Raises `UsageError` for rows of
    several tasks or terms.
    """
    one_of(rows, TERMS)
    rows = rows[rows["last_mean"].notna()]
    if rows.empty:
        return None
    found = printed_for(str(rows["task"].iloc[0]), read() if printed is None else printed)
    methods = sorted(set(rows["method"]) & set(found["method"]))
    if not methods:
        return None
    found, rows = found[found["method"].isin(methods)], rows[rows["method"].isin(methods)]
    teachers = rows["teacher_top1_mean"].dropna()
    teacher = float(teachers.mean()) if len(teachers) else float("nan")
    lines: list[tuple[str, str | None]] = []  # method, and the label of our row or None for what is published
    for method in methods:
        own = sorted(rows.loc[rows["method"] == method, "label"].unique())
        lines += [(method, None), *((method, label) for label in own)]
    tracks = [track for track in TRACKS if (rows["track"] == track).any()]
    panels = ["recipe", *(["pinned"] if "pinned" in tracks else [])]
    width, high = PAGE if len(panels) > 1 else COLUMN, 0.5 + LINE * len(lines)
    figure, axes = new_figure(len(panels), len(panels), width, high, share_x=True, share_y=True)
    for place, (method, label) in enumerate(lines):
        if label is None:
            _printed(axes[0], place, found[found["method"] == method], teacher)
            if place:
                for panel in axes:
                    panel.axhline(place - 0.5, color="0.85", linewidth=0.6, zorder=0.5)
        else:
            for panel, track in zip(axes, panels, strict=True):
                _measured(panel, place, rows[(rows["label"] == label) & (rows["track"] == track)], track)
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
    title = f"{rows['task'].iloc[0]}, {rows['budget'].iloc[0]} budget{of_protocol(rows['protocol'].iloc[0])}"
    notes = [*_notes(rows, found, tracks, teacher), missing_of(rows)]
    return finish(figure, title, notes, *_handles(found, tracks))


def _printed(panel: Axes, place: int, found: pd.DataFrame, teacher: float) -> None:
    """Published numbers of one method."""
    for row in found.to_dict("records"):
        other = not abs(row["teacher_top1"] - teacher) <= TEACHERS  # also where one of the two is not known
        if row["std"] == row["std"]:
            panel.hlines(place, row["top1"] - row["std"], row["top1"] + row["std"], color=PRINTED, linewidth=0.7)
        panel.plot(
            [row["top1"]], [place], marker=SELECTIONS.get(row["selection"], "s"), color=PRINTED, markersize=4,
            linestyle="none", alpha=0.85, markerfacecolor="none" if other else PRINTED,
        )  # fmt: skip


def _measured(panel: Axes, place: int, rows: pd.DataFrame, track: str) -> None:
    """Our row of one track, if there is one: the last checkpoint with its interval; of the recipe track the best."""
    colour, marker = OURS[track]
    for row in rows.to_dict("records"):
        mean, half = row["last_mean"], row["last_ci95"]
        if half == half:
            panel.hlines(place, mean - half, mean + half, color=colour, linewidth=1.0)
        panel.plot([mean], [place], marker=marker, color=colour, linestyle="none", zorder=3)
        if track == "recipe" and row["oracle_mean"] == row["oracle_mean"]:
            panel.plot([row["oracle_mean"]], [place], marker="^", color=colour, linestyle="none", zorder=3)


def _notes(rows: pd.DataFrame, found: pd.DataFrame, tracks: Sequence[str], teacher: float) -> list[str]:
    told = [f"Ours: {means_of(rows)} Published: whiskers are the spread over runs, where one is given."]
    teacher_entry = f" ({teacher:.2f} %)" if teacher == teacher else ", which is not known,"
    hollow = f"teacher differs from ours{teacher_entry} by more than {TEACHERS} points or is not given"
    far = (~((found["teacher_top1"] - teacher).abs() <= TEACHERS)).any()
    told += [f"Hollow: the published {hollow}."] * bool(far)
    if "recipe" in tracks and rows["budget"].iloc[0] != "full":
        told.append("Ours are shorter than the published runs (only the full budget is as long): not like for like.")
    if "pinned" in tracks:
        told.append("The pinned track has other terms than any publication: drawn apart, not to be compared with it.")
    return [" ".join(told)]


def _handles(found: pd.DataFrame, tracks: Sequence[str]) -> tuple[list[Line2D], list[Line2D]]:
    def mark(colour: str, marker: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4, label=label)

    seen = set(found["selection"])
    printed = [mark(PRINTED, marker, f"published, {name}") for name, marker in SELECTIONS.items() if name in seen]
    ours = [mark(*OURS[track], f"ours, {track} track, last") for track in tracks]
    if "recipe" in tracks:
        ours.insert(1, mark(OURS["recipe"][0], "^", "ours, recipe track, best-on-test"))
    return printed, ours


def jobs(given: FigureInput) -> Iterator[Job]:
    """A figure per task, both tracks in it."""
    for key, rows in given.board.groupby(list(TERMS), sort=True):
        yield Job(given.name_of(key, TERMS), partial(published, rows), "nothing published on this task")


KIND = FigureKind("published", "published numbers beside ours", jobs)
