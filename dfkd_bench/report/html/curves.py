"""Learning curves of a group: test top-1 over student images, mean over seeds, as the coordinates of a drawing.

Under a budget of seconds they are over seconds: that is what all have in common there.
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

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 600, 330, 64, 20, 12, 44  # in the drawing's own units
COLOURS, DASHES = 8, 3  # that the style sheet knows
TABLE_COLUMNS = 6  # columns of the table that says the same
LOG_ERROR_FROM = (
    90.0  # where a curve ends above, differences are in the error, which is then drawn on a logarithmic scale
)
MIN_ERROR = 0.05  # percent: no error is drawn smaller
MARKED_ERRORS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # errors that may be marked


class Points(NamedTuple):
    """A row's curve at the snapshots that all its runs have; percent."""

    at: list[float]  # student images, or seconds
    mean: list[float]
    low: list[float]  # of any seed
    high: list[float]
    seeds: int


@dataclass(frozen=True)
class ChartLine:
    """One line of the drawing; its style by number, so that the style sheet colours it in both themes."""

    name: str
    style: str
    path: str
    band: str  # empty for one seed
    said: str


@dataclass(frozen=True)
class Chart:
    """The drawing, and the same numbers as a table."""

    lines: list[ChartLine]
    ticks: list[tuple[float, str]]
    feet: list[tuple[float, str]]
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    several: bool  # seeds
    crowded: bool  # whether the scale is that of the error, logarithmic
    missing: list[str]  # rows without a curve
    timed: bool  # over seconds
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM
    middle: int = (LEFT + WIDTH - RIGHT) // 2


def read(line: Line, results: Path) -> Points | None:
    """The curve of a row over its complete runs; None where one of them has none that can be read."""
    timed = seconds_of(line.row["budget"]) is not None
    found = [_snapshots(run, results, timed) for run in line.runs if run["status"] == "complete"]
    if not found or not all(found):
        return None
    least = min(map(len, found))
    known: list[dict[float, tuple[float, float]]] = []  # by what seeds have in common
    for curve in found:
        shared = [curve[k] for k in snapshot_indices(len(curve), least)] if timed else curve
        known.append({float(number) if timed else point[0]: point for number, point in enumerate(shared)})
    common = sorted(set.intersection(*(set(curve) for curve in known)))
    if len(common) < 2:
        return None
    at, values = (np.array([[curve[key][k] for key in common] for curve in known]) for k in (0, 1))
    return Points(
        at.mean(0).tolist(), values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist(), len(known)
    )


def _snapshots(run: Mapping[str, Any], results: Path, timed: bool) -> list[tuple[float, float]]:
    """Student images, or seconds, and top-1 of each snapshot; empty where there are none that can be read."""
    try:
        rows = curves.read(Path(path_beside_record(run, results, curves.FILE)))
        points = [(row.get("student_images"), row.get("top1")) for row in rows]
        found = [(x, y) for x, y in points if x is not None and y is not None]
        if timed:
            clock = records.read(Path(path_beside_record(run, results, records.FILE)))["measurement"][
                "snapshot_seconds"
            ]
            found = [(x, y) for x, (_, y) in zip(clock, found, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, BenchError):
        return []
    return found if np.isfinite(found).all() else []


def chart(group: Group, found: Sequence[Points | None]) -> Chart | None:
    """The drawing of a group's curves, one per line in its order; None without any."""
    known = [points for points in found if points]
    if not known:
        return None
    end = max(points.at[-1] for points in known)
    scale, marked, crowded = _scale(known)

    def at(place: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * place / end
        return f"{x:.0f},{scale(value):.1f}"

    lines, rows, styles = [], [], {True: 0, False: 0}
    columns = [end * (k + 1) / TABLE_COLUMNS for k in range(TABLE_COLUMNS)]
    for line, points in zip(group.lines, found, strict=True):
        bound = bool(line.row["bound"])
        number = styles[bound]
        styles[bound] += 1  # a row without a curve keeps its colour free: colours do not move when it comes
        if points is None:
            continue
        upper, lower = (list(zip(points.at, v, strict=True)) for v in (points.high, points.low))
        lines.append(
            ChartLine(
                name=line.name,
                style=f"bound d{number % DASHES}" if bound else f"c{number % COLOURS} d{number // COLOURS % DASHES}",
                path=" ".join(at(x, y) for x, y in zip(points.at, points.mean, strict=True)),
                band="" if points.seeds < 2 else " ".join(at(x, y) for x, y in upper + lower[::-1]),
                said=f"{points.mean[-1]:.2f}",
            )
        )
        rows.append((line.name, [_value(points, x) for x in columns]))
    ticks = [(scale(value), f"{value:g} %") for value in marked]
    timed = seconds_of(group.lines[0].row["budget"]) is not None
    word: Callable[[float], str] = "{:.3g}".format if timed else short
    feet = [(LEFT + (WIDTH - LEFT - RIGHT) * k / 4, word(end * k / 4)) for k in range(5)]
    missing = [line.name for line, points in zip(group.lines, found, strict=True) if points is None]
    several = any(points.seeds > 1 for points in known)
    return Chart(lines, ticks, feet, [word(x) for x in columns], rows, several, crowded, missing, timed)


def _scale(known: Sequence[Points]) -> tuple[Callable[[float], float], list[float], bool]:
    """From percent to a place on the drawing, the percentages to mark, and whether the scale is logarithmic."""
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
    """The mean at the last snapshot up to `place`."""
    seen = [mean for x, mean in zip(points.at, points.mean, strict=True) if x <= place * (1 + 1e-9)]
    return f"{seen[-1]:.2f}" if seen else ""
