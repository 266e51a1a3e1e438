"""Learning curves of a group as SVG coordinates: test top-1 over student images, mean over seeds.

For a budget of seconds the horizontal axis is seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dfkd_bench.errors import BenchError
from dfkd_bench.protocol import seconds_of
from dfkd_bench.report.html.groups import Group, Line, path_beside_record
from dfkd_bench.report.tables.time_budget import snapshot_indices
from dfkd_bench.report.terminal.runs import short
from dfkd_bench.runs import curves, records

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 600, 330, 64, 20, 12, 44  # in units of the SVG's viewBox
COLOURS, DASHES = 8, 3  # numbers of colours and dash patterns in the style sheet
TABLE_COLUMNS = 6  # of the table with the same values
LOG_ERROR_FROM = 90.0  # percent; if a curve ends above, the axis is the logarithm of the error, 100 - top-1
MIN_ERROR = 0.05  # percent; smaller errors are drawn at this value
MARKED_ERRORS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # possible ticks of the error axis, in percent


class Points(NamedTuple):
    """A row's curve in percent at the snapshots that all its runs have."""

    at: list[float]  # student images, or seconds
    mean: list[float]
    low: list[float]  # minimum over seeds
    high: list[float]  # maximum over seeds
    seeds: int


@dataclass(frozen=True)
class ChartLine:
    """One line of the chart."""

    name: str
    style: str  # CSS classes; the style sheet has a colour for each in both themes
    path: str
    band: str  # empty for one seed
    final: str  # top-1 at the end, in percent


@dataclass(frozen=True)
class Chart:
    """The chart, and the same values as a table."""

    lines: list[ChartLine]
    y_ticks: list[tuple[float, str]]
    x_ticks: list[tuple[float, str]]
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    several: bool  # some curve is over several seeds
    log_error: bool  # the vertical axis is the logarithm of the error
    missing: list[str]  # names of rows without a curve
    timed: bool  # the horizontal axis is seconds
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM
    middle: int = (LEFT + WIDTH - RIGHT) // 2


def read(line: Line, results: Path) -> Points | None:
    """The curve of a row over its complete runs; None if one of them has no readable curve."""
    timed = seconds_of(line.row["budget"]) is not None
    seeds = [_snapshots(run, results, timed) for run in line.runs if run["status"] == "complete"]
    if not seeds or not all(seeds):
        return None
    shortest = min(map(len, seeds))
    known: list[dict[float, tuple[float, float]]] = []  # per seed: snapshot number or student images -> point
    for curve in seeds:
        shared = [curve[k] for k in snapshot_indices(len(curve), shortest)] if timed else curve
        known.append({float(number) if timed else point[0]: point for number, point in enumerate(shared)})
    common = sorted(set.intersection(*(set(curve) for curve in known)))
    if len(common) < 2:
        return None
    at, values = (np.array([[curve[key][k] for key in common] for curve in known]) for k in (0, 1))
    return Points(
        at.mean(0).tolist(), values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist(), len(known)
    )


def _snapshots(run: Mapping[str, Any], results: Path, timed: bool) -> list[tuple[float, float]]:
    """Student images (or seconds) and top-1 of each snapshot; empty if the curve cannot be read."""
    try:
        rows = curves.read(Path(path_beside_record(run, results, curves.FILE)))
        points = [(row.get("student_images"), row.get("top1")) for row in rows]
        snapshots = [(x, y) for x, y in points if x is not None and y is not None]
        if timed:
            record = records.read(Path(path_beside_record(run, results, records.FILE)))
            clock = record["measurement"]["snapshot_seconds"]
            snapshots = [(x, y) for x, (_, y) in zip(clock, snapshots, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, BenchError):
        return []
    return snapshots if np.isfinite(snapshots).all() else []


def chart(group: Group, points_of_lines: Sequence[Points | None]) -> Chart | None:
    """The chart of a group's curves; `points_of_lines` has one entry per line. None if there is no curve."""
    known = [points for points in points_of_lines if points]
    if not known:
        return None
    end = max(points.at[-1] for points in known)
    scale, y_values, log_error = _scale(known)

    def at(place: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * place / end
        return f"{x:.0f},{scale(value):.1f}"

    lines, rows, styles = [], [], {True: 0, False: 0}
    columns = [end * (k + 1) / TABLE_COLUMNS for k in range(TABLE_COLUMNS)]
    for line, points in zip(group.lines, points_of_lines, strict=True):
        bound = bool(line.row["bound"])
        number = styles[bound]
        styles[bound] += 1  # also for a row without a curve, so that colours do not change when it gets one
        if points is None:
            continue
        upper, lower = (list(zip(points.at, v, strict=True)) for v in (points.high, points.low))
        lines.append(
            ChartLine(
                name=line.name,
                style=f"bound d{number % DASHES}" if bound else f"c{number % COLOURS} d{number // COLOURS % DASHES}",
                path=" ".join(at(x, y) for x, y in zip(points.at, points.mean, strict=True)),
                band="" if points.seeds < 2 else " ".join(at(x, y) for x, y in upper + lower[::-1]),
                final=f"{points.mean[-1]:.2f}",
            )
        )
        rows.append((line.name, [_value(points, x) for x in columns]))
    ticks = [(scale(value), f"{value:g} %") for value in y_values]
    timed = seconds_of(group.lines[0].row["budget"]) is not None
    tick_text: Callable[[float], str] = "{:.3g}".format if timed else short
    feet = [(LEFT + (WIDTH - LEFT - RIGHT) * k / 4, tick_text(end * k / 4)) for k in range(5)]
    missing = [line.name for line, points in zip(group.lines, points_of_lines, strict=True) if points is None]
    several = any(points.seeds > 1 for points in known)
    return Chart(lines, ticks, feet, [tick_text(x) for x in columns], rows, several, log_error, missing, timed)


def _scale(known: Sequence[Points]) -> tuple[Callable[[float], float], list[float], bool]:
    """The function from percent to a y coordinate, the ticks in percent, and True for the logarithm of the error."""
    values = [value for points in known for value in (*points.low, *points.high)]
    span, low = HEIGHT - TOP - BOTTOM, min(values)
    if max(points.mean[-1] for points in known) < LOG_ERROR_FROM:
        low = 10.0 * (low // 10)
        high = min(100.0, 10.0 * (max(values) // 10 + 1))
        step = 20 if high - low > 60 else 10
        return lambda v: round(TOP + span * (high - v) / (high - low), 1), list(np.arange(low, high + 1, step)), False
    errors = [100 - value for value in values]
    most, least = (
        max(errors),
        max(MIN_ERROR, min(error for error in errors if error > 0) if max(errors) > 0 else MIN_ERROR),
    )
    most = max(most, 2 * least)

    def place(value: float) -> float:
        return round(TOP + span * math.log(max(100 - value, least) / least) / math.log(most / least), 1)

    return place, [100 - error for error in MARKED_ERRORS if least <= error <= most], True


def _value(points: Points, place: float) -> str:
    """The mean at the last snapshot at or before `place`."""
    seen = [mean for x, mean in zip(points.at, points.mean, strict=True) if x <= place * (1 + 1e-9)]
    return f"{seen[-1]:.2f}" if seen else ""
