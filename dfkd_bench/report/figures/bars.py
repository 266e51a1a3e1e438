"""Accuracies per task, one row per competitor: bars from zero if they differ visibly, else dots on a zoomed axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.cost import as_float64, cut_note
from dfkd_bench.report.figures.data import SHARED, bounds_of, means_note, missing_note, require_same, terms_of
from dfkd_bench.report.figures.input import FigureInput
from dfkd_bench.report.figures.layout import (
    TEACHER,
    TOP1,
    Window,
    draw_text,
    finish,
    new_figure,
    panel_title,
    percent_axis,
    reference_lines,
    window,
)
from dfkd_bench.report.figures.style import COLUMN, GREY, PAGE, SMALL, Look, Looks, clean, styled
from dfkd_bench.report.tables.leaderboard import GROUP

ROW = 0.155  # inches per competitor
TASKS = 4  # panels per row
BAR_SPREAD = 0.2  # bars if the range of the means is more than this share of the largest mean, else dots


@styled
def bars(rows: pd.DataFrame, looks: Looks) -> Figure | None:
    """Mean top-1 of the last checkpoint in %, with 95 % intervals; a panel per task, bounds and teacher as lines.

    `rows`: labelled rows of a leaderboard, one or more tasks with the same protocol, track, budget, device and
    precision. Bars start at zero. If they would look equal, dots are drawn on an axis that does not start at zero, and
    a note says so; a mean far outside that axis is written at its edge. A task with another teacher or other data gets
    its own panel. None if no competitor has a mean. Raises `UsageError` for rows that differ in more than the task.
    """
    ranked = rows[~rows["bound"] & rows["last_mean"].notna()]
    if ranked.empty:
        return None
    require_same(rows, SHARED)
    parts = [part for _, part in rows.groupby(list(GROUP), sort=True) if part["label"].isin(ranked["label"]).any()]
    tasks = _panel_titles(parts)
    names, across = rank_order(ranked), min(TASKS, len(tasks))
    width = COLUMN if len(tasks) == 1 else PAGE
    figure, axes = new_figure(len(tasks), across, width, 0.45 + ROW * len(names), share_y=True)
    lines = [_reference_values(part) for part in parts]
    all_names = sorted({name for known in lines for name in known})
    handles: list[list[Line2D]] = []
    cut_notes: list[str] = []
    dots = set()
    for panel, task, part, known in zip(axes, tasks, parts, lines, strict=True):
        shown = part[~part["bound"] & part["last_mean"].notna()]
        view, dotted = _axis_window(shown, list(known.values()))
        panel.set_xlim(view.low, view.high)
        percent_axis(panel.xaxis, view)
        panel.grid(visible=False, axis="y")
        for place, name in enumerate(names):
            matches = shown[shown["label"] == name].to_dict("records")
            if not matches:
                word = "no complete run" if name in set(part["label"]) else "no run"
                draw_text(panel, 0.02, place, word, transform=panel.get_yaxis_transform(), va="center", color=GREY)
            else:
                _draw_row(panel, place, matches[0]["last_mean"], matches[0]["last_ci95"], looks[name], view, dotted)
        panel_handles = list(reference_lines([panel], known, view, upright=True, among=all_names))
        if len(tasks) > 1:
            panel_title(panel, task)
            panel_handles.insert(0, Line2D([], [], linestyle="none", label=f"{task}:"))
        handles.append(panel_handles)
        cut = cut_note(shown, view)
        cut_notes.append(f"{task}: {cut}" if cut and len(tasks) > 1 else cut)
        dots.add(dotted)
    for panel in axes[::across]:
        panel.set_yticks(range(len(names)), [clean(name, 30) for name in names])
        panel.set_ylim(len(names) - 0.4, -0.6)
        for text in panel.get_yticklabels():
            text.set_parse_math(False)
    for panel in axes[-across:]:
        panel.set_xlabel(TOP1)
    how = {True: "Dots: the axis does not start at 0.", False: "Bars start at 0."}
    how_text = " ".join(how[dotted] for dotted in sorted(dots))
    notes = [f"{means_note(ranked)} {how_text}", *cut_notes, missing_note(rows)]
    return finish(figure, terms_of(ranked), notes, *handles)


def _panel_titles(parts: Sequence[pd.DataFrame]) -> list[str]:
    """Names of the tasks, with the teacher's digest if a task occurs more than once."""
    tasks = [str(part["task"].iloc[0]) for part in parts]
    digests = [str(part["teacher_sha256"].iloc[0])[:8] for part in parts]
    repeated = [tasks.count(task) > 1 for task in tasks]
    return [task + f" (teacher {of})" * shown for task, of, shown in zip(tasks, digests, repeated, strict=True)]


def rank_order(ranked: pd.DataFrame) -> list[str]:
    """Labels by mean relative rank over the tasks of each, best first."""
    places = ranked.groupby(list(GROUP))["last_mean"].rank(ascending=False, pct=True)
    mean = places.groupby(ranked["label"]).mean()
    return [str(name) for name in sorted(mean.index, key=lambda name: (mean[name], name))]


def _reference_values(part: pd.DataFrame) -> dict[str, float]:
    """The bounds and the teacher of one task."""
    teachers = part["teacher_top1_mean"].dropna()
    return bounds_of(part) | ({TEACHER: float(teachers.iloc[0])} if len(teachers) else {})


def _axis_window(shown: pd.DataFrame, references: list[float]) -> tuple[Window, bool]:
    """The range of the axis, and True for dots instead of bars."""
    mean, half = as_float64(shown["last_mean"]), as_float64(shown["last_ci95"].fillna(0.0))
    view = window(mean, mean - half, mean + half, references)
    near = mean[(mean >= view.low) & (mean <= view.high)]
    if float(np.ptp(near)) > BAR_SPREAD * float(near.max()):
        return Window(0.0, float(max(np.max(mean + half), *[v for v in references if v <= 100], 0.1)) * 1.03), False
    return view, True


def _draw_row(panel: Axes, y: int, mean: float, half: float, look: Look, view: Window, dotted: bool) -> None:
    known = half == half
    if not view.holds(mean):
        at, side = (view.low, "left") if mean < view.low else (view.high, "right")
        panel.plot([at], [y], marker=look.marker, color=look.colour, clip_on=False, zorder=3)
        shift = 6 if side == "left" else -6
        panel.annotate(
            f"{mean:.1f}, off the axis", (at, y), xytext=(shift, 0), textcoords="offset points", ha=side,
            va="center", fontsize=SMALL, color=GREY, parse_math=False,
        )  # fmt: skip
        return
    if known:
        panel.hlines(y, mean - half, mean + half, color=look.colour if dotted else "black", linewidth=1.0, zorder=2.8)
    if dotted:
        face = look.colour if known else "white"
        panel.plot([mean], [y], marker=look.marker, color=look.colour, markerfacecolor=face, zorder=3)
    else:
        panel.barh(y, mean, height=0.62, color=look.colour, alpha=0.75 if known else 0.3, zorder=1.2, linewidth=0)


def jobs(given: FigureInput) -> Iterator[Job]:
    """One figure per task, and one for all tasks with otherwise equal terms."""
    empty = "no competitor has a complete run"
    for key, rows in given.rows_of.items():
        yield Job(given.name_of(key), partial(bars, rows, given.looks), empty)
    for key, rows in given.board.groupby(list(SHARED), sort=True):
        if rows.groupby(list(GROUP)).ngroups > 1:
            yield Job(given.name_of(key, SHARED), partial(bars, rows, given.looks), empty)


KIND = FigureKind("bars", "accuracies of each task, and of all tasks with the same terms", jobs)
