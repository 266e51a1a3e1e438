"""Comparison of tables and pages with the records: each is made again, and the first differences are listed."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dfkd_bench.errors import BenchError, UsageError
from dfkd_bench.report.docs import Tables, check_document, stale, tables_of
from dfkd_bench.report.tables import leaderboard as lb
from dfkd_bench.report.tables.runs import load_results
from dfkd_bench.results.verify.findings import Finding, as_text, note, problem
from dfkd_bench.runs.settings import LATER_DEFAULTS

Provider = Callable[[Path], Mapping[str, bytes]]  # a results folder -> relative name of a rendering -> its bytes
Row = dict[str, str]
DIGITS = 1e-9  # relative: last digits may differ with another version of a library
NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][-+]?\d+)?")
MOST = 5  # differences listed per file


def check(results: Path, render: Provider) -> tuple[list[str], list[Finding]]:
    """Names of the compared renderings, and findings about them."""
    try:
        made = render(results)
    except BenchError as error:
        return [], [note(".", f"renderings were not compared, because they cannot be made: {error}")]
    compared: list[str] = []
    findings: list[Finding] = []
    for name, expected in made.items():
        path = results / name
        if path.is_file():
            compared.append(name)
            findings += compare(name, path.read_bytes(), expected)
    return compared, findings


def compare(name: str, stored: bytes, made: bytes) -> list[Finding]:
    """Differences of a stored file from the one made from the records."""
    if stored == made:
        return []
    try:
        text, expected = stored.decode(), made.decode()
    except UnicodeDecodeError:
        pairs = enumerate(zip(stored, made, strict=False))
        at = next((k for k, (a, b) in pairs if a != b), min(len(stored), len(made)))
        return [problem(name, f"is not what the records give, from byte {at} on")]
    found = []
    if name.endswith(".csv"):
        expected, new = without_new_columns(text, expected)
        if new:
            found.append(note(name, f"lacks columns that came later and say nothing of its rows: {', '.join(new)}"))
    if equal_but_for_rounding(text, expected):
        what = "differs in last digits from what the records give here (another version of a library)"
        return found + [note(name, what)] * (text != expected)
    differences = list(csv_differences(text, expected) if name.endswith(".csv") else text_differences(text, expected))
    more = [f"and {len(differences) - MOST} more differences"] if len(differences) > MOST else []
    return found + [problem(name, what) for what in differences[:MOST] + more]


def without_new_columns(text: str, expected: str) -> tuple[str, list[str]]:
    """`expected` without the columns that `text` lacks and that an earlier version did not need, and their names.

    In every row such a column is empty (a metric that no record has) or holds the default of a setting added later.
    """
    (columns, _), (known, rows) = table_of(text), table_of(expected)
    defaults = {name + side: str(value) for name, value in LATER_DEFAULTS.items() for side in ("", "_a", "_b")}
    new = [c for c in known if c not in columns and all(row[c] in ("", defaults.get(c)) for row in rows)]
    if not new:
        return expected, []
    table = io.StringIO()
    writer = csv.DictWriter(table, [c for c in known if c not in new], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue(), new


def equal_but_for_rounding(text: str, expected: str) -> bool:
    """True if two texts differ only in the last digits of numbers."""
    if NUMBER.sub("#", text) != NUMBER.sub("#", expected):
        return False
    pairs = zip(NUMBER.findall(text), NUMBER.findall(expected), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=DIGITS) for a, b in pairs)


def text_differences(text: str, expected: str) -> Iterator[str]:
    """The first line that differs."""
    have, want = text.split("\n"), expected.split("\n")
    for number, (a, b) in enumerate(zip(have, want, strict=False), 1):
        if a != b:
            column = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            start = max(0, column - 12)
            held, given = (as_text(line[start:]) for line in (a, b))
            yield f"line {number}, column {column + 1}: holds {held!r}, the records give {given!r}"
            return
    number = min(len(have), len(want)) + 1
    yield f"ends before line {number}" if len(have) < len(want) else f"has additional text from line {number} on"


def csv_differences(text: str, expected: str) -> Iterator[str]:
    """Missing and additional rows, and cells that differ, with the names of row and column."""
    (columns, have), (known, want) = table_of(text), table_of(expected)
    if columns != known:
        lost, new = [c for c in known if c not in columns], [c for c in columns if c not in known]
        yield f"has other columns: {', '.join(lost) or 'none'} missing, {', '.join(new) or 'none'} unknown"
        return
    by = keys_of(columns, have, want)
    if by is None:
        yield from text_differences(text, expected)
        return
    stored, made = ({tuple(row[c] for c in by): row for row in rows} for rows in (have, want))
    reported = False
    for key, row in made.items():
        if key not in stored:
            yield f"has no row {label(row)}, and there are records of it"
            reported = True
            continue
        for column in columns:
            if stored[key][column] != row[column]:
                held, given = (as_text(r[column] or "empty") for r in (stored[key], row))
                yield f"row {label(row)}: column {column} holds {held}, the records give {given}"
                reported = True
    for key, row in stored.items():
        if key not in made:
            yield f"has a row {label(row)}, and there is no record of it"
            reported = True
    if not reported:
        yield from text_differences(text, expected)


def table_of(text: str) -> tuple[list[str], list[Row]]:
    """Columns and rows of a CSV; rows of another length are cut or filled with empty cells."""
    lines = list(csv.reader(io.StringIO(text)))
    columns = lines[0] if lines else []
    return columns, [dict(zip(columns, [*line, *[""] * len(columns)], strict=False)) for line in lines[1:]]


def keys_of(columns: Sequence[str], *tables: list[Row]) -> tuple[str, ...] | None:
    """Columns that identify a row in every table; None if there are none."""
    for by in (("hash",), lb.ROW):
        if set(by) <= set(columns) and all(
            len({tuple(r[c] for c in by) for r in rows}) == len(rows) for rows in tables
        ):
            return by
    return None


def label(row: Row) -> str:
    """The name of a row in messages."""
    words = [row.get(c, "") for c in ("method", "preset", "task", "track", "budget", "seed")]
    extra = row.get("overrides", "")
    return " ".join(w for w in (*words, "" if extra == "{}" else extra) if w)


def check_documents(paths: Sequence[Path], results: Path) -> list[Finding]:
    """Blocks of documents that differ from the records. Raises `UsageError` for a document without blocks."""
    for path in paths:
        check_document(path)
    if not paths:
        return []
    try:
        board = lb.leaderboard(load_results(results))
    except BenchError as error:
        return [note(str(path), f"was not compared, because the tables cannot be made: {error}") for path in paths]
    tables = tables_of(board, board)
    return [finding for path in paths for finding in _stale(path, tables)]


def _stale(path: Path, tables: Tables) -> Iterator[Finding]:
    try:
        for name in stale(path, tables):
            yield problem(str(path), f"block {name} differs from what the records give")
    except UsageError as error:
        yield problem(str(path), f"has a block that cannot be filled from the records: {error}")
