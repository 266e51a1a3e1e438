"""Generated tables in Markdown documents, each between two markers; text outside the markers is not changed.

    <!-- begin:leaderboard protocol=1.2 budget=quick -->   means over the records; filter words are optional
    <!-- begin:throughput protocol=1.2 budget=quick -->    seconds and images per second of those rows, by device
    <!-- begin:ours NAME protocol=1.2 -->                  the rows of one method in all leaderboards
    <!-- begin:tuning PATH protocol=1.2 -->                a search for settings; PATH is relative to the document
    <!-- begin:robustness PATH protocol=1.2 -->            accuracy under corruptions; PATH is that of its CSV
    <!-- begin:published NAME -->                          published accuracies of a method
    <!-- begin:recipes NAME -->                            its recipes beside the authors' scripts
    <!-- begin:settings NAME -->                           its presets and settings, read from its source
    <!-- begin:columns -->                                 the columns of `runs.csv` and their keys in a record

Each block ends with `<!-- end:KIND -->`. A marker stands alone on its line; markers inside a code fence are ignored.
Without `protocol=` there is one table for each protocol that has records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench import protocol
from dfkd_bench.errors import UsageError, did_you_mean
from dfkd_bench.runs import settings as run_settings
from dfkd_bench.utils.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

LEADERBOARD, THROUGHPUT, OURS, PUBLISHED, TUNING = "leaderboard", "throughput", "ours", "published", "tuning"
ROBUSTNESS, RECIPES, SETTINGS, COLUMNS = "robustness", "recipes", "settings", "columns"
KINDS = {
    LEADERBOARD: "filters",
    THROUGHPUT: "filters",
    OURS: "the name of a method and optionally protocol=VERSION",
    PUBLISHED: "the name of a method",
    RECIPES: "the name of a method",
    SETTINGS: "the name of a method",
    COLUMNS: "nothing",
    TUNING: "the path of a tuning.csv and optionally protocol=VERSION",
    ROBUSTNESS: "the path of a robustness.csv and optionally protocol=VERSION",
}
WITH_PROTOCOL = (OURS, TUNING, ROBUSTNESS)  # kinds without filters that accept protocol=VERSION
FILTERS = ("task", *run_settings.TERMS, "protocol")
BEGIN = f"<!-- begin:{LEADERBOARD} -->"
END = f"<!-- end:{LEADERBOARD} -->"
MARKER = re.compile(r"<!--\s*(begin|end):(\S+)\s*(.*?)\s*-->")

Tables = Callable[[dict[str, str]], str]  # filters of a marker -> text of its tables


@dataclass(frozen=True)
class Block:
    """One pair of markers: kind and words of the first, and the line numbers of both, from 0."""

    kind: str
    words: tuple[str, ...]
    begin: int
    end: int

    @property
    def name(self) -> str:
        """The text of the marker after `begin:`."""
        return " ".join((self.kind, *self.words))


def tables_of(everything: pd.DataFrame, selected: pd.DataFrame) -> Tables:
    """The function from filters to tables that `write_docs` needs.

    Both arguments are leaderboards: a marker without filters shows `selected`, others show the matching rows of
    `everything`. The filter `method` gives one table of that method's rows; the filter `kind` another kind of table.
    """
    from dfkd_bench.report.tables.throughput import throughput
    from dfkd_bench.report.terminal.leaderboard import markdown, of_method

    def tables(filters: dict[str, str]) -> str:
        filters = dict(filters)
        kind = filters.pop("kind", LEADERBOARD)
        part = everything if filters else selected
        method = filters.pop("method", None)
        for column, wanted in filters.items():
            part = part[part[column] == wanted]
        if method is not None:
            return of_method(part, method)
        if part.empty:
            raise UsageError(f"no record has {', '.join(f'{k} {v}' for k, v in filters.items())}")
        return throughput(part) if kind == THROUGHPUT else markdown(part)

    return tables


def documents(paths: Iterable[Path]) -> list[Path]:
    """The given files, and for each given folder its Markdown files with a marker, sorted by path.

    Raises `UsageError` for a folder without such a file, and for an unknown or unpaired marker.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*.md")) if list(_blocks(_lines(file), file))]
        if not inside:
            raise UsageError(f"no Markdown file in {path} has a marker such as {BEGIN}")
        files += inside
    return list(dict.fromkeys(files))


def check_document(path: Path) -> list[Block]:
    """The blocks of a document. Raises `UsageError` for an unknown or unpaired marker, and if there is no marker."""
    return _parse(path)[1]


def filled(path: Path, tables: Tables | str | None = None) -> str:
    """The text of the document with every block filled; without `tables`, leaderboards stay as they are.

    Raises `UsageError` for a marker that cannot be filled.
    """
    lines, blocks = _parse(path)
    new_lines, last = [], 0
    for block in blocks:
        text = _content(block, path, tables)
        inside = lines[block.begin + 1 : block.end] if text is None else text.strip().split("\n")
        new_lines += [*lines[last : block.begin + 1], *inside]
        last = block.end
    return "\n".join([*new_lines, *lines[last:]])


def stale(path: Path, tables: Tables | str | None = None) -> list[str]:
    """Names of the blocks whose content is out of date."""
    lines, blocks = _parse(path)
    return [
        block.name
        for block in blocks
        if (text := _content(block, path, tables)) is not None
        and lines[block.begin + 1 : block.end] != text.strip().split("\n")
    ]


