"""Tables of comparable rows on the terminal: as many columns as fit, bounds below the ranked rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

MAX_ROWS = 100  # ranked rows of a group on the terminal


@dataclass(frozen=True)
class Section:
    """Comparable rows as text; a cell may have several lines."""

    title: str
    terms: str
    headers: tuple[str, ...]
    ranked: list[list[str]]
    bounds: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Layout of the columns of a section."""

    left: Collection[str]  # columns with text, aligned left
    headline: str  # the primary number, in bold
    dropped_first: Sequence[str]  # columns left out on a narrow terminal, in this order


def draw(
    console: Console, sections: Sequence[Section], explanations: Sequence[tuple[str, str]], layout: Layout
) -> None:  # fmt: skip
    """Print every section, and then the meaning of the columns and marks."""
    hidden: dict[str, None] = {}
    for section in sections:
        kept, gap = _fit(section, console.width, layout)
        hidden |= dict.fromkeys(header for header in section.headers if header not in kept)
        console.print(f"\n[bold]{escape(section.title)}[/]", highlight=False)
        console.print(escape(section.terms), style="dim", highlight=False)
        console.print(_table(section, kept, gap, layout))
        if len(section.ranked) > MAX_ROWS:
            left = len(section.ranked) - MAX_ROWS
            console.print(f"[yellow]and {left} more rows[/] (the CSV and the page have them)", highlight=False)
        for note in section.notes:
            console.print(f"[yellow]{escape(note)}[/]", highlight=False)
    for what, meaning in explanations:
        console.print(f"[bold]{escape(what)}[/]: {escape(meaning)}", style="dim", highlight=False)
    if hidden:
        missing = ", ".join(hidden)
        console.print(f"[yellow]too narrow for: {missing}[/] (a wider terminal or the CSV has them)", highlight=False)


def _fit(section: Section, width: int, layout: Layout) -> tuple[list[str], int]:
    """The headers that fit into `width`, and the gap between columns."""
    rows = [*section.ranked, *section.bounds]
    widest = {
        header: max(cell_len(line) for cell in (header, *(row[k] for row in rows)) for line in cell.split("\n"))
        for k, header in enumerate(section.headers)
    }
    kept = list(section.headers)
    for drop in (None, *layout.dropped_first):
        if drop and drop in kept:
            kept.remove(drop)
        for gap in (2, 1):
            if sum(widest[h] for h in kept) + gap * (len(kept) - 1) <= width:
                return kept, gap
    return kept, 1


def _table(section: Section, kept: Sequence[str], gap: int, layout: Layout) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for header in kept:
        table.add_column(
            header,
            justify="left" if header in layout.left else "right",
            style="bold green" if header == layout.headline else None,
            overflow="fold",
        )
    places = [section.headers.index(header) for header in kept]
    for rows in (section.ranked[:MAX_ROWS], section.bounds):
        for row in rows:
            table.add_row(*(escape(row[k]) for k in places), style="dim" if rows is section.bounds else None)
        table.add_section()
    return table
