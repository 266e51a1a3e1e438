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
from commands import Command, Refused

from dfkd_bench.cli import new
from dfkd_bench.conformance import assert_conforms
from dfkd_bench.plugins import registry, scaffold

ROOT = Path(__file__).parents[2]
METHOD = "src/my_method/method.py"
KINDS = tuple(scaffold.WORDS)


def test_every_kind_is_known_and_no_template_is_left_over() -> None:
    assert new.KINDS == KINDS
    templates = {p.name for p in (resources.files("dfkd_bench.plugins") / "scaffold_files").iterdir()}
    assert templates == {name.format(kind=kind) for name in (*scaffold.FILES, *scaffold.NETWORK) for kind in KINDS}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of each kind, called after it."""
    folder = tmp_path_factory.mktemp("new")
    for word, kind in scaffold.WORDS.items():
        scaffold.create(f"my-{word}", folder, kind)
    return folder


@pytest.fixture(scope="module")
def package(packages: Path) -> Path:
    return packages / "my-method"


def tool(name: str, folder: Path, *words: str, **environment: str) -> str:
    """What a development tool says of the files in `folder`; empty where it is content."""
    pytest.importorskip(name)
    command = [sys.executable, "-m", name, *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_every_template_becomes_a_file_and_nothing_else_is_there(packages: Path, kind: str) -> None:
    folder = packages / f"my-{kind}"
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    paths = [*scaffold.FILES.values(), scaffold.MARKER]
    if kind == "architecture":
        paths += scaffold.NETWORK.values()
    assert found == {path.format(module=f"my_{kind}", kind=kind) for path in paths}
    texts = [(folder / path).read_text() for path in found]
    assert not [text for text in texts if "{{" in text or "{%" in text]


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [
        ("method", "my-method", "my_method.method:MyMethod"),
        ("addon", "my-addon", "my_addon.addon:MyAddon"),
        ("architecture", "my_architecture", "my_architecture.architecture:ARCHITECTURE"),
        ("dataset", "my-dataset", "my_dataset.dataset:DATASET"),
        ("metric", "my-metric", "my_metric.metric:METRIC"),
        ("figure", "my-figure", "my_figure.figure:FIGURE"),
        ("logger", "my-logger", "my_logger.logger:LOGGER"),
    ],
)
def test_the_package_declares_its_plugin(packages: Path, kind: str, name: str, target: str) -> None:
    project = tomllib.loads((packages / f"my-{kind}" / "pyproject.toml").read_text())["project"]
    assert project["name"] == f"my-{kind}"
    assert project["entry-points"] == {f"dfkd_bench.{kind}s": {name: target}}
    assert project["dependencies"][0].startswith("dfkd-bench>=")


def test_the_method_keeps_every_rule(package: Path) -> None:
    word, presets = f"{package / METHOD}:MyMethod", ["default", "calm"]
    assert list(registry.card(registry.resolve(word)).presets) == presets
    for preset in presets:
        assert_conforms(word, preset=preset, batch_size=8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["my-own", "x", "a-name-of-forty-characters-the-longest-yet"[:40]])
def test_the_files_are_clean_for_the_linter_by_their_own_settings(name: str, kind: str, tmp_path: Path) -> None:
    folder = scaffold.create(name, tmp_path, scaffold.WORDS[kind])
    assert tool("ruff", folder, "check", "--no-cache", "--extend-select", "I,B,UP,SIM,E501", ".") == ""
    assert tool("ruff", folder, "format", "--no-cache", "--check", ".") == ""


def test_the_files_are_clean_for_strict_types(packages: Path) -> None:
    """With the settings of this repository, whose cache makes it a matter of a second."""
    words = ["--config-file", "pyproject.toml", "--cache-dir", ".mypy_cache"]
    words += [word for kind in KINDS for word in ("-p", f"my_{kind}")]
    path = os.pathsep.join(str(packages / f"my-{kind}" / "src") for kind in KINDS)
    assert tool("mypy", ROOT, *words, MYPYPATH=path) == ""


@pytest.mark.slow
def test_the_files_are_clean_for_strict_types_by_their_own_settings(packages: Path) -> None:
    for kind in KINDS:
        words = ["--cache-dir", str(packages.parent / "cache"), "src", "tests"]
        assert tool("mypy", packages / f"my-{kind}", *words) == ""


def test_the_command_says_what_comes_next(monkeypatch: pytest.MonkeyPatch, command: Command, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = command("new", "my-method")
    assert status == 0
    assert (tmp_path / "my-method" / METHOD).is_file()
    assert [line.strip() for line in out.splitlines()[2:]] == [
        "pip install -e './my-method[test]'",
        "dfkd-bench check my-method",
        "dfkd-bench run --method my-method --budget smoke",
    ]
    status, out, _ = command("new", "my-net", "--kind", "architecture")
    assert status == 0
    assert "an architecture that works without changes; read my-net/src/my_net/architecture.py" in " ".join(out.split())
    assert out.splitlines()[-1].split()[-3:] == ["digits16/cnn32-my_net", "--budget", "smoke"]


# -- refusals ---------------------------------------------------------------------------------------------------------


BAD_NAMES = {
    "method": {
        "My Method": "such as 'my-method'",
        "MyMethod": "such as 'my-method'",
        "my.method": "such as 'my-method'",
        "-my": "No such option",
        "3d": "is not a valid name of a method: use lower-case words",
        "../my": "is not a valid name of a method",
        "a" * 41: "40 characters at most",
        "all": "'all' means every method",
        "cpsc": "there is already a method 'cpsc' (dfkd-bench ",
        "real_kd": "there is already a method 'real-kd' (dfkd-bench ",
        "scikit-learn": "a package 'scikit-learn' is already installed",
        "json": "there is already a Python module 'json'",
        "lambda": "'lambda' is a keyword of Python",
        "none": "'none' is a keyword of Python",
        "exception": "needs a class Exception",
        "batch": "needs a class Batch",
    },
    "addon": {"ema": "there is already an add-on 'ema' (dfkd-bench "},
    "architecture": {
        "wrn16-1": "there is already an architecture 'wrn16_1' (dfkd-bench ",
        "tapped": "needs a class Tapped",
    },
    "dataset": {"mnist": "there is already a dataset 'mnist' (dfkd-bench "},
    "metric": {
        "fidelity": "there is already a metric 'fidelity' (dfkd-bench ",
        "MyMetric": "'MyMetric' is not a valid name of a metric: use lower-case words",
    },
    "figure": {"cost": "there is already a figure 'cost' (dfkd-bench "},
    "logger": {"jsonl": "there is already a logger 'jsonl' (dfkd-bench "},
    "engine": {"mine": "'engine' is not one of 'method', 'addon', 'architecture'"},
}


@pytest.mark.parametrize(
    ("kind", "name", "said"), [(kind, *pair) for kind, names in BAD_NAMES.items() for pair in names.items()]
)
def test_a_bad_name_is_one_line_and_nothing_is_written(
    refused: Refused, tmp_path: Path, kind: str, name: str, said: str
) -> None:
    assert said in refused("new", name, "--kind", kind, "--into", tmp_path, columns=300)
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_one_kind_is_free_for_another(tmp_path: Path) -> None:
    assert scaffold.create("ema", tmp_path).is_dir()


def test_an_existing_folder_is_left_alone(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert "already exists" in refused("new", "mine", "--into", tmp_path)
    assert list((tmp_path / "mine").iterdir()) == []
    assert "no folder" in refused("new", "mine", "--into", tmp_path / "nowhere")


@pytest.mark.parametrize("call", ["write_text", "rename"])
def test_a_full_disk_leaves_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, command: Command, tmp_path: Path, call: str
) -> None:
    done: list[int] = []

    def full(*arguments: Any, **options: Any) -> None:
        done.append(1)
        if call == "rename" or len(done) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "rename") if call == "rename" else (Path, "write_text")), full)
    status, _, err = command("new", "mine", "--into", tmp_path)
    assert status == 1
    assert "No space left on device" in err
    assert done
    assert list(tmp_path.iterdir()) == []
