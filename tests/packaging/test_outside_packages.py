"""Packages of a lab, as `dfkd-bench new` writes them: an architecture, a dataset, a metric, a figure and a logger.

They are installed by pip, one run uses all five, and its record is read where they are and where they are not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import finding

from dfkd_bench.plugins import registry, scaffold
from dfkd_bench.plugins.entry import ARCHITECTURE, DATASET, METRIC
from dfkd_bench.runs import records

TASK = "lab-data/lab_net-lab_net"
TERMS = ["--budget", "smoke", "--threads", "1", "--device", "cpu", "--quiet"]
RUN = ["run", "--method", "dafl", "--task", TASK, *TERMS, "--results", "runs"]
PACKAGES = {
    "lab-net": "architecture", "lab-data": "dataset", "lab-metric": "metric", "lab-figure": "figure",
    "lab-logger": "logger", "lab-addon": "addon",
}  # fmt: skip
COMMANDS = """
import contextlib, io, json, sys
from dfkd_bench.cli.main import entry
said = []
for words in json.loads(sys.argv[1]):
    sys.argv, out, err, status = ["dfkd-bench", *words], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            entry()
        except SystemExit as done:
            status = done.code or 0
    said.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(said))
"""


@dataclass
class Lab:
    """A folder to work in, a home with a teacher, and where the packages are installed."""

    folder: Path

    @property
    def packages(self) -> Path:
        """Their sources."""
        return self.folder / "packages"

    @property
    def site(self) -> Path:
        """Where pip put them."""
        return self.folder / "site"

    def python(self, *words: str, installed: bool = True) -> str:
        """What a process in the folder prints, with the packages on its path or without."""
        environment = {**(finding(self.site) if installed else os.environ)}
        environment |= {"DFKD_BENCH_HOME": str(self.folder / "home"), "COLUMNS": "200"}
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commands(self, *commands: Sequence[str], installed: bool = True) -> list[tuple[int, str, str]]:
        """Status, output and errors of each command, all in one process."""
        found = json.loads(self.python("-c", COMMANDS, json.dumps(commands), installed=installed))
        return [(status, out, err) for status, out, err in found]

    @property
    def run(self) -> Path:
        """The folder of the only run."""
        (file,) = (self.folder / "runs").rglob("record.json")
        return file.parent

    @property
    def record(self) -> dict[str, Any]:
        """Its record."""
        return records.read(self.run)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The packages written and installed, a teacher trained, one run, and everything drawn from its record."""
    made = Lab(tmp_path_factory.mktemp("lab"))
    made.packages.mkdir()
    sources = [scaffold.create(name, made.packages, scaffold.WORDS[kind]) for name, kind in PACKAGES.items()]
    words = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    made.python("-m", "pip", "install", *words, "--target", str(made.site), *map(str, sources), installed=False)
    for status, _, err in made.commands(
        ["teacher", "train", "lab-data/lab_net", "--epochs", "1", "--device", "cpu", "--threads", "1"],
        [*RUN, "--log", "lab-logger"],
        ["leaderboard", "--results", "runs", "--all"],
        ["figures", "lab-figure", "--results", "runs", "--out", "figures", "--format", "svg"],
    ):
        assert status == 0, err
    return made


def test_the_tests_that_each_package_brings_pass(lab: Lab) -> None:
    folders = [str(lab.packages / name / "tests") for name in PACKAGES]
    out = lab.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(lab.packages), *folders)
    assert f"{len(PACKAGES)} passed" in out


def test_the_record_says_whose_each_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(lab.site))
    record, code = lab.record, {}
    for kind, name in ((ARCHITECTURE, "lab_net"), (DATASET, "lab-data"), (METRIC, "lab-metric")):
        code[f"{kind.word}:{name}"] = registry.code_digest(registry.entries(kind)[name])
    metric = record["metrics"]["lab-metric"]
    assert metric["code_sha256"] == code.pop("metric:lab-metric")
    assert (metric["owner"], metric["version"], metric["why"]) == ("lab-metric", "0.1.0", "")
    assert metric["values"]["lost"] >= 0.0
    assert record["spec"]["plugins"] == code
    manifest = record["manifest"]
    assert [(one["kind"], one["name"], one["owner"], one["version"]) for one in manifest["plugins"]] == [
        ("architecture", "lab_net", "lab-net", "0.1.0"), ("dataset", "lab-data", "lab-data", "0.1.0"),
    ]  # fmt: skip
    assert manifest["loggers"] == [
        {"name": "lab-logger", "owner": "lab-logger", "version": "0.1.0", "target": "lab_logger.logger:LOGGER"}
    ]


