"""Tables in Markdown: text from records and plugins is shown literally, on one line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

MARKS = "\\|*_<>[]#"


def plain(text: str) -> str:
    """`text` as Markdown shows it literally, on one line."""
    for mark in MARKS:
        text = text.replace(mark, f"\\{mark}")
    return ", ".join(text.split("\n"))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str]) -> list[str]:
    """The lines of a table; columns whose header is not in `left` are numbers and stand to the right."""
    lines = [_line(map(plain, headers)), _line(":--" if h in left else "--:" for h in headers)]
    return lines + [_line(map(plain, row)) for row in rows]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
