"""A plugin package for a new method, written from the templates in `scaffold_files/`."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path

from dfkd_bench._version import __version__
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.plugins.registry import entries

RESERVED = ("all",)  # stands for every method on the command line
LONGEST = 40
FILES = {  # template -> file of the package
    "pyproject.toml.j2": "pyproject.toml",
    "README.md.j2": "README.md",
    "gitignore.j2": ".gitignore",
    "init.py.j2": "src/{module}/__init__.py",
    "method.py.j2": "src/{module}/method.py",
    "test_method.py.j2": "tests/test_{module}.py",
}
MARKER = "src/{module}/py.typed"  # the package's annotations count for type checkers


@dataclass(frozen=True)
class Names:
    """What one name becomes: `my-method` distribution and method, `my_method` the module, `MyMethod` the class."""

    name: str
    module: str
    cls: str


def names_of(word: str) -> Names:
    """The names that follow from `word`. Raises `UsageError` for one that no method or module can have."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", word) or len(word) > LONGEST:
        split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", word).lower()
        better = re.sub(r"[^a-z0-9]+", "-", split)[:LONGEST].strip("-")
        hint = f", such as {better!r}" if better[:1].isalpha() else ""
        rule = f"lower-case words of letters and digits with '-' between, {LONGEST} characters at most"
        raise UsageError(f"{word!r} cannot name a method: use {rule}{hint}")
    module = word.replace("-", "_")
    return Names(word, module, "".join(part.capitalize() for part in module.split("_")))


def create(word: str, into: Path) -> Path:
    """Write the package of a new method `word` below the folder `into`; returns its folder, which is whole or absent.

    Raises `UsageError` for a name that is bad or taken and for a folder that exists, `RunError` where the disk refuses.
    """
    names = names_of(word)
    if not into.is_dir():
        raise UsageError(f"no folder {into} to write to: make it, or name another with --into")
    target = into / names.name
    if target.exists():
        raise UsageError(f"{target} exists already: choose another name, or another folder with --into")
    check_free(names)
    files = render(names)
    check_class(names, files[f"src/{names.module}/method.py"])
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
        shutil.rmtree(temporary, ignore_errors=True)  # gone already where all went well
    return target


def check_free(names: Names) -> None:
    """Raise `UsageError` where a method, a distribution or a module has the name: one of the two would be hidden."""

    def refuse(reason: str) -> None:
        raise UsageError(f"{reason}: choose another name")

    if names.name in RESERVED:
        refuse(f"{names.name!r} stands for every method on the command line")
    if keyword.iskeyword(names.module) or keyword.iskeyword(names.cls):
        refuse(f"{names.name!r} is a word of Python, which can name no module or class")
    taken = {name.replace("-", "_"): entry for name, entry in entries().items()}.get(names.module)
    if taken is not None:
        refuse(f"there is a method {taken.name!r} already ({taken.owner} {taken.version})")
    with suppress(metadata.PackageNotFoundError):
        refuse(f"a package {names.name!r} is installed already ({metadata.version(names.name)})")
    if names.module in sys.stdlib_module_names or importlib.util.find_spec(names.module) is not None:
        refuse(f"there is a Python module {names.module!r} already, which yours would hide")


def check_class(names: Names, source: str) -> None:
    """Raise `UsageError` where the class would hide a name that its own file uses."""
    bound = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if {names.cls, f"{names.cls}Config"} & bound or hasattr(builtins, names.cls):
        what = f"{names.name!r} would name its class {names.cls}, which is something else"
        raise UsageError(f"{what}: choose another name")


def render(names: Names) -> dict[str, str]:
    """Every file of the package: path below its folder -> text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    folder, words = resources.files("dfkd_bench.plugins") / "scaffold_files", {**asdict(names), "version": __version__}
    texts = {
        path.format(module=names.module): environment.from_string((folder / file).read_text("utf-8")).render(words)
        for file, path in FILES.items()
    }
    return {**texts, MARKER.format(module=names.module): ""}
