"""Table of an ablation: means with intervals, and paired differences to the method's own value."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from dfkd_bench.studies.ablation import Summary


def ablation_table(results: Sequence[Summary], title: str) -> Table:
    """One row per value. A difference is bold if its interval excludes zero."""
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", pad_edge=False)
    for header in ("setting", "value", "n", "last ± 95 %", "to own ± 95 %", "labels"):
        table.add_column(header, justify="left" if header in ("setting", "value") else "right", overflow="fold")
    name = ""
    for s in results:
        if name and s.setting != name:
            table.add_section()
        value = escape(s.value) + (" [dim](own)[/]" if s.own else "")
        lost = f" ({s.lost} lost)" if s.lost else ""
        excludes_zero = not math.isnan(s.difference_half) and abs(s.difference) > s.difference_half
        difference = "" if s.own else number(s.difference, s.difference_half, "+")
        table.add_row(
            escape(s.setting) if s.setting != name else "", value, f"{s.n}{lost}", number(s.mean, s.half),
            f"[bold]{difference}[/]" if excludes_zero else difference,
            "" if math.isnan(s.labels) else f"{s.labels:.1f}",
        )  # fmt: skip
        name = s.setting
    pairs = sorted({s.pairs for s in results if not s.own})
    n_pairs = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}" if pairs else "no"
    seeds = f"{n_pairs} seed{'s' * (pairs != [1])}"
    table.caption = (
        "last: test top-1 in % of the last checkpoint; to own: mean difference to the method's own value over the "
        f"{seeds} that both have; intervals by Student t, bold if they exclude 0 (not corrected for multiple tests); "
        "labels: label agreement, synthetic images for which the teacher predicts their label, in %"
    )
    table.caption_justify = "left"
    return table


def number(mean: float, half: float, sign: str = "") -> str:
    """`97.50 ± 0.31`; `97.50` if `half` is NaN, empty if `mean` is NaN."""
    if math.isnan(mean):
        return ""
    return f"{mean:{sign}.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}")