def test_the_logger_was_told_and_the_figure_is_drawn(lab: Lab) -> None:
    (told,) = (lab.folder / "runs" / "logs").rglob("progress.txt")
    assert told.read_text() == f"dafl on {TASK}: evaluation, round 30 of 30\n"
    (figure,) = (lab.folder / "figures").iterdir()
    assert figure.name == "lab-figure-lab-data_lab_net-lab_net-pinned-smoke.svg"


def test_with_the_packages_the_student_is_evaluated_again(lab: Lab) -> None:
    ((status, out, err),) = lab.commands(["verify", "--results", "runs"])
    assert (status, err) == (0, "")
    assert out == "1 record, 1 student evaluated again, 8 renderings: all as recorded\n"


def test_without_the_packages_the_record_is_still_read(lab: Lab) -> None:
    """All that needs no package works; the rest says in a line what is missing."""
    run = str(lab.run.relative_to(lab.folder))
    words = {
        "verify": ["verify", "runs"],
        "table": ["leaderboard", "--results", "runs", "--task", TASK],
        "all": ["leaderboard", "--results", "runs", "--all", "again"],
        "figures": ["figures", "bars", "--results", "runs", "--task", TASK, "--out", "others", "--format", "svg"],
        "list": ["list"],
        "teachers": ["teacher", "list"],
        "export": ["export", run, "--out", "run.zip"],
        "archive": ["verify", "run.zip"],
        "merge": ["merge", "runs", "--into", "merged"],
        "like": ["run", "--like", run, "--results", "repeated"],
        "run": RUN,
        "log": ["run", "--method", "noise", *TERMS, "--log", "lab-logger", "--results", "logged"],
        "figure": ["figures", "lab-figure", "--results", "runs"],
        "typo": ["leaderboard", "--results", "runs", "--task", "lab-date/lab_net-lab_net"],
    }
    said = dict(zip(words, lab.commands(*words.values(), installed=False), strict=True))
    assert {name for name, (status, *_) in said.items() if status} == {"like", "run", "log", "figure", "typo"}
    for _, out, err in said.values():
        assert "Traceback" not in out + err
    file = f"{lab.run.relative_to(lab.folder / 'runs')}/record.json"
    missing = ("architecture 'lab_net' of lab-net 0.1.0", "dataset 'lab-data' of lab-data 0.1.0")
    assert said["verify"][1].splitlines() == [
        *(f"note: {file}: nothing was evaluated again: {what} is not installed here" for what in missing),
        "1 record, 8 renderings: all as recorded",
    ]
    assert all(f"{what} is not installed here" in said["archive"][1] for what in missing)
    assert TASK in said["table"][1]
    for name in ("index.html", "runs.csv", "leaderboard.csv", "leaderboard.tex", "leaderboard.md"):
        assert (lab.folder / "again" / name).read_bytes() == (lab.folder / "runs" / name).read_bytes()
    assert "lab-metric.lost" in (lab.folder / "again" / "runs.csv").read_text().splitlines()[0]
    assert "lab-data/lab_net" in said["teachers"][1]
    assert {name: said[name][2] for name in ("like", "log")} == {
        "like": f"error: the record cannot be repeated: {missing[0]} is not installed here; "
        "install the version of the record\n",
        "log": "error: unknown logger 'lab-logger'; known: jsonl, tensorboard\n",
    }
    for name, what in (("run", "dataset 'lab-data'"), ("figure", "kind of figure 'lab-figure'")):
        assert said[name][2].startswith(f"error: unknown {what}")
    assert said["typo"][2].startswith("error: unknown dataset 'lab-date'")
    assert not (lab.folder / "logged").exists()
