"""Steps against their arithmetic alone, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from dfkd_bench.profiling.roofline import Floor


def floor_table(title: str, rows: Sequence[Floor], batch: int, clock: str) -> Table:
    """A line for each kind of step; `clock` says what the milliseconds are of."""
    table = Table(
        title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.caption = (
        f"ms: medians, {clock}; floor: the step's own convolutions and matrix products one by one, alone, in the same "
        "rounds; GFLOP: of an image in one step, 2 per multiply-add; GFLOP/s: of the floor; n: operations of a step"
    )
    for column in ("step", "ms", "floor ms", "step/floor", "range", "GFLOP", "GFLOP/s", "n"):
        table.add_column(column, justify="left" if column == "step" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.step, f"{row.ms:.2f}", f"{row.floor_ms:.2f}", f"{row.ratio:.2f}", f"{row.lowest:.2f}-{row.highest:.2f}",
            f"{row.flop / batch / 1e9:.4g}", f"{row.rate / 1e9:.1f}", str(row.operations),
        )  # fmt: skip
    return table
