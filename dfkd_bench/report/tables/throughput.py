"""Speed of methods: student images per second of whole runs, by task and device, as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dfkd_bench.protocol import titled
from dfkd_bench.report.labels import details, rows_of_same_name
from dfkd_bench.report.markdown import plain, table
from dfkd_bench.report.tables.runs import as_rows
from dfkd_bench.report.terminal.runs import short

HEADERS = ("task", "method", "preset", "threads", "n", "s a run", "synthesis", "images/s", "passes", "passes/s")
LEFT = ("task", "method", "preset")
BY = ["protocol", "device", "device_name", "precision", "budget", "track"]


def throughput(board: pd.DataFrame) -> str:
    """One table per device, precision, budget and track of the leaderboard's rows, fastest method first.

    Rows with seeds on several devices have no seconds and are left out. Seconds include synthesis, distillation and
    evaluation.
    """
    parts = []
    timed = board[board["seconds_mean"].notna() & (board["seconds_mean"] > 0)]
    for words, group in timed.groupby(BY, sort=False):
        protocol, device, name, precision, budget, track = (str(word) for word in words)
        rows = as_rows(group)
        lines = []
        for task in dict.fromkeys(row["task"] for row in rows):
            own = sorted((row for row in rows if row["task"] == task), key=rate, reverse=True)
            lines += [_cells(row, others) for row, others in zip(own, rows_of_same_name(own), strict=True)]
        heading = f"{device} {precision} · {name} · budget {budget}, track {track} · {titled(protocol)}"
        parts.append("\n".join([plain(heading), "", *table(HEADERS, lines, LEFT)]))
    if not parts:
        return "No record with seconds yet.\n"
    return "\n\n".join(parts) + "\n"


def rate(row: Mapping[str, Any]) -> float:
    """Student images per second."""
    return float(row["student_images_mean"] / row["seconds_mean"])


def _cells(row: Mapping[str, Any], others: Any) -> list[str]:
    seconds, passes = row["seconds_mean"], row["teacher_forwards_mean"] + row["teacher_backwards_mean"]
    share = row["seconds_synthesis_mean"] / seconds
    return [
        row["task"], row["method"], ", ".join([row["preset"], *details(row, others)]), str(row["threads"]),
        str(row["n_complete"]), f"{seconds:.0f}", "" if math.isnan(share) else f"{share:.0%}", f"{rate(row):,.0f}",
        short(passes), short(passes / seconds),
    ]  # fmt: skip
