"""The leaderboard as compact tables, on the terminal or in Markdown: one per group of comparable rows.

Both show the same cells. Bounds are always below the ranked rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from dfkd_bench.protocol import seconds_of, titled
from dfkd_bench.report.labels import details, rows_of_same_name
from dfkd_bench.report.markdown import plain
from dfkd_bench.report.markdown import table as md_table
from dfkd_bench.report.privileges import legend, marks
from dfkd_bench.report.tables.leaderboard import GROUP
from dfkd_bench.report.tables.runs import as_rows
from dfkd_bench.report.tables.time_budget import notes, spent
from dfkd_bench.report.terminal.runs import short
from dfkd_bench.report.terminal.sections import Layout, Section, draw

LEFT = ("method", "preset", "uses")
HEADERS = (
    "#", "method", "preset", "n", "last ± 95 %", "oracle", "mean", "agree", "cover", "labels", "seconds", "passes",
    "uses",
)  # fmt: skip
TIMED = (  # for budgets of seconds
    "#", "method", "preset", "n", "last ± 95 %", "spent", "off", "made", "seen", "steps", "oracle", "mean", "agree",
    "cover", "labels", "passes", "uses",
)  # fmt: skip
LAYOUT = Layout(
    LEFT, headline="last ± 95 %", dropped_first=("cover", "passes", "labels", "agree", "mean", "oracle", "steps")
)
ALARM = "!"
EXPLAINED = (
    (
        "last",
        "test top-1 in % of the last checkpoint, the primary number; mean over n seeds, 95 % interval by Student t",
    ),
    (
        "oracle, mean",
        "best and mean test top-1 over a run's snapshots; agree: test images on which student and teacher predict the "
        "same class, in %",
    ),
    (
        "cover",
        "classes that the teacher predicts for at least one synthetic image, in %; passes: images forward and backward "
        "through the teacher",
    ),
    (
        "labels",
        "label agreement, synthetic images for which the teacher predicts their label, in %; empty for methods without "
        "labels",
    ),
    ("–", "a bound, never ranked"),
)
EXPLAINED_TIMED = (
    (
        "spent, off",
        "seconds of synthesis and distillation, and the largest deviation of a run from the budget; the number of "
        "rounds was fixed before each run from the measured time per round",
    ),
    ("made, seen, steps", "images synthesised, images the student was trained on (repeats counted), its updates"),
)


def sections(board: pd.DataFrame) -> list[Section]:
    """One section per group of the leaderboard, in its order."""
    result = []
    for _, group in board.groupby(list(GROUP), sort=False):
        rows = as_rows(group)
        headers = HEADERS if seconds_of(rows[0]["budget"]) is None else TIMED
        cells = [[made[header] for header in headers] for made in map(_cells, rows, rows_of_same_name(rows))]
        bound = [bool(row["bound"]) for row in rows]
        result.append(
            Section(
                title=f"{rows[0]['task']}, track {rows[0]['track']}, budget {rows[0]['budget']}",
                terms=_terms(rows),
                headers=headers,
                ranked=[c for c, b in zip(cells, bound, strict=True) if not b],
                bounds=[c for c, b in zip(cells, bound, strict=True) if b],
                notes=notes(rows),
            )
        )
    return result


def explanations(board: pd.DataFrame) -> list[tuple[str, str]]:
    """(name, meaning) of the columns and marks of these rows."""
    uses = ", ".join(f"{mark} {word}" for mark, word in legend(board["privileges"]))
    timed = board["budget"].map(seconds_of).notna().any()
    result = [*EXPLAINED, *(EXPLAINED_TIMED if timed else ()), ("uses", uses)]
    if board["n_alarmed"].sum():
        result.append((ALARM, "a run shows a sign of collapse; see the column alarms of runs.csv"))
    if board["n_diverged"].sum() or board["n_failed"].sum():
        result.append(("diverged, failed", "number of such runs; they are in no mean"))
    return result


def _terms(rows: Sequence[dict[str, Any]]) -> str:
    first = rows[0]
    tops = [row["teacher_top1_mean"] for row in rows if not math.isnan(row["teacher_top1_mean"])]
    teacher = f"teacher {first['teacher']} ({first['teacher_sha256'][:8]})" + (f" {tops[0]:.2f} %" if tops else "")
    devices = sorted({row["device_name"] for row in rows if row["device_name"]})
    parts = [titled(first["protocol"]), f"{first['device']} {first['precision']}", teacher, ", ".join(devices)]
    return " · ".join(part for part in parts if part)


def _cells(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Every cell of a row, by header."""
    mean, half = row["last_mean"], row["last_ci95"]
    last = _number(mean) if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"
    passes = row["teacher_forwards_mean"] + row["teacher_backwards_mean"]
    lost = [f"{row[f'n_{s}']} {s}" for s in ("diverged", "failed") if row[f"n_{s}"]]
    return {
        "#": "–" if row["bound"] else "" if pd.isna(row["rank"]) else str(row["rank"]),
        "method": row["method"] + f" {ALARM}" * bool(row["n_alarmed"]),
        "preset": "\n".join([row["preset"], *details(row, others)]),
        "n": "\n".join([str(row["n_complete"]), *lost]),
        "last ± 95 %": last,
        "oracle": _number(row["oracle_mean"]),
        "mean": _number(row["snapshot_mean_mean"]),
        "agree": _number(row["agreement_mean"]),
        "cover": "" if math.isnan(row["coverage_mean"]) else f"{row['coverage_mean']:.0%}",
        "labels": _number(row["label_consistency_mean"], 1),
        "seconds": _seconds(row["seconds_mean"]),
        "passes": _count(passes),
        "uses": marks(row["privileges"]),
        "spent": _seconds(spent(row)),
        "off": "" if math.isnan(row["seconds_off"]) else f"{row['seconds_off']:+.1f} %",
        "made": _count(row["images_synthesised_mean"]),
        "seen": _count(row["student_images_mean"]),
        "steps": _count(row["student_steps_mean"]),
    }


