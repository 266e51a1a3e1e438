"""An ablation as a table: means with intervals, and paired differences to the method's own value."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from dfkd_bench.studies.ablation import Summary


def ablation_table(found: Sequence[Summary], title: str) -> Table:
    """A row per value. A difference is bold where its interval leaves out zero."""
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", pad_edge=False)
    for header in ("setting", "value", "n", "last ± 95 %", "to own ± 95 %", "labels"):
        table.add_column(header, justify="left" if header in ("setting", "value") else "right", overflow="fold")
    name = ""
    for s in found:
        if name and s.setting != name:
            table.add_section()
        value = escape(s.value) + (" [dim](own)[/]" if s.own else "")
        lost = f" ({s.lost} lost)" if s.lost else ""
        sure = not math.isnan(s.difference_half) and abs(s.difference) > s.difference_half
        apart = "" if s.own else number(s.difference, s.difference_half, "+")
        table.add_row(
            escape(s.setting) if s.setting != name else "", value, f"{s.n}{lost}", number(s.mean, s.half),
            f"[bold]{apart}[/]" if sure else apart, "" if math.isnan(s.labels) else f"{s.labels:.1f}",
        )  # fmt: skip
        name = s.setting
    pairs = sorted({s.pairs for s in found if not s.own})
    number_of = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}" if pairs else "no"
    seeds = f"{number_of} seed{'s' * (pairs != [1])}"
    table.caption = (
        "last: test top-1 in % of the last checkpoint; to own: mean difference to the method's own value over the "
        f"{seeds} that both have; intervals by Student t, bold where they leave out 0 (one by one, uncorrected); "
        "labels: label agreement, synthetic images that the teacher takes for the class they were made as, in %"
    )
    table.caption_justify = "left"
    return table


def number(mean: float, half: float, sign: str = "") -> str:
    """`97.50 ± 0.31`; without an interval where there is none, empty where there is no number."""
    if math.isnan(mean):
        return ""
    return f"{mean:{sign}.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}")
