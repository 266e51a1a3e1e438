"""An ablation as a figure: a panel per setting, a dot per seed, means with their 95 % intervals, bounds as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from textwrap import wrap
from typing import Any

from dfkd_bench.ablation import Row, Summary, summaries
from dfkd_bench.report.plotting import COLOURS, GREY, new_figure, width_of

OWN = COLOURS[1]
LETTERS = 18  # of the title's type in an inch
DASHES: tuple[Any, ...] = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
DASH_WORDS = ("dashed", "dotted", "dash-dotted")


def draw(rows: Sequence[Row], title: str, bounds: Mapping[str, Sequence[float]] | None = None) -> Any:
    """The figure. `bounds`: name -> test top-1 of its runs under the same terms, in %."""
    found = summaries(rows)
    names = list(dict.fromkeys(s.setting for s in found))
    longest = max(len(s.value) for s in found)
    figure, axes = new_figure(len(names), share_y=True, beneath=0.4 + 0.05 * max(0, longest - 7))
    lines = {name: mean(values) for name, values in (bounds or {}).items() if values}
    low, high = limits(rows, lines.values())
    inside = {name: value for name, value in lines.items() if low <= value <= high}
    for axis, name in zip(axes, names, strict=True):
        panel(axis, [s for s in found if s.setting == name], [r for r in rows if r["setting"] == name], (low, high))
        for k, value in enumerate(inside.values()):
            axis.axhline(value, color=GREY, linewidth=0.8, linestyle=DASHES[k % len(DASHES)], zorder=1)
        axis.set_ylim(low, high)
    axes[0].set_ylabel("top-1, last checkpoint, %", fontsize=7.5)
    words = [f"{DASH_WORDS[k % len(DASHES)]}: {name} {v:.1f} %" for k, (name, v) in enumerate(inside.items())]
    far = [f"off the axis: {name} {value:.1f} %" for name, value in lines.items() if name not in inside]
    across = int(width_of(len(names)) * LETTERS)
    said = [part for line in [*title.split("\n"), "; ".join(words), "; ".join(far)] for part in wrap(line, across)]
    figure.suptitle("\n".join(said), fontsize=7, color=GREY, parse_math=False)
    return figure


def limits(rows: Sequence[Row], bounds: Any) -> tuple[float, float]:
    """The axis: every run's dot with some air, and those bounds that lie near."""
    dots = [row["top1_last"] for row in rows if row["top1_last"] is not None] or [0.0, 100.0]
    low, high = min(dots), max(dots)
    air = max(0.5, 0.3 * (high - low))
    near = [value for value in bounds if low - 2 * air <= value <= high + 2 * air]
    return min([low, *near]) - air, min(max([high, *near]) + air, 100.0 + 0.1 * air)


def panel(axis: Any, found: Sequence[Summary], rows: Sequence[Row], span: tuple[float, float]) -> None:
    """One setting: values in their order, whatever the distances between them."""
    values = [s.value for s in found]
    for place, s in enumerate(found):
        colour = OWN if s.own else COLOURS[0]
        dots = [r["top1_last"] for r in rows if r["value"] == s.value and r["top1_last"] is not None]
        axis.plot([place + 0.14] * len(dots), dots, "o", color=colour, alpha=0.4, markersize=2.6, markeredgewidth=0)
        if s.own:
            axis.axvspan(place - 0.34, place + 0.34, color="0.94", zorder=0, linewidth=0)
        if s.n:
            half = 0.0 if math.isnan(s.half) else s.half
            top = min(s.mean + half, 100.0)
            axis.plot([place] * 2, [s.mean - half, top], color=colour, linewidth=1.0, zorder=3)
            axis.plot([place], [s.mean], "D" if s.own else "s", color=colour, markersize=3.8, zorder=4)
            for end, mark, edge in ((s.mean - half, "v", span[0]), (top, "^", span[1])):
                if not span[0] <= end <= span[1]:  # the interval goes on beyond the axis
                    axis.plot([place], [edge], mark, color=colour, markersize=3.5, clip_on=False, zorder=5)
    if all(is_number(value) for value in values):
        axis.plot(range(len(found)), [s.mean for s in found], color="0.6", linewidth=0.9, zorder=2)
    tilted = max(map(len, values)) >= 7
    axis.set_xticks(range(len(values)), values)
    for label in axis.get_xticklabels():
        label.set(rotation=30 if tilted else 0, ha="right" if tilted else "center", parse_math=False)
        label.set_rotation_mode("anchor")
    axis.set_xlim(-0.5, len(values) - 0.5)
    axis.set_xlabel(found[0].setting, fontsize=7.5, parse_math=False)


def is_number(text: str) -> bool:
    """Whether a value is one on a scale, so that a line between means says something."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
