"""Published numbers beside ours, with the gap: rows of the recipe track alone, and like with like.

A pinned row has other terms than any paper and is never compared. What a source calls its result decides which of our
numbers stands beside it: the best epoch on the test set beside our `oracle`, a mean over epochs beside
`snapshot_mean`, everything else beside `last`.
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

BESIDE = {"best-on-test": "oracle", "mean-over-epochs": "snapshot_mean"}  # selection of a source -> our number
APART = 0.3  # percentage points between two teachers from which on their students are not alike
TERMS = ("protocol", "task", *settings.TERMS)
COLUMNS: tuple[Column, ...] = (
    *(Column(name, f"{name} of our row") for name in TERMS),
    Column("method", "the method's name, ours and theirs"),
    Column("preset", "our preset, and what else tells the row from its neighbours"),
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
    Column("source", "where it stands"),
    Column("flags", "what is in the way of the comparison, semicolons between"),
)
NAMES = tuple(c.name for c in COLUMNS)
HEADERS = ("task", "method", "budget", "n", "ours ± 95 %", "published", "gap", "selection", "kind", "source", "flags")
LEFT = ("task", "method", "budget", "selection", "kind", "source", "flags")


def gaps(board: pd.DataFrame) -> pd.DataFrame:
    """One row for each pair of a recipe row of ours and a published number; see `COLUMNS`. `board`: `leaderboard`."""
    theirs = published()
    theirs = theirs[theirs["top1"].notna() & ~theirs["note"].str.startswith(SUPERSEDED)]
    known = {key: part.to_dict("records") for key, part in theirs.groupby(["method", "dataset", "teacher", "student"])}
    ours = as_rows(board)
    ours = [row for row in ours if row["track"] == "recipe"]
    made = []
    for row in ours:
        data, _, pair = row["task"].rpartition("/")
        teacher, _, student = pair.partition("-")
        others = [o for o in ours if all(o[k] == row[k] for k in TERMS)]
        made += [_one(row, others, said) for said in known.get((row["method"], data, teacher, student), ())]
    return pd.DataFrame(made, columns=list(NAMES))


def _one(row: dict[str, Any], others: Sequence[dict[str, Any]], said: dict[Any, Any]) -> dict[str, Any]:
    quantity = BESIDE.get(said["selection"], "last")
    mean, half = row[f"{quantity}_mean"], row[f"{quantity}_ci95"]
    gap = mean - said["top1"]
    flags = []
    if not math.isnan(half) and abs(gap) > half:
        flags.append("published lies outside our interval")
    if math.isnan(half):
        flags.append("one run, no interval")
    apart = row["teacher_top1_mean"] - said["teacher_top1"]
    if math.isnan(apart):
        flags.append("their teacher is not known")
    elif abs(apart) > APART:
        flags.append(f"teachers differ by {apart:+.2f} points")
    if said["selection"] == "unknown":
        flags.append("their choice of epoch is not known")
    if row["budget"] != "full":
        flags.append(f"our budget is {row['budget']}, not the published one")
    return {
        **{name: row[name] for name in (*TERMS, "method")},
        "preset": ", ".join([row["preset"], *details(row, others)]),
        "n": row["n_complete"], "quantity": quantity, "ours": mean, "ci95": half, "published": said["top1"], "gap": gap,
        "teacher": row["teacher_top1_mean"], "published_teacher": said["teacher_top1"], "selection": said["selection"],
        "kind": said["kind"], "source": said["source"], "flags": "; ".join(flags),
    }  # fmt: skip


def gaps_table(found: pd.DataFrame) -> str:
    """`gaps` as Markdown, a table for each protocol, or a line that there is nothing to compare."""
    if found.empty:
        return "No run of the recipe track has a published number beside it; pinned rows are never compared with one.\n"
    parts = found.groupby("protocol", sort=True)
    return "\n".join(f"{titled(str(word))}\n\n{_table(part)}" for word, part in parts)


def _table(found: pd.DataFrame) -> str:
    rows = []
    for row in found.to_dict("records"):
        ours = f"{row['ours']:.2f}" + ("" if math.isnan(row["ci95"]) else f" ± {row['ci95']:.2f}")
        ours += f" ({row['quantity']})"
        rows.append([
            row["task"], f"{row['method']} ({row['preset']})", row["budget"], str(row["n"]), ours,
            f"{row['published']:.2f}", f"{row['gap']:+.2f}", row["selection"], row["kind"], row["source"], row["flags"],
        ])  # fmt: skip
    return "\n".join(markdown.table(HEADERS, rows, LEFT)) + "\n"
