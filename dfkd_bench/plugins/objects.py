"""Plug-ins that are objects (datasets, architectures, metrics, ...): our own in a table, others by entry points.

Another package is imported only when its object is requested by name, or listed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from dfkd_bench._version import __version__
from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.plugins.entry import KINDS, Entry, Kind
from dfkd_bench.plugins.registry import code_digest, entries, load_object

T = TypeVar("T")
Codes = tuple[tuple[str, str], ...]  # `kind:name` -> SHA-256 of the code, sorted by name


@cache
def declared_entries(kind: Kind, path: tuple[str, ...]) -> dict[str, Entry]:
    """`entries(kind)`, read once per `sys.path`, because objects are looked up often."""
    return entries(kind)


def plugin_digests(plugins: Iterable[Entry | None]) -> Codes:
    """Code digests of the plug-ins; None (an object of this package) is skipped. Raises as `code_digest` does."""
    return tuple(sorted({f"{e.kind.word}:{e.name}": code_digest(e) for e in plugins if e is not None}.items()))


def kind_and_name(word: str) -> tuple[Kind, str]:
    """Kind and name in a word `kind:name`. Raises `RunError` for another word."""
    kind, _, name = word.partition(":")
    if kind not in KINDS or not name:
        raise RunError(f"{word!r} is not a plug-in: write kind:name")
    return KINDS[kind], name


@dataclass(frozen=True)
class TableRow(Generic[T]):
    """A row of a list: name, owner with version, and the object, or the problem that prevents loading it."""

    name: str
    owner: str
    found: T | None
    trouble: str = ""


@dataclass(frozen=True)
class Table(Generic[T]):
    """The objects of one kind by name."""

    kind: Kind
    contract: type[T]  # their class
    own: Mapping[str, T]  # of this package
    check: Callable[[Entry, T], str]  # the problem of an object of another package; empty if there is none

    def entry(self, name: str) -> Entry | None:
        """The entry of another package's object; None for an object of this package or an unknown name.

        Raises `UsageError` if several packages (this one included) have an object of this name.
        """
        entry = declared_entries(self.kind, tuple(sys.path)).get(name)
        if entry is None:
            return None
        if name in self.own or entry.rivals:
            ours = [f"dfkd-bench {__version__}"] if name in self.own else []
            claims = ", ".join([*ours, f"{entry.owner} {entry.version}", *entry.rivals])
            what = f"{self.kind.word} name {name!r} is claimed by several packages ({claims})"
            raise UsageError(f"{what}: uninstall all but one, or rename it there")
        return entry

    def get(self, name: str, *others: str) -> T:
        """The object `name`; `others` are further words to suggest for a misspelt name.

        Raises `UsageError` for an unknown name and for one that several packages have, `RunError`, naming the owner,
        for an object that cannot be imported or is of another class.
        """
        entry = self.entry(name)
        if entry is not None:
            return self.load(entry)
        if name not in self.own:
            known = [*self.own, *declared_entries(self.kind, tuple(sys.path)), *others]
            raise UsageError(f"unknown {self.kind.word} {name!r}{did_you_mean(name, known)}")
        return self.own[name]

    def load(self, entry: Entry) -> T:
        """Another package's object. Raises `RunError` as `get` does."""
        plugin = load_object(entry, self.contract)
        if problem := self.check(entry, plugin):
            raise RunError(f"{entry.who} {problem}")
        return plugin

    def rows(self) -> Iterator[TableRow[T]]:
        """Every object, this package's first; one that cannot be loaded is listed with its problem."""
        others = declared_entries(self.kind, tuple(sys.path))
        for name in dict.fromkeys([*self.own, *others]):
            entry = others.get(name)
            owner = f"{entry.owner} {entry.version}" if entry and name not in self.own else f"dfkd-bench {__version__}"
            try:
                yield TableRow(name, owner, self.get(name))
            except UsageError as error:
                yield TableRow(name, owner, None, f"clash: {error}")
            except RunError as error:
                yield TableRow(name, owner, None, f"broken: {error}")