def _number(value: float, digits: int = 2) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _seconds(value: float) -> str:
    return _number(value, 1 if value < 100 else 0)


def _count(value: float) -> str:
    return "" if math.isnan(value) else short(value)


# -- terminal ---------------------------------------------------------------------------------------------------------


def show(console: Console, board: pd.DataFrame) -> None:
    """Print every section, and then the meaning of the columns and marks."""
    draw(console, sections(board), explanations(board), LAYOUT)


# -- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(board: pd.DataFrame) -> str:
    """The same tables as Markdown, each with a heading of level 3."""
    text = []
    for section in sections(board):
        text += [f"### {plain(section.title)}", "", plain(section.terms), ""]
        text += [*md_table(section.headers, [*section.ranked, *section.bounds], LEFT), ""]
        text += [line for note in section.notes for line in (plain(note), "")]
    text += [f"- {plain(what)}: {plain(meaning)}" for what, meaning in explanations(board)]
    return "\n".join(text) + "\n"


def of_method(board: pd.DataFrame, name: str) -> str:
    """The rows of one method in all groups of the leaderboard: a Markdown table per protocol, or a line if none."""
    rows: dict[str, list[list[str]]] = {}
    for _, group in board.groupby(list(GROUP), sort=False):
        group_rows = as_rows(group)
        for row in group_rows:
            if row["method"] == name:
                cells = _cells(row, group_rows)
                where = (row["task"], row["track"], row["budget"], f"{row['device']} {row['precision']}")
                rows.setdefault(row["protocol"], []).append([*where, *(cells[h] for h in HEADERS[2:-1])])
    where = ("task", "track", "budget", "on")
    parts = [
        "\n".join([plain(titled(version)), "", *md_table((*where, *HEADERS[2:-1]), lines, (*where, "preset")), ""])
        for version, lines in rows.items()
    ]
    return "\n".join(parts) or "No record of ours yet.\n"
