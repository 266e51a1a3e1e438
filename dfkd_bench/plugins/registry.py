"""Find and load plug-ins: entry points of any installed package, or a class in a file.

Listing reads only metadata and source text and imports nothing, so a plug-in that fails on import does no harm. If two
packages have a plug-in of the same name, both are refused until one is removed.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from dfkd_bench._version import __version__
from dfkd_bench.errors import BenchError, PrivilegeError, RunError, UsageError, did_you_mean
from dfkd_bench.plugins import cards
from dfkd_bench.plugins.cards import Card as Card
from dfkd_bench.plugins.cards import SettingInfo as SettingInfo
from dfkd_bench.plugins.code_digest import code_digest as code_digest
from dfkd_bench.plugins.code_digest import source_files as source_files
from dfkd_bench.plugins.entry import ADDON as ADDON
from dfkd_bench.plugins.entry import GROUP as GROUP
from dfkd_bench.plugins.entry import METHOD as METHOD
from dfkd_bench.plugins.entry import Entry as Entry
from dfkd_bench.plugins.entry import Kind as Kind
from dfkd_bench.utils import guard
from dfkd_bench.utils.text import error_line, one_line

if TYPE_CHECKING:
    from dfkd_bench.addon import AddOn
    from dfkd_bench.method import Method


P = ParamSpec("P")
T = TypeVar("T")
OWNER = "dfkd-bench"  # the distribution of this package
_helpers: set[str] = set()  # modules that were imported from the folder of a plug-in file


def entries(kind: Kind = METHOD) -> dict[str, Entry]:
    """Every declared plug-in of a kind by name, sorted; `Entry.rivals` lists other owners of the same name."""
    found: dict[str, list[Entry]] = {}
    for point in metadata.entry_points(group=kind.group):
        owner = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "?"
        entry = Entry(point.name, point.value, owner, version, (), kind)
        if entry not in found.setdefault(point.name, []):
            found[point.name].append(entry)
    merged = {}
    for name in sorted(found):
        first, *others = found[name]
        merged[name] = Entry(
            name, first.target, first.owner, first.version, tuple(f"{o.owner} {o.version}" for o in others), kind
        )
    return merged


def resolve(word: str, kind: Kind = METHOD) -> Entry:
    """The entry for a name or for `path.py:Class`. Raises `UsageError` if it is unknown, missing or not unique."""
    if word.endswith(".py") or ".py:" in word:
        return _file_entry(word, kind)
    known = entries(kind)
    if word not in known:
        raise UsageError(f"unknown {kind.word} {word!r}{did_you_mean(word, list(known))}")
    return without_clash(known[word])


def without_clash(entry: Entry) -> Entry:
    """`entry` itself. Raises `UsageError` if other packages have a plug-in of the same name."""
    if entry.rivals:
        claims = ", ".join([f"{entry.owner} {entry.version}", *entry.rivals])
        what = f"{entry.kind.word} name {entry.name!r} is claimed by several packages ({claims})"
        raise UsageError(f"{what}: uninstall all but one")
    return entry


def resolve_any(word: str) -> Entry:
    """The method of this name or, if there is none, the add-on. Raises `UsageError` as `resolve` does."""
    try:
        return resolve(word)
    except UsageError as error:
        try:
            return resolve(word, ADDON)
        except UsageError:
            raise error from None


def _file_entry(word: str, kind: Kind) -> Entry:
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
        fitting = [
            n.name
            for n in tree.body
            if isinstance(n, ast.ClassDef) and any(kind.base in ast.unparse(b) for b in n.bases)
        ]
        if len(fitting) != 1:
            raise UsageError(f"{path} has {len(fitting)} {kind.word}s: name one, as {path}:Class")
        name = fitting[0]
    if name not in classes:
        raise UsageError(f"no class {name!r} in {path}{did_you_mean(name, classes)}")
    return Entry(f"{path.stem}:{name}", f"{path.resolve()}:{name}", "file", "-", (), kind)


def load(entry: Entry) -> type[Method]:
    """Import a method's class. Raises `RunError`, naming the owner, for any error during the import."""
    from dfkd_bench.method import Method

    method = _imported(entry)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise _wrong_class(entry)
    return method


def load_addon(entry: Entry) -> type[AddOn]:
    """Import an add-on's class. Raises `RunError` as `load` does."""
    from dfkd_bench.addon import AddOn

    addon = _imported(entry)
    if not (isinstance(addon, type) and issubclass(addon, AddOn)):
        raise _wrong_class(entry)
    return addon


