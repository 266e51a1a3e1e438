"""The columns of `runs.csv` as a Markdown table: meaning, unit, and keys in the record."""

from __future__ import annotations

from dfkd_bench.report import markdown
from dfkd_bench.report.tables.runs import COLUMNS

HEADERS = ("column", "meaning", "unit", "in the record")


def columns_table() -> str:
    """One row per column, in the order of `runs.csv`; `computed` if the record does not contain the value."""
    rows = [[c.name, c.meaning, c.unit, " > ".join(c.at) or "computed"] for c in COLUMNS]
    return "\n".join(markdown.table(HEADERS, rows, HEADERS)) + "\n"
