"""The methods on disk, declared in pyproject.toml and installed are the same; the harness names none of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from dfkd_bench.plugins.entry import ADDON, GROUP
from dfkd_bench.protocol import BOUNDS, GRANTED

ROOT = Path(__file__).parents[2]
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
DECLARED: dict[str, str] = POINTS[GROUP]
AROUND: dict[str, str] = POINTS[ADDON.group]
METHODS = ROOT / "methods" / "dfkd_methods"


def test_every_module_is_declared() -> None:
    modules = {f"dfkd_methods.{p.stem}" for p in METHODS.glob("*.py") if p.stem != "__init__"}
    declared = {target.partition(":")[0] for target in DECLARED.values()}
    assert modules == declared, "declare each file of methods/dfkd_methods in pyproject.toml, under entry-points"


def test_every_method_class_is_declared() -> None:
    classes = {
        f"dfkd_methods.{path.stem}:{node.name}"
        for path in METHODS.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and any("Method" in ast.unparse(base) for base in node.bases)
    }
    assert classes == set(DECLARED.values())


def test_every_add_on_is_declared() -> None:
    classes = {
        f"dfkd_methods.addons.{path.stem}:{node.name}"
        for path in (METHODS / "addons").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and any("AddOn" in ast.unparse(base) for base in node.bases)
    }
    assert classes == set(AROUND.values())
    assert len(list((METHODS / "addons").glob("*.py"))) == len(classes) + 1


def test_what_is_installed_is_what_is_declared() -> None:
    distribution = metadata.distribution("dfkd-bench")
    installed = {p.name: p.value for p in distribution.entry_points if p.group in POINTS}
    assert installed == DECLARED | AROUND, (
        "the installed entry points are older than pyproject.toml: reinstall (pip install -e .)"
    )


@pytest.mark.parametrize("bound", sorted({*BOUNDS, *(name for names in GRANTED.values() for name in names)}))
def test_the_bounds_that_the_protocol_names_exist(bound: str) -> None:
    assert bound in DECLARED


def test_the_harness_names_no_method() -> None:
    """But for the bounds, which the protocol treats apart."""
    words = {name for name in DECLARED if name not in BOUNDS}
    assert words
    named = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(words)))})(?![\w-])", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "dfkd_bench").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if named.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_harness_imports_no_method() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "dfkd_bench").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dfkd_methods"))
        or (isinstance(node, ast.Import) and any(a.name.startswith("dfkd_methods") for a in node.names))
    ]
    assert not found


def test_methods_import_only_what_plugins_are_offered() -> None:
    """The contract, its errors and the blocks: nothing that leads to data, files or the loop."""
    offered = re.compile(r"dfkd_bench\.(method|addon|errors|recipe|blocks(\.\w+)?)$")
    found = {
        f"{path.name}: {node.module}"
        for path in METHODS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("dfkd_bench")
        and not offered.match(node.module or "")
    }
    assert not found


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list"], ["run", "--help"], ["check", "--help"]])
def test_commands_that_only_tell_import_neither_torch_nor_methods(words: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['dfkd-bench', *{words!r}]\n"
        "from dfkd_bench.cli.main import entry\n"
        "status = 0\n"
        "try:\n"
        "    entry()\n"
        "except SystemExit as done:\n"
        "    status = done.code or 0\n"
        "heavy = {n.partition('.')[0] for n in sys.modules} & {'torch', 'dfkd_methods', 'numpy', 'pandas', 'sklearn'}\n"
        "print('status', status, 'heavy', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "status 0 heavy []", done.stdout + done.stderr
