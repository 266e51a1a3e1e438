"""Markdown tables; text from records and plug-ins is escaped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

MARKS = "\\|*_<>[]#"


def plain(text: str) -> str:
    """`text` escaped for Markdown, on one line."""
    for mark in MARKS:
        text = text.replace(mark, f"\\{mark}")
    return ", ".join(text.split("\n"))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str]) -> list[str]:
    """The lines of a table; columns whose header is not in `left` are aligned right."""
    lines = [_line(map(plain, headers)), _line(":--" if h in left else "--:" for h in headers)]
    return lines + [_line(map(plain, row)) for row in rows]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