def load_object(entry: Entry, contract: type[T]) -> T:
    """Import a plug-in that is an object of class `contract`. Raises `RunError` as `load` does."""
    plugin = _imported(entry)
    if not isinstance(plugin, contract):
        raise RunError(f"{entry.target} of {entry.owner} {entry.version} is not a {contract.__name__}")
    if (name := getattr(plugin, "name", entry.name)) != entry.name:
        raise RunError(f"{entry.who} has the name {name!r}: its entry point and its `name` must be the same")
    return plugin


def call_plugin(entry: Entry, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of a plug-in. Raises `BenchError`, naming the owner, for any error in it."""
    try:
        return function(*args, **kwargs)
    except BenchError as error:
        if entry.owner == OWNER:
            raise
        raise (UsageError if isinstance(error, UsageError) else RunError)(f"{entry.who}: {error}") from error
    except (Exception, SystemExit) as error:
        raise RunError(f"{entry.who} failed: {error_line(error)}") from error


def with_own(kind: Kind, own: Mapping[str, str]) -> dict[str, Entry]:
    """Every plug-in of `kind` by name: `own` of this package (name -> module:NAME), then those of other packages.

    `Entry.rivals` lists other owners of the same name. Nothing is imported.
    """
    others = entries(kind)
    result = {}
    for name, target in own.items():
        rival = others.pop(name, None)
        rivals = (f"{rival.owner} {rival.version}", *rival.rivals) if rival else ()
        result[name] = Entry(name, target, OWNER, __version__, rivals, kind)
    return result | others


def check_name(entry: Entry, own: Collection[str]) -> None:
    """Raise `UsageError` if a plug-in has one of the names `own` of this package."""
    if entry.name in own:
        raise UsageError(f"{entry.who} has a name that dfkd-bench uses itself: rename it, or uninstall {entry.owner}")


def _wrong_class(entry: Entry) -> RunError:
    contract = entry.kind.contract.replace(":", ".")
    return RunError(f"{entry.target} of {entry.owner} {entry.version} is not a subclass of {contract}")


def _imported(entry: Entry) -> object:
    try:
        with guard.data_blocked():  # a module could load real images at import and keep them
            plugin: object = getattr(_import(entry), entry.class_name)
    except (KeyboardInterrupt, MemoryError, PrivilegeError):
        raise
    except BaseException as error:  # a plug-in may raise anything, SystemExit included
        raise RunError(f"{entry.who} cannot be imported: {error_line(error)}") from error
    return plugin


def _import(entry: Entry) -> ModuleType:
    module, _, _ = entry.target.rpartition(":")
    if entry.owner != "file":
        return importlib.import_module(module)
    alias, folder = f"_dfkd_bench_file_{Path(module).stem}", str(Path(module).parent)
    spec = importlib.util.spec_from_file_location(alias, module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    for name in _helpers:  # another folder may contain a module of the same name
        sys.modules.pop(name, None)
    known = set(sys.modules)
    sys.modules[alias] = loaded  # dataclasses look up their module there
    sys.path.insert(0, folder)  # like a script, the file can import modules of its folder (`code_digest` covers them)
    try:
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(folder)
        fresh = {n: str(getattr(m, "__file__", "")) for n, m in sys.modules.items() if n not in known and n != alias}
        _helpers.update(n for n, file in fresh.items() if Path(file).parent == Path(folder))
    return loaded


# -- static reading ---------------------------------------------------------------------------------------------------


def static_card(entry: Entry) -> Card | None:
    """A plug-in's card from its source text, without importing it; None if its attributes are not literals.

    Raises `RunError`, naming the owner, if there is no source or it is not Python.
    """
    return _read(entry, cards.static_card)


def describe(entry: Entry) -> tuple[str, str]:
    """Description (`about`) of a plug-in object from its source text, and its problem; at least one is empty.

    Both are empty if the description is not a literal.
    """
    if entry.clash:
        return "", entry.clash
    try:
        return one_line(_read(entry, cards.static_about)), ""
    except RunError as error:
        return "", one_line(f"broken: {error}")


def _read(entry: Entry, reader: Callable[[Path, str], T]) -> T:
    path = entry.path
    if path is None or not path.is_file():
        raise RunError(f"{entry.who}: the source of {entry.target} cannot be found; reinstall {entry.owner}")
    try:
        return reader(path, entry.class_name)
    except (SyntaxError, ValueError, OSError) as error:
        raise RunError(f"{entry.who}: {path.name} is not valid Python: {error}") from error


def static_columns(entry: Entry) -> tuple[tuple[str, str, str], ...]:
    """Name, meaning and unit of a metric's columns from its source text. Raises `RunError` as `static_card` does."""
    return _read(entry, cards.static_columns)


def card(entry: Entry) -> Card:
    """A plug-in's card from its source text; the class is imported only if an attribute is not a literal."""
    return static_card(entry) or cards.card_of_class(load_addon(entry) if entry.kind == ADDON else load(entry))
