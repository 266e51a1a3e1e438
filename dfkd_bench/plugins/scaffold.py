"""Create a plug-in package of one kind from the templates in `scaffold_files/`."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import os
import re
import shutil
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from dfkd_bench._version import __version__
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.plugins.entry import ADDON, ARCHITECTURE, DATASET, FIGURE, KINDS, LOGGER, METHOD, METRIC, Kind
from dfkd_bench.plugins.registry import OWNER, entries

RESERVED = ("all",)  # means every method on the command line
LONGEST = 40
FILES = {  # template -> file of the package; `kind` stands for the kind's word
    "pyproject.toml.j2": "pyproject.toml",
    "README.md.j2": "README.md",
    "gitignore.j2": ".gitignore",
    "init.py.j2": "src/{module}/__init__.py",
    "{kind}.py.j2": "src/{module}/{kind}.py",
    "test_{kind}.py.j2": "tests/test_{module}.py",
}
NETWORK = {"network.py.j2": "src/{module}/network.py"}  # separate from the facts, which lists read without torch
MARKER = "src/{module}/py.typed"  # tells type checkers to use the package's annotations
WORDS = {kind.word.replace("-", ""): kind for kind in KINDS.values()}  # as on the command line
TRY = {  # commands to try the plug-in after its installation
    METHOD: ("dfkd-bench check {plugin}", "dfkd-bench run --method {plugin} --budget smoke"),
    ADDON: ("dfkd-bench check noise --with {plugin}", "dfkd-bench run --method noise --with {plugin} --budget smoke"),
    ARCHITECTURE: (
        "dfkd-bench list models",
        "dfkd-bench run --method noise --task digits16/cnn32-{plugin} --budget smoke",
    ),
    DATASET: (
        "dfkd-bench teacher train {plugin}/cnn32",
        "dfkd-bench run --method noise --task {plugin}/cnn32-cnn16 --budget smoke",
    ),
    METRIC: ("dfkd-bench list metrics", "dfkd-bench run --method noise --budget smoke"),
    FIGURE: ("dfkd-bench list figures", "dfkd-bench figures {plugin} --results runs"),
    LOGGER: ("dfkd-bench list loggers", "dfkd-bench run --method noise --budget smoke --log {plugin}"),
}


@dataclass(frozen=True)
class Names:
    """The names in a new package: `my-method` for distribution and plug-in, module `my_method`, class `MyMethod`."""

    name: str
    module: str
    cls: str
    kind: Kind = METHOD

    @property
    def word(self) -> str:
        """The kind as written on the command line and in file names."""
        return self.kind.word.replace("-", "")

    @property
    def a_kind(self) -> str:
        """The kind with its article."""
        return f"a{'n' * (self.word[0] in 'aeiou')} {self.kind.word}"

    @property
    def plugin(self) -> str:
        """The plug-in's name. That of an architecture has no '-', which separates names within a task."""
        return self.module if self.kind == ARCHITECTURE else self.name

    @property
    def target(self) -> str:
        """The target of the entry point: a class, or an object named after its kind."""
        return f"{self.module}.{self.word}:{self.cls if self.kind in (METHOD, ADDON) else self.word.upper()}"

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands to try the plug-in."""
        return tuple(line.format(plugin=self.plugin) for line in TRY[self.kind])


def names_of(word: str, kind: Kind = METHOD) -> Names:
    """The names for a plug-in `word`. Raises `UsageError` for a word that is not a valid name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", word) or len(word) > LONGEST:
        split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", word).lower()
        better = re.sub(r"[^a-z0-9]+", "-", split)[:LONGEST].strip("-")
        hint = f", such as {better!r}" if better[:1].isalpha() else ""
        rule = f"lower-case words of letters and digits with '-' between, {LONGEST} characters at most"
        raise UsageError(f"{word!r} is not a valid name of {Names('', '', '', kind).a_kind}: use {rule}{hint}")
    module = word.replace("-", "_")
    return Names(word, module, "".join(part.capitalize() for part in module.split("_")), kind)


def create(word: str, into: Path, kind: Kind = METHOD, own: Collection[str] = ()) -> Path:
    """Write the package of a new plug-in `word` in the folder `into`; returns its folder, complete or absent.

    `own`: names of this package, which a plug-in of this kind cannot have. Raises `UsageError` for an invalid or used
    name and for an existing folder, `RunError` if writing fails.
    """
    names = names_of(word, kind)
    if not into.is_dir():
        raise UsageError(f"there is no folder {into}: create it, or choose another with --into")
    target = into / names.name
    if target.exists():
        raise UsageError(f"{target} already exists: choose another name, or another folder with --into")
    check_free(names, own)
    files = render(names)
    for path, text in files.items():
        if path.startswith("src/"):
            check_classes(names, text)
    temporary = into / f".{names.name}.{os.getpid()}.tmp"
    try:
        for path, text in files.items():
            file = temporary / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        os.rename(temporary, target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}; choose another folder with --into") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # exists only after an error
    return target


def check_free(names: Names, own: Collection[str]) -> None:
    """Raise `UsageError` if a plug-in, a distribution or a module already has the name."""

    def refuse(reason: str) -> None:
        raise UsageError(f"{reason}: choose another name")

    if names.name in RESERVED:
        refuse(f"{names.name!r} means every method on the command line")
    if keyword.iskeyword(names.module) or keyword.iskeyword(names.cls):
        refuse(f"{names.name!r} is a keyword of Python")
    existing = {name: f"{entry.owner} {entry.version}" for name, entry in entries(names.kind).items()}
    for name, owner in (existing | dict.fromkeys(own, f"{OWNER} {__version__}")).items():
        if name.replace("-", "_") == names.module:
            refuse(f"there is already {names.a_kind} {name!r} ({owner})")
    with suppress(metadata.PackageNotFoundError):
        refuse(f"a package {names.name!r} is already installed ({metadata.version(names.name)})")
    if names.module in sys.stdlib_module_names or importlib.util.find_spec(names.module) is not None:
        refuse(f"there is already a Python module {names.module!r}, which yours would hide")


def check_classes(names: Names, source: str) -> None:
    """Raise `UsageError` if a class would have a name that its file imports, or of a builtin."""
    tree = ast.parse(source)
    bound = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    if classes & bound or any(hasattr(builtins, name) for name in classes):
        what = f"{names.name!r} needs a class {names.cls}, but that name is already used in the file"
        raise UsageError(f"{what}: choose another name")


def render(names: Names) -> dict[str, str]:
    """Every file of the package: path below its folder -> text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, autoescape=False)
    folder = resources.files("dfkd_bench.plugins") / "scaffold_files"
    keys = ("name", "module", "cls", "word", "a_kind", "plugin", "target", "commands")
    values = {key: getattr(names, key) for key in keys}
    values |= {"group": names.kind.group, "contract": names.kind.contract.replace(":", "."), "version": __version__}
    texts = {}
    for file, path in (FILES | (NETWORK if names.kind == ARCHITECTURE else {})).items():
        template = environment.from_string((folder / file.format(kind=names.word)).read_text("utf-8"))
        texts[path.format(module=names.module, kind=names.word)] = template.render(values)
    return {**texts, MARKER.format(module=names.module): ""}
