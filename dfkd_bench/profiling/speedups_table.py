"""Levers of speed as a table: milliseconds per step with each off and on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from dfkd_bench.profiling.speedups import Row

NOTE = (
    "off/on: of the same round, median and range over rounds; a lever is switched off alone, all others as in a run; "
    "`these together` are all off at once; what is `on top` comes to them and to all before it"
)


def levers_table(title: str, rows: Sequence[Row], clock: str) -> Table:
    """A section for each lever, a line for each kind of step; `clock` says what the milliseconds are of."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, caption_justify="left")
    table.caption = f"ms: medians, {clock}; {NOTE}"
    for column in ("lever", "step", "ms off", "ms on", "off/on", "range"):
        table.add_column(column, justify="left" if column in ("lever", "step") else "right", no_wrap=True)
    for row in rows:
        if row.even is not None:
            table.caption += f"\n{escape(row.lever)}: {row.price:.0f} s before the first round, {paid_back(row.even)}"
    shown = ""
    for row in rows:
        if shown and row.lever != shown:
            table.add_section()
        numbers = [f"{row.off:.2f}", f"{row.on:.2f}", f"{row.ratio:.2f}", f"{row.lowest:.2f}-{row.highest:.2f}"]
        table.add_row(escape(row.lever) if row.lever != shown else "", row.step, *numbers)
        shown = row.lever
    return table


def paid_back(rounds: float) -> str:
    """`paid back after 120 rounds`."""
    return "never paid back" if math.isinf(rounds) else f"paid back after {math.ceil(max(0.0, rounds))} rounds"
