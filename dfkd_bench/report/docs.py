"""Tables inside Markdown documents, each between two markers; nothing outside them is changed.

    <!-- begin:leaderboard protocol=1.2 budget=quick -->   means over the records; filter words are optional
    <!-- begin:throughput protocol=1.2 budget=quick -->    seconds and images per second of those rows, by device
    <!-- begin:ours NAME protocol=1.2 -->                  the rows of one method in all leaderboards
    <!-- begin:tuning PATH protocol=1.2 -->                a search for settings; PATH is relative to the document
    <!-- begin:robustness PATH protocol=1.2 -->            accuracy under corruptions; PATH is that of its CSV
    <!-- begin:published NAME -->                          what others printed of a method
    <!-- begin:recipes NAME -->                            its recipes beside the authors' scripts
    <!-- begin:settings NAME -->                           its presets and settings, from its source
    <!-- begin:columns -->                                 the columns of `runs.csv` and their places in a record

and `<!-- end:KIND -->` beneath. A marker fills its line; one inside a code fence is text. Without `protocol=` there is
a table for each that there are records of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench import protocol
from dfkd_bench.errors import UsageError, did_you_mean
from dfkd_bench.runs import settings as of_runs
from dfkd_bench.utils.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

LEADERBOARD, THROUGHPUT, OURS, PUBLISHED, TUNING = "leaderboard", "throughput", "ours", "published", "tuning"
ROBUSTNESS, RECIPES, SETTINGS, COLUMNS = "robustness", "recipes", "settings", "columns"
KINDS = {
    LEADERBOARD: "filters",
    THROUGHPUT: "filters",
    OURS: "the name of a method and maybe protocol=VERSION",
    PUBLISHED: "the name of a method",
    RECIPES: "the name of a method",
    SETTINGS: "the name of a method",
    COLUMNS: "nothing",
    TUNING: "the path of a tuning.csv and maybe protocol=VERSION",
    ROBUSTNESS: "the path of a robustness.csv and maybe protocol=VERSION",
}
OF_PROTOCOLS = (OURS, TUNING, ROBUSTNESS)  # besides those with filters
FILTERS = ("task", *of_runs.TERMS, "protocol")
BEGIN = f"<!-- begin:{LEADERBOARD} -->"
END = f"<!-- end:{LEADERBOARD} -->"
MARKER = re.compile(r"<!--\s*(begin|end):(\S+)\s*(.*?)\s*-->")

Tables = Callable[[dict[str, str]], str]  # filters of a marker -> the tables between


@dataclass(frozen=True)
class Block:
    """One pair of markers: what belongs between, and the numbers of the markers' lines, from 0."""

    kind: str
    words: tuple[str, ...]
    begin: int
    end: int

    @property
    def name(self) -> str:
        """What the marker says after `begin:`."""
        return " ".join((self.kind, *self.words))


