"""Which methods there are: entry points of any installed package, or a class in a file. One door for all.

Listing reads metadata and source text only: nothing is imported, so a plugin that raises on import harms nobody. Two
packages that claim one name are both refused until one is removed.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dfkd_bench import cards
from dfkd_bench.cards import Card as Card
from dfkd_bench.cards import SettingInfo as SettingInfo
from dfkd_bench.data import guard
from dfkd_bench.errors import PrivilegeError, RunError, UsageError, did_you_mean
from dfkd_bench.sources import code_digest as code_digest
from dfkd_bench.sources import source_files as source_files

if TYPE_CHECKING:
    from dfkd_bench.method import Method

GROUP = "dfkd_bench.methods"
_helpers: set[str] = set()  # modules that were imported from beside a file


@dataclass(frozen=True)
class Entry:
    """One method as its package declares it."""

    name: str
    target: str  # module:Class, or path.py:Class
    owner: str  # distribution that brings it, or "file"
    version: str
    rivals: tuple[str, ...] = ()  # other owners of the same name

    @property
    def path(self) -> Path | None:
        """The source file, found without importing anything; None if there is none."""
        module, _, _ = self.target.rpartition(":")
        if self.owner == "file":
            return Path(module)
        return _source_of(module)

    @property
    def class_name(self) -> str:
        """Name of the class in that file."""
        return self.target.rpartition(":")[2]


def entries() -> dict[str, Entry]:
    """Every declared method by name, sorted. Clashing names carry their rivals."""
    found: dict[str, list[Entry]] = {}
    for point in metadata.entry_points(group=GROUP):
        owner = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "?"
        entry = Entry(point.name, point.value, owner, version)
        if entry not in found.setdefault(point.name, []):
            found[point.name].append(entry)
    merged = {}
    for name in sorted(found):
        first, *others = found[name]
        merged[name] = Entry(
            name, first.target, first.owner, first.version, tuple(f"{o.owner} {o.version}" for o in others)
        )
    return merged


def resolve(word: str) -> Entry:
    """The entry of a name or of `path.py:Class`. Raises `UsageError` for unknown, clashing or missing ones."""
    if word.endswith(".py") or ".py:" in word:
        return _file_entry(word)
    known = entries()
    if word not in known:
        raise UsageError(f"unknown method {word!r}{did_you_mean(word, list(known))}")
    entry = known[word]
    if entry.rivals:
        claims = ", ".join([f"{entry.owner} {entry.version}", *entry.rivals])
        raise UsageError(f"method name {word!r} is claimed by several packages ({claims}): uninstall all but one")
    return entry


def _file_entry(word: str) -> Entry:
    text, _, name = word.partition(".py:") if ".py:" in word else (word[:-3], "", "")
    path = Path(text + ".py")
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        tree = ast.parse(path.read_text())
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid Python: {error}") from error
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if not name:
        methods = [
            n.name
            for n in tree.body
            if isinstance(n, ast.ClassDef) and any("Method" in ast.unparse(b) for b in n.bases)
        ]
        if len(methods) != 1:
            raise UsageError(f"{path} has {len(methods)} methods: name one, as {path}:Class")
        name = methods[0]
    if name not in classes:
        raise UsageError(f"no class {name!r} in {path}{did_you_mean(name, classes)}")
    return Entry(f"{path.stem}:{name}", f"{path.resolve()}:{name}", "file", "-")


def load(entry: Entry) -> type[Method]:
    """Import a method's class. Raises `RunError`, naming the owner, whatever the plugin does while importing."""
    from dfkd_bench.method import Method

    try:
        with guard.shut():  # a module keeps what it loads, so importing it is no time for real data either
            found = getattr(_import(entry), entry.class_name)
    except (KeyboardInterrupt, MemoryError, PrivilegeError):
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit included
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"method {entry.name!r} of {entry.owner} {entry.version} cannot be imported: {what}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise RunError(f"{entry.target} of {entry.owner} {entry.version} is not a subclass of dfkd_bench.method.Method")
    return found


def _import(entry: Entry) -> ModuleType:
    module, _, _ = entry.target.rpartition(":")
    if entry.owner != "file":
        return importlib.import_module(module)
    alias, folder = f"_dfkd_bench_file_{Path(module).stem}", str(Path(module).parent)
    spec = importlib.util.spec_from_file_location(alias, module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    for name in _helpers:  # another folder may have a helper of the same name
        sys.modules.pop(name, None)
    known = set(sys.modules)
    sys.modules[alias] = loaded  # dataclasses look their module up there
    sys.path.insert(0, folder)  # as for a script: what lies beside the file can be imported (`code_digest` follows it)
    try:
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(folder)
        fresh = {n: str(getattr(m, "__file__", "")) for n, m in sys.modules.items() if n not in known and n != alias}
        _helpers.update(n for n, file in fresh.items() if Path(file).parent == Path(folder))
    return loaded


# -- static reading ---------------------------------------------------------------------------------------------------


def _source_of(module: str) -> Path | None:
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for location in spec.submodule_search_locations or []:
        base = Path(location).joinpath(*rest)
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def static_card(entry: Entry) -> Card | None:
    """A method's card from its source text, nothing imported; None where it is not written literally.

    Raises `RunError`, naming the owner, where there is no source or it is not Python.
    """
    path, who = entry.path, f"method {entry.name!r} of {entry.owner} {entry.version}"
    if path is None or not path.is_file():
        raise RunError(f"{who}: no source of {entry.target} is to be found; reinstall {entry.owner}")
    try:
        return cards.static_card(path, entry.class_name)
    except (SyntaxError, ValueError, OSError) as error:
        raise RunError(f"{who}: {path.name} is not valid Python: {error}") from error


def card(entry: Entry) -> Card:
    """A method's card from its source text; imports the class only where something is not written literally."""
    return static_card(entry) or cards.card_of_class(load(entry))
