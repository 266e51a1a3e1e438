"""Tables of robustness under common corruptions: `robustness.csv` joined with the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dfkd_bench.errors import UsageError
from dfkd_bench.metrics.corruptions import CORRUPTIONS, GROUPS, SEVERITIES
from dfkd_bench.protocol import titled
from dfkd_bench.report.labels import details, rows_of_same_name
from dfkd_bench.report.markdown import plain
from dfkd_bench.report.markdown import table as md_table
from dfkd_bench.report.tables.runs import load_results
from dfkd_bench.report.terminal.sections import Layout, Section, draw
from dfkd_bench.runs import settings
from dfkd_bench.stats.intervals import mean_interval
from dfkd_bench.studies.robustness import FILE, read
from dfkd_bench.utils.text import counted

TERMS = ("protocol", "task", "teacher_sha256", "data_sha256", *settings.TERMS)
ROW = ("method", *settings.VARIANTS, "addons", "code_sha256", "settings_sha256")
HEADERS = ("method", "preset", "n", "clean", "corrupted", "kept", "agree", *GROUPS)
LEFT = ("method", "preset")
LAYOUT = Layout(LEFT, headline="corrupted", dropped_first=("agree", "kept", *reversed(GROUPS)))
EXPLAINED = (
    (
        "clean, corrupted",
        "test top-1 in %, means over n seeds; corrupted: over all corruptions and severities, 95 % interval",
    ),
    (
        "kept",
        "corrupted divided by clean; agree: corrupted images on which student and teacher predict the same class, in %",
    ),
    (", ".join(GROUPS), "corrupted, by kind of corruption"),
)


def sections(results: Path, among: pd.DataFrame | None = None) -> list[Section]:
    """One section per task and terms of the measurements below `results`, only of the runs `among` if given.

    All rows of a section use the same corruptions and severities: those that all of its runs have. Raises `UsageError`
    if there is no measurement.
    """
    runs = (load_results(results) if among is None else among).drop_duplicates("hash")
    cells = read(results)
    cells = cells[cells["hash"].isin(runs["hash"])]
    if cells.empty:
        raise UsageError(f"{results / FILE} has no row for these records: measure with `dfkd-bench robustness`")
    table = cells.merge(runs[["hash", *TERMS, *ROW[1:], "bound", "last", "teacher"]], on="hash", suffixes=("", "_run"))
    return [_section(group) for _, group in table.groupby(list(TERMS), sort=True)]


def _section(cells: pd.DataFrame) -> Section:
    each = cells.groupby(["corruption", "severity"])["hash"].nunique()
    shared = each[each == cells["hash"].nunique()].index
    cells = cells.set_index(["corruption", "severity"], drop=False)
    cells = cells[cells.index.isin(shared)]
    first = cells.iloc[0] if len(cells) else None
    if first is None:
        raise UsageError(f"no corruption is measured for every run in {FILE}: measure the same ones for all runs")
    names = cells["corruption"].nunique()
    corruptions = f"{names} of {len(CORRUPTIONS)} corruptions" if names < len(CORRUPTIONS) else f"{names} corruptions"
    levels = "severities 1 to 5" if len(shared) == names * len(SEVERITIES) else f"{counted(len(shared), 'cell')} in all"
    terms = [
        titled(first["protocol"]), f"{first['device']} {first['precision']}",
        f"teacher {first['teacher']} ({first['teacher_sha256'][:8]})", corruptions, levels,
    ]  # fmt: skip
    rows = [_row(group) for _, group in cells.groupby(list(ROW), sort=True)]
    rows.sort(key=lambda row: -row["corrupted"])
    texts = [(row["bound"], _cells(row, others)) for row, others in zip(rows, rows_of_same_name(rows), strict=True)]
    return Section(
        title=f"{first['task']}, track {first['track']}, budget {first['budget']}",
        terms=" · ".join(terms),
        headers=HEADERS,
        ranked=[text for bound, text in texts if not bound],
        bounds=[*(text for bound, text in texts if bound), _teacher(cells)],
    )


def _row(cells: pd.DataFrame) -> dict[str, Any]:
    by_run = cells.groupby("hash")
    clean, each = by_run["last"].first(), by_run["top1"].mean()
    interval = mean_interval(each.to_numpy())
    return {
        **{name: cells.iloc[0][name] for name in (*ROW, "bound")}, "n": len(each), "clean": clean.mean(),
        "corrupted": interval.mean, "half": interval.high - interval.mean, "kept": (each / clean).mean(),
        "agree": by_run["agreement"].mean().mean(), **_groups(cells, "top1"),
    }  # fmt: skip


def _groups(cells: pd.DataFrame, column: str) -> dict[str, float]:
    """Mean by kind of corruption, over all runs and cells with equal weight."""
    return {str(name): float(part[column].mean()) for name, part in cells.groupby("group")}


def _cells(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    spread = "" if pd.isna(row["half"]) else f" ± {row['half']:.2f}"
    return [
        row["method"], ", ".join([row["preset"], *details(row, others)]), str(row["n"]), f"{row['clean']:.2f}",
        f"{row['corrupted']:.2f}{spread}", f"{row['kept']:.1%}", f"{row['agree']:.2f}", *_shown(row),
    ]  # fmt: skip


def _teacher(cells: pd.DataFrame) -> list[str]:
    once = cells.drop_duplicates(["corruption", "severity"])
    return ["teacher", "", "", "", f"{once['teacher_top1'].mean():.2f}", "", "", *_shown(_groups(once, "teacher_top1"))]


def _shown(row: Mapping[str, Any]) -> Iterator[str]:
    return (f"{row[group]:.2f}" if group in row else "" for group in GROUPS)


def show(console: Console, all_sections: Sequence[Section]) -> None:
    """Print every section and the meaning of the columns."""
    draw(console, all_sections, EXPLAINED, LAYOUT)


def markdown(results: Path, version: str | None = None) -> str:
    """The same tables as Markdown, of all measurements below `results` or of one protocol."""
    text: list[str] = []
    runs = load_results(results)
    for section in sections(results, runs if version is None else runs[runs["protocol"] == version]):
        text += [plain(f"{section.title} · {section.terms}"), ""]
        text += [*md_table(HEADERS, [*section.ranked, *section.bounds], LEFT), ""]
    text += [f"- {plain(what)}: {plain(meaning)}" for what, meaning in EXPLAINED]
    return "\n".join(text) + "\n"
