"""Which methods there are: entry points of any installed package, or a class in a file. One door for all.

Listing reads metadata and source text only: nothing is imported, so a plugin that raises on import harms nobody. Two
packages that claim one name are both refused until one is removed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    from dfkd_bench.method import Method

GROUP = "dfkd_bench.methods"


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


@dataclass(frozen=True)
class SettingInfo:
    """One field of a method's config."""

    name: str
    default: Any
    help: str
    choices: tuple[Any, ...] | None
    unit: str


@dataclass(frozen=True)
class Card:
    """What can be said of a method: read from its source where that is literal, from the class otherwise."""

    doc: str
    paper: str
    presets: dict[str, dict[str, Any]]
    default_preset: str
    privileges: tuple[str, ...]
    settings: tuple[SettingInfo, ...] = field(default=())


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

    module_name, _, name = entry.target.rpartition(":")
    try:
        module: Any
        if entry.owner == "file":
            alias = f"_dfkd_bench_file_{Path(module_name).stem}"
            spec = importlib.util.spec_from_file_location(alias, module_name)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[alias] = module  # dataclasses look their module up there
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(module_name)
        found = getattr(module, name)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit included
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"method {entry.name!r} of {entry.owner} {entry.version} cannot be imported: {what}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise RunError(f"{entry.target} of {entry.owner} {entry.version} is not a subclass of dfkd_bench.method.Method")
    return found


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


def code_digest(entry: Entry) -> str:
    """SHA-256 over a method's file and every file of the same package (or folder) that it imports."""
    start = entry.path
    if start is None:
        raise RunError(f"the source of method {entry.name!r} ({entry.target}) cannot be found: reinstall {entry.owner}")
    root, package = start.parent, ""
    if entry.owner != "file":
        package = entry.target.split(":")[0].split(".")[0]
        while (root / "__init__.py").exists() and root.name != package:
            root = root.parent
    seen: dict[Path, bytes] = {}
    todo = [start]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen[path] = path.read_bytes()
        todo += _local_imports(path, ast.parse(seen[path]), root, package)
    digest = hashlib.sha256()
    for path in sorted(seen):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + seen[path] + b"\0")
    return digest.hexdigest()


def _local_imports(path: Path, tree: ast.AST, root: Path, package: str) -> list[Path]:
    names: list[tuple[Path, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(root, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = root
            if node.level:
                base = path.parents[node.level - 1]
            module = node.module or ""
            names.append((base, module))
            names += [(base, f"{module}.{alias.name}".strip(".")) for alias in node.names]
    found = []
    for base, name in names:
        parts = [p for p in name.split(".") if p]
        if base == root and package and parts[:1] == [package]:
            parts = parts[1:]
        if not parts:
            continue
        stem = base.joinpath(*parts)
        found += [f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()]
    return found


def card(entry: Entry) -> Card:
    """A method's card from its source text; imports the class only where something is not written literally."""
    path = entry.path
    if path is not None and path.is_file():
        try:
            return _static_card(ast.parse(path.read_text()), entry.class_name)
        except (ValueError, KeyError, SyntaxError):
            pass  # written in a way only Python itself understands
    return card_of_class(load(entry))


def _static_card(tree: ast.Module, class_name: str) -> Card:
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    constants = _literals(tree.body, {})
    node = classes[class_name]
    values = _assigned(node.body)
    presets = _literal(values["presets"], constants) if "presets" in values else {"default": {}}
    default = _literal(values["default_preset"], constants) if "default_preset" in values else "default"
    paper = _literal(values["paper"], constants) if "paper" in values else ""
    privileges: tuple[str, ...] = ()
    if "privileges" in values:
        call = values["privileges"]
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("privileges are not literal")
        privileges = tuple(k.arg for k in call.keywords if k.arg and _literal(k.value, constants))
    settings = _static_settings(classes[ast.unparse(values["Config"])], constants)
    return Card(ast.get_docstring(node) or "", paper, presets, default, privileges, settings)


def _assigned(body: list[ast.stmt]) -> dict[str, ast.expr]:
    found = {}
    for item in body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            found[item.targets[0].id] = item.value
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            found[item.target.id] = item.value
    return found


def _literals(body: list[ast.stmt], known: dict[str, Any]) -> dict[str, Any]:
    for name, value in _assigned(body).items():
        try:
            known[name] = ast.literal_eval(value)
        except ValueError:
            continue
    return known


def _literal(node: ast.expr, constants: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    return ast.literal_eval(node)


def _static_settings(node: ast.ClassDef, constants: dict[str, Any]) -> tuple[SettingInfo, ...]:
    found = []
    for name, call in _assigned(node.body).items():
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).endswith("setting")):
            raise ValueError(f"{name} is not made with setting()")
        default, help = (_literal(a, constants) for a in call.args)
        extra = {k.arg: _literal(k.value, constants) for k in call.keywords}
        choices = tuple(extra["choices"]) if extra.get("choices") else None
        found.append(SettingInfo(name, default, help, choices, extra.get("unit", "")))
    return tuple(found)


def card_of_class(method: type[Method]) -> Card:
    """The same card from the imported class."""
    import dataclasses

    settings = tuple(
        SettingInfo(
            f.name, f.default, f.metadata.get("help", ""), f.metadata.get("choices"), f.metadata.get("unit", "")
        )
        for f in dataclasses.fields(method.Config)
    )
    return Card(
        doc=(method.__doc__ or "").strip(),
        paper=method.paper,
        presets={k: dict(v) for k, v in method.presets.items()},
        default_preset=method.default_preset,
        privileges=tuple(method.privileges.declared()),
        settings=settings,
    )