def write_docs(paths: Iterable[Path], tables: Tables | str) -> None:
    """Fill every block of the documents. `tables`: one text for all leaderboards, or a function of their filters.

    Raises `UsageError` for a document without markers or with a marker that cannot be filled; then no file is written.
    """
    for path, text in [(path, filled(path, tables)) for path in paths]:
        write_atomic(path, text.encode())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}") from error


def _parse(path: Path) -> tuple[list[str], list[Block]]:
    lines = _lines(path)
    blocks = list(_blocks(lines, path))
    if not blocks:
        raise UsageError(f"{path} needs the lines {BEGIN} and {END}, in this order: the tables go between them")
    return lines, blocks


def _blocks(lines: Sequence[str], path: Path) -> Iterator[Block]:
    fenced, opened = False, None
    for number, line in enumerate(lines):
        where = f"{path} line {number + 1}"
        fenced ^= line.lstrip().startswith("```")
        marker = None if fenced else MARKER.fullmatch(line.strip())
        if not marker:
            continue
        side, kind, words = marker[1], marker[2], tuple(marker[3].split())
        if kind not in KINDS:
            raise UsageError(f"{where}: unknown marker {kind!r}{did_you_mean(kind, list(KINDS))}")
        if side == "begin":
            if opened:
                raise UsageError(f"{_where(path, opened)}: no <!-- end:{opened.kind} --> before {line.strip()}")
            opened = Block(kind, words, number, number)
            _check_words(opened, path)
        elif opened is None or kind != opened.kind or words not in ((), opened.words):
            raise UsageError(f"{where}: {line.strip()} without a <!-- begin:{' '.join((kind, *words))} --> before it")
        else:
            yield Block(kind, opened.words, opened.begin, number)
            opened = None
    if opened:
        raise UsageError(f"{_where(path, opened)}: <!-- begin:{opened.name} --> has no <!-- end:{opened.kind} -->")


def _where(path: Path, block: Block) -> str:
    return f"{path} line {block.begin + 1}"


def _check_words(block: Block, path: Path) -> None:
    try:
        if block.kind in (LEADERBOARD, THROUGHPUT):
            _filters(block.words, block.kind)
        elif block.kind != COLUMNS:
            _name_and_protocol(block)
        elif block.words:
            raise UsageError(f"begin:{COLUMNS} takes {KINDS[COLUMNS]}, got {' '.join(block.words)}")
    except UsageError as error:
        raise UsageError(f"{_where(path, block)}: {error}") from error


def _filters(words: Sequence[str], kind: str) -> dict[str, str]:
    filters: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in FILTERS or not (equals and value) or key in filters:
            raise UsageError(f"begin:{kind} takes {', '.join(f'{k}=NAME' for k in FILTERS)} once each, got {word}")
        filters[key] = value
    if "task" in filters:
        protocol.task(filters["task"])
    for key in run_settings.TERMS:
        if key in filters and run_settings.SETTINGS[key].choices:
            protocol.check_word(key, filters[key], run_settings.SETTINGS[key].choices)
    if "budget" in filters:
        filters["budget"] = protocol.check_budget(filters["budget"])
    if "protocol" in filters:
        protocol.check_version(filters["protocol"])
    return filters


def _name_and_protocol(block: Block) -> tuple[str, str | None]:
    """The name or path in a marker, and the protocol, or None if it names no protocol."""
    name, *more = block.words or ("",)
    key, _, version = more[0].partition("=") if more else ("protocol", "", "")
    if not name or len(more) > 1 or key != "protocol" or (more and block.kind not in WITH_PROTOCOL):
        raise UsageError(f"begin:{block.kind} takes {KINDS[block.kind]}, got {' '.join(block.words) or 'nothing'}")
    return name, protocol.check_version(version) if more else None


def _content(block: Block, path: Path, tables: Tables | str | None) -> str | None:
    try:
        if block.kind == LEADERBOARD:
            return tables(_filters(block.words, block.kind)) if callable(tables) else tables
        if block.kind == THROUGHPUT:
            return tables({**_filters(block.words, block.kind), "kind": THROUGHPUT}) if callable(tables) else None
        if block.kind == COLUMNS:
            from dfkd_bench.report.tables.runs import columns_table

            return columns_table()
        name, version = _name_and_protocol(block)
        if block.kind == OURS:
            filters = {"method": name} | ({"protocol": version} if version else {})
            return tables(filters) if callable(tables) else None
        if block.kind == PUBLISHED:
            from dfkd_bench.report.tables.published import published_table

            return published_table(name)
        if block.kind == RECIPES:
            from dfkd_bench.report.tables.recipes import recipes_table

            return recipes_table(name)
        if block.kind == SETTINGS:
            from dfkd_bench.report.tables.settings import settings_table

            return settings_table(name)
        if block.kind == ROBUSTNESS:
            from dfkd_bench.report.tables.robustness import markdown

            return markdown((path.parent / name).parent, version)
        from dfkd_bench.report.tables.tuning import trials_table

        return trials_table(path.parent / name, version)
    except UsageError as error:
        raise UsageError(f"{_where(path, block)}: {error}") from error
