"""The leaderboard inside a Markdown document, between two markers; nothing outside them is touched."""

from __future__ import annotations

from pathlib import Path

from dfkd_bench.errors import UsageError
from dfkd_bench.files import write_atomic

BEGIN = "<!-- begin:leaderboard -->"
END = "<!-- end:leaderboard -->"
DOCUMENT = "BENCHMARKS.md"


def check_document(path: Path) -> tuple[str, str]:
    """The text before and after the markers, themselves included. Raises `UsageError` where they are not one pair."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UsageError(
            f"{path} needs the lines {BEGIN} and {END}, once each and in this order: the tables go between"
        )
    head, rest = text.split(BEGIN)
    return head + BEGIN, END + rest.split(END)[1]


def write_docs(path: Path, tables: str) -> None:
    """Replace what stands between the markers of `path` by `tables`. Raises `UsageError` without markers."""
    head, tail = check_document(path)
    write_atomic(path, f"{head}\n{tables.strip()}\n{tail}".encode())
