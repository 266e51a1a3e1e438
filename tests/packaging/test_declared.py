"""The methods on disk, declared in pyproject.toml and installed are the same; the harness names none of them."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from commands import python

from dfkd_bench.plugins.entry import ADDON, GROUP
from dfkd_bench.protocol import BOUNDS, GRANTED

ROOT = Path(__file__).parents[2]
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
DECLARED: dict[str, str] = POINTS[GROUP]
AROUND: dict[str, str] = POINTS[ADDON.group]


@pytest.mark.parametrize(
    ("module", "base", "declared"), [("dfkd_methods", "Method", DECLARED), ("dfkd_methods.addons", "AddOn", AROUND)]
)
def test_every_file_has_one_class_which_is_declared(module: str, base: str, declared: dict[str, str]) -> None:
    classes = {
        path.stem: [
            f"{module}.{path.stem}:{node.name}"
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ClassDef) and any(base in ast.unparse(parent) for parent in node.bases)
        ]
        for path in (ROOT / "methods" / module.replace(".", "/")).glob("*.py")
        if path.stem != "__init__"
    }
    assert [name for name, found in classes.items() if len(found) != 1] == []
    found = {name for (name,) in classes.values()}
    assert found == set(declared.values()), "declare each file in pyproject.toml, under entry-points"


def test_what_is_installed_is_what_is_declared() -> None:
    distribution = metadata.distribution("dfkd-bench")
    installed = {p.name: p.value for p in distribution.entry_points if p.group in POINTS}
    assert installed == DECLARED | AROUND, (
        "the installed entry points are older than pyproject.toml: reinstall (pip install -e .)"
    )


def test_the_bounds_that_the_protocol_names_exist() -> None:
    assert {*BOUNDS, *(name for names in GRANTED.values() for name in names)} <= set(DECLARED)


def test_the_harness_names_and_imports_no_method() -> None:
    """But for the bounds, which the protocol treats apart."""
    words = {name for name in DECLARED if name not in BOUNDS}
    assert words
    named = rf"(?<![\w-])({'|'.join(map(re.escape, sorted(words)))})(?![\w-])"
    wrong = re.compile(rf"{named}|^\s*(from|import) dfkd_methods", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "dfkd_bench").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if wrong.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list"], ["run", "--help"], ["check", "--help"]])
def test_commands_that_only_tell_import_neither_torch_nor_methods(words: list[str]) -> None:
    code = """
import sys
from dfkd_bench.cli.main import entry
try:
    entry()
finally:
    print(sorted({"torch", "dfkd_methods", "numpy", "pandas", "sklearn"} & set(sys.modules)))
"""
    assert python(code, *words).splitlines()[-1] == "[]"