def tables_of(everything: pd.DataFrame, chosen: pd.DataFrame) -> Tables:
    """Leaderboards as `write_docs` takes them: `chosen` for a marker without filters, else a part of `everything`.

    The filter `method` asks for the rows of one method, in one table; `kind` for another table of the rows.
    """
    from dfkd_bench.report.tables.throughput import throughput
    from dfkd_bench.report.terminal.leaderboard import markdown, of_method

    def tables(filters: dict[str, str]) -> str:
        filters = dict(filters)
        kind = filters.pop("kind", LEADERBOARD)
        part = everything if filters else chosen
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
    """Files as they are, and of each folder every Markdown file in it that has a marker, by path.

    Raises `UsageError` for a folder without one, and for a marker that is unknown or not paired.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*.md")) if list(_blocks(_lines(file), file))]
        if not inside:
            raise UsageError(f"no Markdown file in {path} has a marker such as {BEGIN}")
        found += inside
    return list(dict.fromkeys(found))


def check_document(path: Path) -> list[Block]:
    """The blocks of a document. Raises `UsageError` for an unknown or unpaired marker, and where there is none."""
    return _parse(path)[1]


def filled(path: Path, tables: Tables | str | None = None) -> str:
    """The text of the document with every block as it should be; without `tables`, leaderboards stay as they are.

    Raises `UsageError` for markers that cannot be filled.
    """
    lines, blocks = _parse(path)
    kept, last = [], 0
    for block in blocks:
        text = _content(block, path, tables)
        inside = lines[block.begin + 1 : block.end] if text is None else text.strip().split("\n")
        kept += [*lines[last : block.begin + 1], *inside]
        last = block.end
    return "\n".join([*kept, *lines[last:]])


def stale(path: Path, tables: Tables | str | None = None) -> list[str]:
    """Names of the blocks that do not hold what they should; for a test that a document is up to date."""
    lines, blocks = _parse(path)
    return [
        block.name
        for block in blocks
        if (text := _content(block, path, tables)) is not None
        and lines[block.begin + 1 : block.end] != text.strip().split("\n")
    ]


def write_docs(paths: Iterable[Path], tables: Tables | str) -> None:
    """Fill every block of the documents; `tables` is a text for their leaderboards, or gives one for their filters.

    Raises `UsageError` for a document without markers or with one that cannot be filled; none is written then.
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
        raise UsageError(f"{path} needs the lines {BEGIN} and {END}, in this order: the tables go between")
    return lines, blocks


def _blocks(lines: Sequence[str], path: Path) -> Iterator[Block]:
    fenced, begun = False, None
    for number, line in enumerate(lines):
        where = f"{path} line {number + 1}"
        fenced ^= line.lstrip().startswith("```")
        found = None if fenced else MARKER.fullmatch(line.strip())
        if not found:
            continue
        side, kind, words = found[1], found[2], tuple(found[3].split())
        if kind not in KINDS:
            raise UsageError(f"{where}: unknown marker {kind!r}{did_you_mean(kind, list(KINDS))}")
        if side == "begin":
            if begun:
                raise UsageError(f"{_where(path, begun)}: no <!-- end:{begun.kind} --> before {line.strip()}")
            begun = Block(kind, words, number, number)
            _check_words(begun, path)
        elif begun is None or kind != begun.kind or words not in ((), begun.words):
            raise UsageError(f"{where}: {line.strip()} without a <!-- begin:{' '.join((kind, *words))} --> before it")
        else:
            yield Block(kind, begun.words, begun.begin, number)
            begun = None
    if begun:
        raise UsageError(f"{_where(path, begun)}: <!-- begin:{begun.name} --> has no <!-- end:{begun.kind} -->")


def _where(path: Path, block: Block) -> str:
    return f"{path} line {block.begin + 1}"


def _check_words(block: Block, path: Path) -> None:
    try:
        if block.kind in (LEADERBOARD, THROUGHPUT):
            _filters(block.words, block.kind)
        elif block.kind != COLUMNS:
            _named(block)
        elif block.words:
            raise UsageError(f"begin:{COLUMNS} takes {KINDS[COLUMNS]}, got {' '.join(block.words)}")
    except UsageError as error:
        raise UsageError(f"{_where(path, block)}: {error}") from error


def _filters(words: Sequence[str], kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in FILTERS or not (equals and value) or key in found:
            raise UsageError(f"begin:{kind} takes {', '.join(f'{k}=NAME' for k in FILTERS)} once each, got {word}")
        found[key] = value
    if "task" in found:
        protocol.task(found["task"])
    for key in of_runs.TERMS:
        if key in found and of_runs.SETTINGS[key].choices:
            protocol.check_word(key, found[key], of_runs.SETTINGS[key].choices)
    if "budget" in found:
        found["budget"] = protocol.check_budget(found["budget"])
    if "protocol" in found:
        protocol.check_version(found["protocol"])
    return found


def _named(block: Block) -> tuple[str, str | None]:
    """The name or path in a marker, and the protocol where one is given."""
    name, *more = block.words or ("",)
    key, _, version = more[0].partition("=") if more else ("protocol", "", "")
    if not name or len(more) > 1 or key != "protocol" or (more and block.kind not in OF_PROTOCOLS):
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
        name, version = _named(block)
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
