"""Published numbers beside our rows of the recipe track, with the difference.

Rows of the pinned track have other terms than any paper and are never compared. The selection that a source reports
determines which of our numbers is compared: `oracle` for the best epoch on the test set, `snapshot_mean` for a mean
over epochs, `last` for everything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from dfkd_bench.protocol import titled
from dfkd_bench.report import markdown
from dfkd_bench.report.labels import details
from dfkd_bench.report.tables.leaderboard import Column
from dfkd_bench.report.tables.published import SUPERSEDED, published
from dfkd_bench.report.tables.runs import as_rows
from dfkd_bench.runs import settings

OUR_QUANTITY = {"best-on-test": "oracle", "mean-over-epochs": "snapshot_mean"}  # a source's selection -> our number
TEACHER_TOLERANCE = 0.3  # percentage points; if the teachers differ by more, the row is flagged
TERMS = ("protocol", "task", *settings.TERMS)
COLUMNS: tuple[Column, ...] = (
    *(Column(name, f"{name} of our row") for name in TERMS),
    Column("method", "the method's name, ours and theirs"),
    Column("preset", "our preset, and other fields in which our rows differ"),
    Column("n", "our complete runs", "runs"),
    Column("quantity", "which of our numbers is compared: oracle, snapshot_mean or last"),
    Column("ours", "mean of that number", "%"),
    Column("ci95", "half-width of its 95 % interval, Student t; empty for one run", "%"),
    Column("published", "top-1 as printed", "%"),
    Column("gap", "ours minus published", "%"),
    Column("teacher", "top-1 of our teacher", "%"),
    Column("published_teacher", "top-1 of theirs; empty if the source does not say", "%"),
    Column("selection", "which epoch the source reports"),
    Column("kind", "own, sweep-mean, independent or baseline: who printed it"),
    Column("source", "the publication"),
    Column("flags", "reasons why the comparison is limited, separated by semicolons"),
)
NAMES = tuple(c.name for c in COLUMNS)
HEADERS = ("task", "method", "budget", "n", "ours ± 95 %", "published", "gap", "selection", "kind", "source", "flags")
LEFT = ("task", "method", "budget", "selection", "kind", "source", "flags")


def gaps(board: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of a recipe row of the leaderboard `board` and a published number; see `COLUMNS`."""
    numbers = published()
    numbers = numbers[numbers["top1"].notna() & ~numbers["note"].str.startswith(SUPERSEDED)]
    known = {key: part.to_dict("records") for key, part in numbers.groupby(["method", "dataset", "teacher", "student"])}
    ours = [row for row in as_rows(board) if row["track"] == "recipe"]
    result = []
    for row in ours:
        data, _, pair = row["task"].rpartition("/")
        teacher, _, student = pair.partition("-")
        others = [o for o in ours if all(o[k] == row[k] for k in TERMS)]
        result += [_gap_row(row, others, number) for number in known.get((row["method"], data, teacher, student), ())]
    return pd.DataFrame(result, columns=list(NAMES))


def _gap_row(row: dict[str, Any], others: Sequence[dict[str, Any]], theirs: dict[Any, Any]) -> dict[str, Any]:
    quantity = OUR_QUANTITY.get(theirs["selection"], "last")
    mean, half = row[f"{quantity}_mean"], row[f"{quantity}_ci95"]
    gap = mean - theirs["top1"]
    flags = []
    if not math.isnan(half) and abs(gap) > half:
        flags.append("published lies outside our interval")
    if math.isnan(half):
        flags.append("one run, no interval")
    difference = row["teacher_top1_mean"] - theirs["teacher_top1"]
    if math.isnan(difference):
        flags.append("their teacher is not known")
    elif abs(difference) > TEACHER_TOLERANCE:
        flags.append(f"teachers differ by {difference:+.2f} points")
    if theirs["selection"] == "unknown":
        flags.append("their choice of epoch is not known")
    if row["budget"] != "full":
        flags.append(f"our budget is {row['budget']}, not the published one")
    return {
        **{name: row[name] for name in (*TERMS, "method")},
        "preset": ", ".join([row["preset"], *details(row, others)]),
        "n": row["n_complete"], "quantity": quantity, "ours": mean, "ci95": half, "published": theirs["top1"],
        "gap": gap, "teacher": row["teacher_top1_mean"], "published_teacher": theirs["teacher_top1"],
        "selection": theirs["selection"], "kind": theirs["kind"], "source": theirs["source"], "flags": "; ".join(flags),
    }  # fmt: skip


def gaps_table(table: pd.DataFrame) -> str:
    """`gaps` as Markdown, one table per protocol, or one line if there is nothing to compare."""
    if table.empty:
        return "No run of the recipe track has a published number beside it; pinned rows are never compared with one.\n"
    parts = table.groupby("protocol", sort=True)
    return "\n".join(f"{titled(str(word))}\n\n{_table(part)}" for word, part in parts)


def _table(table: pd.DataFrame) -> str:
    rows = []
    for row in table.to_dict("records"):
        ours = f"{row['ours']:.2f}" + ("" if math.isnan(row["ci95"]) else f" ± {row['ci95']:.2f}")
        ours += f" ({row['quantity']})"
        rows.append([
            row["task"], f"{row['method']} ({row['preset']})", row["budget"], str(row["n"]), ours,
            f"{row['published']:.2f}", f"{row['gap']:+.2f}", row["selection"], row["kind"], row["source"], row["flags"],
        ])  # fmt: skip
    return "\n".join(markdown.table(HEADERS, rows, LEFT)) + "\n"
