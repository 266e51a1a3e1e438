"""What a GPU does in a step, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from dfkd_bench.profiling.gpu_trace import Kernels

NOTE = (
    "ms: from the first kernel to the last, medians, under the profiler; idle: of which nothing ran on the device; "
    "waits: calls by which the host waited inside a round, in all rounds"
)


def kernels_table(title: str, rows: Sequence[Kernels]) -> RenderableType:
    """A line for each kind of step, and beneath it the kernels that take most."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("step", "kernels", "copies", "graphs", "ms", "idle ms", "idle", "waits"):
        table.add_column(column, justify="left" if column == "step" else "right", no_wrap=column == "step")
    longest = Table(box=box.SIMPLE_HEAD)
    for column in ("step", "ms", "calls", "kernel"):
        left = column in ("step", "kernel")
        longest.add_column(column, justify="left" if left else "right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(
            row.step, f"{row.kernels:.1f}", f"{row.copies:.1f}", f"{row.graphs:.1f}", f"{row.span_ms:.3f}",
            f"{row.idle_ms:.3f}", f"{row.idle:.0%}", str(sum(row.waits.values())),
        )  # fmt: skip
        for name, ms, calls in row.longest:
            longest.add_row(row.step, f"{ms:.3f}", f"{calls:.1f}", escape(name))
        longest.add_section()
    waits = [f"{row.step}: {name} {n}" for row in rows for name, n in sorted(row.waits.items())]
    found: list[RenderableType] = [table, Text(NOTE, style="italic")]
    if waits:
        found.append(Text("the host waited in " + ", ".join(waits)))
    return Group(*found, longest)
