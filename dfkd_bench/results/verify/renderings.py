"""Tables and pages against the records: each is made again, and the first places where it differs are named."""

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
from dfkd_bench.results.verify.findings import Finding, note, problem, shown
from dfkd_bench.runs.settings import LATER

Provider = Callable[[Path], Mapping[str, bytes]]  # a results folder -> relative name of a rendering -> its bytes
Row = dict[str, str]
DIGITS = 1e-9  # relative: last digits may come out otherwise with another version of a library
NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][-+]?\d+)?")
MOST = 5  # differences named per file


def check(results: Path, render: Provider) -> tuple[list[str], list[Finding]]:
    """Names of the renderings that were compared, and what is wrong with them."""
    try:
        made = render(results)
    except BenchError as error:
        return [], [note(".", f"renderings were not compared, since they cannot be made: {error}")]
    compared: list[str] = []
    found: list[Finding] = []
    for name, wanted in made.items():
        path = results / name
        if path.is_file():
            compared.append(name)
            found += compare(name, path.read_bytes(), wanted)
    return compared, found


def compare(name: str, have: bytes, want: bytes) -> list[Finding]:
    """Where a file differs from what the records give."""
    if have == want:
        return []
    try:
        text, meant = have.decode(), want.decode()
    except UnicodeDecodeError:
        at = next((k for k, (a, b) in enumerate(zip(have, want, strict=False)) if a != b), min(len(have), len(want)))
        return [problem(name, f"is not what the records give, from byte {at} on")]
    found = []
    if name.endswith(".csv"):
        meant, new = without_new_columns(text, meant)
        if new:
            found.append(note(name, f"lacks columns that came later and say nothing of its rows: {', '.join(new)}"))
    if nearly(text, meant):
        digits = note(name, "has other last digits than the records give here (another version of a library)")
        return found + [digits] * (text != meant)
    says = list(csv_differences(text, meant) if name.endswith(".csv") else text_differences(text, meant))
    more = [f"and {len(says) - MOST} more differences"] if len(says) > MOST else []
    return found + [problem(name, what) for what in says[:MOST] + more]


def without_new_columns(text: str, meant: str) -> tuple[str, list[str]]:
    """The table `meant` without the columns that `text` lacks and that a version before them had no need of.

    In each row these are empty, as a metric of which no record has a number, or hold the default of a setting that
    came later.
    """
    (columns, _), (known, rows) = table_of(text), table_of(meant)
    usual = {name + side: str(value) for name, value in LATER.items() for side in ("", "_a", "_b")}
    new = [c for c in known if c not in columns and all(row[c] in ("", usual.get(c)) for row in rows)]
    if not new:
        return meant, []
    table = io.StringIO()
    writer = csv.DictWriter(table, [c for c in known if c not in new], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue(), new


def nearly(text: str, meant: str) -> bool:
    """Whether two texts are the same but for the last digits of numbers."""
    if NUMBER.sub("#", text) != NUMBER.sub("#", meant):
        return False
    pairs = zip(NUMBER.findall(text), NUMBER.findall(meant), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=DIGITS) for a, b in pairs)


def text_differences(text: str, meant: str) -> Iterator[str]:
    """The first line that differs."""
    have, want = text.split("\n"), meant.split("\n")
    for number, (a, b) in enumerate(zip(have, want, strict=False), 1):
        if a != b:
            column = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            start = max(0, column - 12)
            yield (
                f"line {number}, column {column + 1}: holds {shown(a[start:])!r}, the records give {shown(b[start:])!r}"
            )
            return
    number = min(len(have), len(want)) + 1
    yield f"ends before line {number}" if len(have) < len(want) else f"goes on after its end, in line {number}"


def csv_differences(text: str, meant: str) -> Iterator[str]:
    """Rows that are missing or too many, and cells that differ, each by the row's name and the column's."""
    (columns, have), (known, want) = table_of(text), table_of(meant)
    if columns != known:
        lost, new = [c for c in known if c not in columns], [c for c in columns if c not in known]
        yield f"has other columns: {', '.join(lost) or 'none'} missing, {', '.join(new) or 'none'} unknown"
        return
    by = keys_of(columns, have, want)
    if by is None:
        yield from text_differences(text, meant)
        return
    mine, theirs = ({tuple(row[c] for c in by): row for row in rows} for rows in (have, want))
    said = False
    for key, row in theirs.items():
        if key not in mine:
            yield f"lacks the row {label(row)}, of which there are records"
            said = True
            continue
        for column in columns:
            if mine[key][column] != row[column]:
                held, given = (shown(r[column] or "empty") for r in (mine[key], row))
                yield f"row {label(row)}: column {column} holds {held}, the records give {given}"
                said = True
    for key, row in mine.items():
        if key not in theirs:
            yield f"has the row {label(row)}, of which there is no record"
            said = True
    if not said:
        yield from text_differences(text, meant)


def table_of(text: str) -> tuple[list[str], list[Row]]:
    """Columns and rows of a CSV; rows of another length are cut or filled with nothing."""
    lines = list(csv.reader(io.StringIO(text)))
    columns = lines[0] if lines else []
    return columns, [dict(zip(columns, [*line, *[""] * len(columns)], strict=False)) for line in lines[1:]]


def keys_of(columns: Sequence[str], *tables: list[Row]) -> tuple[str, ...] | None:
    """The columns that name a row in every table; None where rows have no names of their own."""
    for by in (("hash",), lb.ROW):
        if set(by) <= set(columns) and all(
            len({tuple(r[c] for c in by) for r in rows}) == len(rows) for rows in tables
        ):
            return by
    return None


def label(row: Row) -> str:
    """What a message calls a row."""
    words = [row.get(c, "") for c in ("method", "preset", "task", "track", "budget", "seed")]
    extra = row.get("overrides", "")
    return " ".join(w for w in (*words, "" if extra == "{}" else extra) if w)


def check_documents(paths: Sequence[Path], results: Path) -> list[Finding]:
    """Blocks of documents that do not hold what the records give. Raises `UsageError` for a document without blocks."""
    for path in paths:
        check_document(path)
    if not paths:
        return []
    try:
        board = lb.leaderboard(load_results(results))
    except BenchError as error:
        return [note(str(path), f"was not compared, since the tables cannot be made: {error}") for path in paths]
    tables = tables_of(board, board)
    return [finding for path in paths for finding in _stale(path, tables)]


def _stale(path: Path, tables: Tables) -> Iterator[Finding]:
    try:
        for name in stale(path, tables):
            yield problem(str(path), f"block {name} does not hold what the records give")
    except UsageError as error:
        yield problem(str(path), f"has a block that the records cannot fill: {error}")
