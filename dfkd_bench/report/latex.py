r"""The leaderboard as LaTeX tables for a paper; the packages that they need are named in their first line.

One table per group of comparable rows. If one set of terms covers several tasks, an overview (methods by tasks) comes
first. Bounds stand below a rule and are neither ranked nor bold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dfkd_bench.protocol import seconds_of, titled
from dfkd_bench.report.labels import details, rows_of_same_name
from dfkd_bench.report.privileges import legend, marks
from dfkd_bench.report.tables.leaderboard import GROUP
from dfkd_bench.report.tables.runs import as_rows
from dfkd_bench.report.tables.time_budget import notes, spent
from dfkd_bench.report.terminal.runs import short
from dfkd_bench.runs import settings

TERMS = ("protocol", *settings.TERMS)  # equal in all rows of an overview
SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}", "-": r"{-}",
    "[": "{[}", "]": "{]}", "*": "{*}", **{c: rf"\{c}" for c in "&%$#_{}"},
}  # fmt: skip
PRINTABLE = "–—‘’“”…€™"  # characters beyond Latin that pdfLaTeX can print
HEADERS = ("Method", "$n$", "Last", "Oracle", "Agreement", "Labels", "Seconds", "Passes")
TIMED = (  # for budgets of seconds
    "Method", "$n$", "Last", "Spent", "Off", "Made", "Seen", "Steps", "Labels", "Passes",
)  # fmt: skip
MISSING = "--"
Row = Mapping[str, Any]


def tex(text: str) -> str:
    r"""`text` escaped for LaTeX, on one line. Characters for which pdfLaTeX has no glyph become `[U+1F600]`."""
    line = re.sub(r"\s+", " ", text)
    shown = (c if c.isprintable() and (ord(c) < 0x180 or c in PRINTABLE) else f"[U+{ord(c):04X}]" for c in line)
    return "".join(SPECIAL.get(c, c) for c in "".join(shown))


def latex(board: pd.DataFrame) -> str:
    """All LaTeX tables of `board`, which is `leaderboard(runs)` or some of its rows."""
    parts = [r"% Written by dfkd-bench leaderboard; needs \usepackage{booktabs,textcomp} and \usepackage[T1]{fontenc}."]
    for _, terms in board.groupby(list(TERMS), sort=False):
        groups = [as_rows(group) for _, group in terms.groupby(list(GROUP), sort=False)]
        if len(groups) > 1:
            parts.append(_overview(groups))
        parts += [_detailed(group) for group in groups]
    return "\n\n".join(parts) + "\n"


def best(rows: Sequence[Row]) -> set[int]:
    """Indices of the ranked rows to print bold: the highest mean, and means within its 95 % interval."""
    ranked = {
        k: row["last_mean"] for k, row in enumerate(rows) if not row["bound"] and not math.isnan(row["last_mean"])
    }
    if not ranked:
        return set()
    top = max(ranked, key=lambda k: ranked[k])
    half = rows[top]["last_ci95"]
    floor = ranked[top] - (0.0 if math.isnan(half) else half)
    return {k for k, mean in ranked.items() if mean >= floor - 1e-9}


def _detailed(rows: Sequence[Row]) -> str:
    bold = best(rows)
    others = rows_of_same_name(rows)
    timed = seconds_of(rows[0]["budget"]) is not None
    headers = TIMED if timed else HEADERS
    cells_of_rows = [_row_cells(row, others[k], k in bold) for k, row in enumerate(rows)]
    lines = [[cells[header] for header in headers] for cells in cells_of_rows]
    ranked = [line for line, row in zip(lines, rows, strict=True) if not row["bound"]]
    bounds = [line for line, row in zip(lines, rows, strict=True) if row["bound"]]
    first = rows[0]
    note = _time_budget_note(rows) if timed else "Oracle: best checkpoint on the test set."
    caption = (
        f"{tex(first['task'])}, track {tex(first['track'])}, budget {tex(first['budget'])} "
        f"({tex(titled(first['protocol']))}, {tex(first['device'])} {tex(first['precision'])}). Top-1 in \\% of the "
        f"last checkpoint, mean over $n$ seeds with 95\\,\\% interval (Student~$t$); bold: the best mean and means "
        f"within its interval. {note} Labels: label agreement, synthetic images for which the teacher predicts their "
        f"label, in \\%. Passes: images forward and backward through the teacher. Below the rule: "
        f"bounds.{_privilege_legend(rows)}"
    )
    return _table("l" + "r" * (len(headers) - 1), headers, ranked, bounds, caption)


def _time_budget_note(rows: Sequence[Row]) -> str:
    """Explains the columns of a budget of seconds, with warnings."""
    columns = (
        "Spent: seconds of synthesis and distillation; Off: the largest deviation of a run from the budget; the number "
        "of rounds was fixed before each run. Made: images synthesised; Seen, Steps: images and updates of the student."
    )
    return " ".join([columns, *map(tex, notes(rows))])


def _row_cells(row: Row, others: Sequence[Row], bold: bool) -> dict[str, str]:
    """Every cell of a row, by header."""
    passes = row["teacher_forwards_mean"] + row["teacher_backwards_mean"]
    lost = [f"{row[f'n_{s}']} {s}" for s in ("diverged", "failed") if row[f"n_{s}"]]
    return {
        "Method": _name(row, others),
        "$n$": "/".join([str(row["n_complete"]), *lost]),
        "Last": _accuracy(row, bold),
        "Oracle": _number(row["oracle_mean"], 2),
        "Agreement": _number(row["agreement_mean"], 2),
        "Labels": _number(row["label_consistency_mean"], 1),
        "Seconds": _number(row["seconds_mean"], 0),
        "Passes": _count(passes),
        "Spent": _number(spent(row), 1),
        "Off": MISSING if math.isnan(row["seconds_off"]) else rf"${row['seconds_off']:+.1f}$\,\%",
        "Made": _count(row["images_synthesised_mean"]),
        "Seen": _count(row["student_images_mean"]),
        "Steps": _count(row["student_steps_mean"]),
    }


def _overview(groups: Sequence[Sequence[Row]]) -> str:
    """Methods by tasks; a task with several teachers or datasets has one column for each."""
    cells: dict[tuple[bool, str], dict[int, str]] = {}
    for k, rows in enumerate(groups):
        bold = best(rows)
        for place, (row, others) in enumerate(zip(rows, rows_of_same_name(rows), strict=True)):
            cells.setdefault((bool(row["bound"]), _name(row, others)), {})[k] = _accuracy(row, place in bold)
    lines = {
        bound: [
            [name, *(of_row.get(k, MISSING) for k in range(len(groups)))]
            for (b, name), of_row in cells.items()
            if b is bound
        ]
        for bound in (False, True)
    }
    first = groups[0][0]
    caption = (
        f"Track {tex(first['track'])}, budget {tex(first['budget'])}, {tex(titled(first['protocol']))}, "
        f"{tex(first['device'])} {tex(first['precision'])}: top-1 in \\% of the last checkpoint, mean over seeds with "
        f"95\\,\\% interval (Student~$t$); {MISSING}: no run. Bold: the best mean of a column and means within its "
        f"interval. Below the rule: bounds.{_privilege_legend([row for rows in groups for row in rows])}"
    )
    headers = ["Method", *(tex(rows[0]["task"]) for rows in groups)]
    return _table("l" + "r" * len(groups), headers, lines[False], lines[True], caption)


def _name(row: Row, others: Sequence[Row]) -> str:
    label = ", ".join([row["preset"], *details(row, others)])
    privileges = marks(row["privileges"])
    return f"{tex(row['method'])}$^{{\\mathrm{{{tex(privileges)}}}}}$ ({tex(label)})"


def _accuracy(row: Row, bold: bool) -> str:
    mean, half = row["last_mean"], row["last_ci95"]
    if math.isnan(mean):
        return MISSING
    text = f"{mean:.2f}" if math.isnan(half) else rf"{mean:.2f} \pm {half:.2f}"
    return rf"$\mathbf{{{text}}}$" if bold else f"${text}$"


def _number(value: float, digits: int) -> str:
    return MISSING if math.isnan(value) else f"{value:.{digits}f}"


def _count(value: float) -> str:
    return MISSING if math.isnan(value) else tex(short(value))


def _privilege_legend(rows: Sequence[Row]) -> str:
    marks = [rf"$^{{\mathrm{{{tex(mark)}}}}}$\,{tex(word)}" for mark, word in legend(row["privileges"] for row in rows)]
    return f" Uses: {', '.join(marks)}." if marks else ""


def _table(
    columns: str, headers: Sequence[str], ranked: Sequence[Sequence[str]], bounds: Sequence[Sequence[str]], caption: str
) -> str:
    def lines(rows: Sequence[Sequence[str]]) -> list[str]:
        return [f"  {' & '.join(row)} \\\\" for row in rows]

    return "\n".join([
        r"\begin{table}", r"  \centering\small", f"  \\caption{{{caption}}}", f"  \\begin{{tabular}}{{{columns}}}",
        r"  \toprule", *lines([headers]), r"  \midrule", *lines(ranked), *[r"  \midrule"] * bool(ranked and bounds),
        *lines(bounds), r"  \bottomrule", r"  \end{tabular}", r"\end{table}",
    ])  # fmt: skip
