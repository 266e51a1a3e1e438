"""`dfkd-bench new`: a package that is clean as it stands, or one line and nothing written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from commands import dfkd

from dfkd_bench.conformance import assert_conforms
from dfkd_bench.plugins import registry, scaffold
from dfkd_bench.plugins.entry import GROUP

ROOT = Path(__file__).parents[2]
METHOD = "src/my_method/method.py"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaffold.create("my-method", tmp_path_factory.mktemp("new"))


def tool(name: str, folder: Path, *words: str, **environment: str) -> str:
    """What a development tool says of the files in `folder`; empty where it is content."""
    pytest.importorskip(name)
    command = [sys.executable, "-m", name, *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_template_becomes_a_file_and_nothing_else_is_there(package: Path) -> None:
    found = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()}
    paths = [*scaffold.FILES.values(), scaffold.MARKER]
    assert found == {path.format(module="my_method") for path in paths}
    templates = {p.name for p in (resources.files("dfkd_bench.plugins") / "scaffold_files").iterdir()}
    assert templates == set(scaffold.FILES)
    assert all("{{" not in (package / path).read_text() for path in found)


def test_the_package_declares_its_method_under_the_name_asked_for(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["name"] == "my-method"
    assert project["entry-points"][GROUP] == {"my-method": "my_method.method:MyMethod"}
    assert project["dependencies"][0].startswith("dfkd-bench>=")


@pytest.mark.parametrize("preset", ["default", "calm"])
def test_the_method_keeps_every_rule(package: Path, preset: str) -> None:
    assert_conforms(f"{package / METHOD}:MyMethod", preset=preset, batch_size=8)


def test_the_presets_of_that_test_are_those_that_it_has(package: Path) -> None:
    assert list(registry.card(registry.resolve(f"{package / METHOD}:MyMethod")).presets) == ["default", "calm"]


@pytest.mark.parametrize("name", ["my-method", "x", "a-name-of-forty-characters-the-longest-yet"[:40]])
def test_the_files_are_clean_for_the_linter_by_their_own_settings(name: str, tmp_path: Path) -> None:
    folder = scaffold.create(name, tmp_path)
    assert tool("ruff", folder, "check", "--no-cache", "--extend-select", "I,B,UP,SIM,E501", ".") == ""
    assert tool("ruff", folder, "format", "--no-cache", "--check", ".") == ""


def test_the_files_are_clean_for_strict_types(package: Path) -> None:
    """With the settings of this repository, whose cache makes it a matter of a second."""
    words = ["--config-file", "pyproject.toml", "--cache-dir", ".mypy_cache", "-p", "my_method"]
    assert tool("mypy", ROOT, *words, MYPYPATH=str(package / "src")) == ""


@pytest.mark.slow
def test_the_files_are_clean_for_strict_types_by_their_own_settings(package: Path) -> None:
    assert tool("mypy", package, "--cache-dir", str(package.parent / "cache"), "src", "tests") == ""


def test_the_command_says_what_comes_next(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = dfkd(monkeypatch, capsys, "new", "my-method")
    assert status == 0
    assert (tmp_path / "my-method" / METHOD).is_file()
    assert [line.strip() for line in out.splitlines()[2:]] == [
        "pip install -e './my-method[test]'",
        "dfkd-bench check my-method",
        "dfkd-bench run --method my-method --budget smoke",
    ]


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My Method", "such as 'my-method'"),
        ("MyMethod", "such as 'my-method'"),
        ("my.method", "such as 'my-method'"),
        ("-my", "No such option"),
        ("3d", "is not a valid name of a method: use lower-case words"),
        ("../my", "is not a valid name of a method"),
        ("a" * 41, "40 characters at most"),
        ("all", "'all' means every method"),
        ("cpsc", "there is already a method 'cpsc' (dfkd-bench "),
        ("real_kd", "there is already a method 'real-kd' (dfkd-bench "),
        ("scikit-learn", "a package 'scikit-learn' is already installed"),
        ("json", "there is already a Python module 'json'"),
        ("lambda", "'lambda' is a keyword of Python"),
        ("none", "'none' is a keyword of Python"),
        ("exception", "needs a class Exception"),
        ("batch", "needs a class Batch"),
    ],
)
def test_a_bad_name_is_one_line_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, name: str, said: str
) -> None:
    status, out, err = dfkd(monkeypatch, capsys, "new", name, "--into", tmp_path)
    assert status == 2
    assert err.startswith("error: ")
    assert said in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    status, _, err = dfkd(monkeypatch, capsys, "new", "mine", "--into", tmp_path)
    assert (status, "already exists" in err) == (2, True)
    assert list((tmp_path / "mine").iterdir()) == []
    status, _, err = dfkd(monkeypatch, capsys, "new", "mine", "--into", tmp_path / "nowhere")
    assert (status, "no folder" in err) == (2, True)


@pytest.mark.parametrize("call", ["write_text", "rename"])
def test_a_full_disk_leaves_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, call: str
) -> None:
    done: list[int] = []

    def full(*arguments: Any, **options: Any) -> None:
        done.append(1)
        if call == "rename" or len(done) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "rename") if call == "rename" else (Path, "write_text")), full)
    status, _, err = dfkd(monkeypatch, capsys, "new", "mine", "--into", tmp_path)
    assert status == 1
    assert "No space left on device" in err
    assert done
    assert list(tmp_path.iterdir()) == []
