"""Learning curves: test top-1 over student images or seconds, one line per competitor and a band over its seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import stdtrit

from dfkd_bench.errors import UsageError
from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.cost import clock_note
from dfkd_bench.report.figures.data import CLOCK, NO_CURVES, bounds_of, clock_name, require_same, terms_of
from dfkd_bench.report.figures.input import FigureInput, Key
from dfkd_bench.report.figures.layout import (
    TOP1,
    Window,
    count_axis,
    error_scale,
    finish,
    new_figure,
    panel_title,
    percent_axis,
    reference_lines,
)
from dfkd_bench.report.figures.style import COLUMN, FAINT, PAGE, Looks, styled

Band = Literal["range", "t"]
AGAINST = {"student_images": "student images", "seconds": "seconds of training"}
BANDS = {"range": "from the lowest to the highest seed", "t": "the 95 % interval of the mean (Student t)"}
MAX_SHARED_PANEL = 6  # up to this number, all competitors share one panel; more get one panel each
ACROSS = (4, 5)  # panels per row; the number that leaves fewer empty places
STRETCH_FROM = 97.0  # if the best curve exceeds this, the axis is stretched towards 100


def over_seeds(
    points: pd.DataFrame, column: str, against: str = "student_images", band: Band = "range"
) -> pd.DataFrame:
    """Mean and band over the complete runs of one competitor: columns x, mean, low, high, n, by rising x.

    Only snapshots that every run has are used; x is their mean. Raises `UsageError` for an unknown axis or band.
    """
    if against not in AGAINST or band not in BANDS:
        raise UsageError(f"curves are drawn against {' or '.join(AGAINST)}, with a band {' or '.join(BANDS)}")
    complete = points[points["status"] == "complete"].dropna(subset=[against, column])
    groups = complete.groupby("snapshot")
    table = pd.DataFrame(
        {"x": groups[against].mean(), "mean": groups[column].mean(), "sd": groups[column].std(),
         "low": groups[column].min(), "high": groups[column].max(), "n": groups["seed"].size()}
    )  # fmt: skip
    table = table[table["n"] == complete["seed"].nunique()].sort_values("x").reset_index(drop=True)
    if band == "t":
        half = stdtrit(table["n"] - 1, 0.975) * table["sd"] / np.sqrt(table["n"])
        table["low"], table["high"] = table["mean"] - half.fillna(0.0), table["mean"] + half.fillna(0.0)
    columns = ["x", "mean", "low", "high", "n"]
    return table[columns]


@styled
def curves(
    points: pd.DataFrame, looks: Looks, bounds: Mapping[str, float] | None = None, against: str = "student_images",
    band: Band = "range", title: str = "",
) -> Figure | None:  # fmt: skip
    """Test top-1 in % against `student_images` or `seconds`.

    `points`: from `curves_of`, of one group (and one device, for seconds); `bounds`: name -> top-1, drawn as lines. Up
    to six competitors share a panel; more get one panel each, with the others in grey behind. A diverged run is a thin
    line that ends in a cross. None if there is nothing to draw. Raises `UsageError` for an unknown axis or band, and
    for seconds of several devices or numbers of threads.
    """
    points = points[~points["bound"].astype(bool)].dropna(subset=["top1"])
    if against == "seconds":
        require_same(points, CLOCK)
    lines = {str(n): over_seeds(part, "top1", against, band) for n, part in points.groupby("label", sort=True)}
    diverged = {str(n): _diverged_runs(part, against) for n, part in points.groupby("label", sort=True)}
    names = [name for name in lines if len(lines[name]) or diverged[name]]
    if not names:
        return None
    together = len(names) <= MAX_SHARED_PANEL
    panels = [names] if together else [[name] for name in names]
    across = 1 if together else min(ACROSS, key=lambda n: (-len(names) % n, n))
    figure, axes = new_figure(
        len(panels), across, COLUMN if together else PAGE, 2.4 if together else 1.35, share_x=True, share_y=True
    )
    view = _axis_window([lines[name] for name in names], [line for name in names for line in diverged[name]])
    stretched = view.high > STRETCH_FROM
    for panel, panel_names in zip(axes, panels, strict=True):
        for name in names:
            if name not in panel_names:
                panel.plot(lines[name]["x"], lines[name]["mean"], color=FAINT, linewidth=0.4, zorder=1.6)
        for number, name in enumerate(panel_names):
            _draw(panel, name, lines[name], diverged[name], looks, number if together else None)
        if not together:
            panel_title(panel, panel_names[0])
        count_axis(panel.xaxis, 3 + 2 * together)
        if stretched:
            error_scale(panel, view)
        else:
            panel.set_ylim(view.low, view.high)
            percent_axis(panel.yaxis, view)
        panel.set_xlim(left=0)
    bound_handles = list(reference_lines(axes, bounds or {}, view))
    for panel in axes[-across:]:
        panel.set_xlabel(AGAINST[against])
    for panel in axes[::across]:
        panel.set_ylabel(TOP1)
    handles = [h for h in axes[0].get_lines() if together and not str(h.get_label()).startswith("_")]
    notes = _notes(lines, diverged, names, against, band, together)
    notes += [clock_note(points)] * (against == "seconds")
    notes += ["The vertical axis is stretched by the logarithm of the error, 100 - top-1."] * stretched
    return finish(figure, title, [" ".join(notes)], handles, bound_handles)


def _draw(
    panel: Axes, name: str, line: pd.DataFrame, diverged: Sequence[pd.DataFrame], looks: Looks, number: int | None
) -> None:
    """One competitor; in a shared panel, `number` shifts its markers against those of the others."""
    look = looks[name]
    if len(line):
        panel.fill_between(line["x"], line["low"], line["high"], color=look.colour, alpha=0.22, linewidth=0, zorder=2)
        every, together = max(2, len(line) // 4), number is not None
        panel.plot(
            line["x"], line["mean"], color=look.colour, linestyle=look.stroke if together else "-", label=name,
            zorder=3, markersize=3.5,
            marker=look.marker if together else None, markevery=((number or 0) % every, every),
        )  # fmt: skip
    for run in diverged:
        panel.plot(run["x"], run["top1"], color=look.colour, linewidth=0.6, zorder=2.6)
        panel.plot(run["x"].iloc[-1:], run["top1"].iloc[-1:], "x", color=look.colour, markersize=4, zorder=3)


def _diverged_runs(points: pd.DataFrame, against: str) -> list[pd.DataFrame]:
    diverged = points[points["status"] == "diverged"].dropna(subset=[against])
    return [run.sort_values(against).rename(columns={against: "x"}) for _, run in diverged.groupby("seed")]


def _axis_window(lines: Sequence[pd.DataFrame], diverged: Sequence[pd.DataFrame]) -> Window:
    """The range of everything drawn, up to 100."""
    low = [line["low"].min() for line in lines if len(line)] + [run["top1"].min() for run in diverged]
    high = [line["high"].max() for line in lines if len(line)] + [run["top1"].max() for run in diverged]
    bottom, top = max(float(min(low)), 0.0), min(float(max(high)), 100.0)
    if top > STRETCH_FROM:  # margins for the logarithmic axis of the error
        return Window(bottom - 0.04 * (100.0 - bottom), 100.0 - 0.8 * max(100.0 - top, 0.1))
    pad = 0.05 * max(top - bottom, 1.0)
    return Window(bottom - pad, min(top + pad, STRETCH_FROM))


def _notes(
    lines: Mapping[str, pd.DataFrame], diverged: Mapping[str, Sequence[pd.DataFrame]], names: Sequence[str],
    against: str, band: Band, together: bool,
) -> list[str]:  # fmt: skip
    counts = sorted({int(lines[name]["n"].max()) for name in names if len(lines[name])})
    seeds = f"{counts[0]}" + f" to {counts[-1]}" * (len(counts) > 1) if counts else "no complete"
    notes = [f"Line: mean over {seeds} seed{'s' * (counts != [1])}; band: {BANDS[band]}."]
    if against == "seconds":
        notes.append("Each snapshot stands at its mean time over the seeds.")
    if not together:
        notes.append("Thin grey: the other competitors.")
    n_diverged = {name: len(runs) for name, runs in diverged.items() if runs}
    if n_diverged:
        notes.append(f"Thin, to a cross: runs that diverged ({', '.join(f'{k} {v}' for k, v in n_diverged.items())}).")
    return notes


def jobs(given: FigureInput) -> Iterator[Job]:
    """One figure over student images, and one over seconds per device."""
    for key, rows in given.rows_of.items():
        name = given.name_of(key)
        yield Job(name, partial(_of_group, given, key, rows, "student_images"), NO_CURVES)
        clocks = given.runs_of[key].loc[~given.runs_of[key]["bound"]].groupby(list(CLOCK), dropna=False, sort=True)
        for clock, _ in clocks:
            more = f"-{clock_name(clock)}" * (len(clocks) > 1)
            draw = partial(_of_group, given, key, rows, "seconds", clock)
            yield Job(f"{name}-seconds{more}", draw, f"{NO_CURVES}, or the records give no seconds")


def _of_group(
    given: FigureInput, key: Key, rows: pd.DataFrame, against: str, clock: Key | None = None
) -> Figure | None:
    points = given.curves_of(key)
    if clock is not None:
        points = points[[same == clock for same in zip(*(points[name] for name in CLOCK), strict=True)]]
    if against == "seconds":
        points = points.dropna(subset=["seconds"])
    return curves(points, given.looks, bounds_of(rows), against, title=terms_of(rows))


KIND = FigureKind("curves", "test top-1 over student images and over seconds", jobs)
