"""Create a plug-in package for a new method from the templates in `scaffold_files/`."""

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

RESERVED = ("all",)  # means every method on the command line
LONGEST = 40
FILES = {  # template -> file of the package
    "pyproject.toml.j2": "pyproject.toml",
    "README.md.j2": "README.md",
    "gitignore.j2": ".gitignore",
    "init.py.j2": "src/{module}/__init__.py",
    "method.py.j2": "src/{module}/method.py",
    "test_method.py.j2": "tests/test_{module}.py",
}
MARKER = "src/{module}/py.typed"  # tells type checkers to use the package's annotations


@dataclass(frozen=True)
class Names:
    """The names in a new package: `my-method` for distribution and method, module `my_method`, class `MyMethod`."""

    name: str
    module: str
    cls: str


def names_of(word: str) -> Names:
    """The names for a method `word`. Raises `UsageError` for a word that is not a valid name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", word) or len(word) > LONGEST:
        split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", word).lower()
        better = re.sub(r"[^a-z0-9]+", "-", split)[:LONGEST].strip("-")
        hint = f", such as {better!r}" if better[:1].isalpha() else ""
        rule = f"lower-case words of letters and digits with '-' between, {LONGEST} characters at most"
        raise UsageError(f"{word!r} is not a valid name of a method: use {rule}{hint}")
    module = word.replace("-", "_")
    return Names(word, module, "".join(part.capitalize() for part in module.split("_")))


def create(word: str, into: Path) -> Path:
    """Write the package of a new method `word` in the folder `into`; returns its folder, which is complete or absent.

    Raises `UsageError` for an invalid or used name and for an existing folder, `RunError` if writing fails.
    """
    names = names_of(word)
    if not into.is_dir():
        raise UsageError(f"there is no folder {into}: create it, or choose another with --into")
    target = into / names.name
    if target.exists():
        raise UsageError(f"{target} already exists: choose another name, or another folder with --into")
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
        shutil.rmtree(temporary, ignore_errors=True)  # exists only after an error
    return target


def check_free(names: Names) -> None:
    """Raise `UsageError` if a method, a distribution or a module already has the name."""

    def refuse(reason: str) -> None:
        raise UsageError(f"{reason}: choose another name")

    if names.name in RESERVED:
        refuse(f"{names.name!r} means every method on the command line")
    if keyword.iskeyword(names.module) or keyword.iskeyword(names.cls):
        refuse(f"{names.name!r} is a keyword of Python")
    existing = {name.replace("-", "_"): entry for name, entry in entries().items()}.get(names.module)
    if existing is not None:
        refuse(f"there is already a method {existing.name!r} ({existing.owner} {existing.version})")
    with suppress(metadata.PackageNotFoundError):
        refuse(f"a package {names.name!r} is already installed ({metadata.version(names.name)})")
    if names.module in sys.stdlib_module_names or importlib.util.find_spec(names.module) is not None:
        refuse(f"there is already a Python module {names.module!r}, which yours would hide")


def check_class(names: Names, source: str) -> None:
    """Raise `UsageError` if the class would have a name that its file imports, or of a builtin."""
    bound = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if {names.cls, f"{names.cls}Config"} & bound or hasattr(builtins, names.cls):
        what = f"{names.name!r} needs a class {names.cls}, but that name is already used in the file"
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
