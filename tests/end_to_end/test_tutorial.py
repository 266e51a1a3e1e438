"""`methods/README.md`, followed to the letter: every command run, every edit applied, in an environment of its own."""

from __future__ import annotations

import csv
import os
import re
import site
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from dfkd_bench.runs import records

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "methods" / "README.md").read_text().partition("## The first hour")[2].partition("## Reference")[0]
METHOD = Path("my-method/src/my_method/method.py")
STREAMED, GLOBAL = "(n,), generator=stream, device=device)", "(n,), device=device)"


@dataclass
class Reader:
    """Somebody at a prompt in a folder, with an environment active."""

    folder: Path
    environment: dict[str, str]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)

    def succeed(self, *words: str) -> None:
        done = self.call(*words)
        assert done.returncode == 0, f"{words[-1]}\n{done.stdout}\n{done.stderr}"

    def sh(self, text: str) -> None:
        """The lines of a block, as a shell takes them."""
        for line in text.splitlines():
            self.succeed("bash", "-ec", line)

    def diff(self, text: str) -> None:
        """An edit: what stands before it is there once, and is replaced."""
        head, target, *body = text.splitlines()
        assert head.removeprefix("--- ") == target.removeprefix("+++ ")
        path = self.folder / target.removeprefix("+++ ")
        old = "\n".join(line[1:] for line in body if line[0] in " -")
        new = "\n".join(line[1:] for line in body if line[0] in " +")
        self.replace(path, old, new)

    def python(self, text: str) -> None:
        """A script."""
        self.succeed("python", "-c", text)

    def text(self, text: str) -> None:
        """What `check` prints of a method whose labels come from the global generator."""
        self.replace(self.folder / METHOD, STREAMED, GLOBAL)
        done = self.call("dfkd-bench", "check", "my-method", "--quiet")
        self.replace(self.folder / METHOD, GLOBAL, STREAMED)
        assert (done.returncode, done.stderr) == (1, "error: 1 of 1 checks failed\n")
        assert [line.rstrip() for line in done.stdout.splitlines()] == text.splitlines()

    @staticmethod
    def replace(path: Path, old: str, new: str) -> None:
        before = path.read_text()
        assert before.count(old) == 1, f"{path.name} has not once:\n{old}"
        path.write_text(before.replace(old, new))


def reader(folder: Path, inherit: bool) -> Reader:
    """A fresh virtual environment with dfkd-bench in it; `inherit` takes what it needs from the running one.

    Inheriting, nothing is fetched: pip looks for no dependency, asks no index, and does not build in an environment of
    its own (a variable that pip reads as the option's value and not by its name, so that it has to be false).
    """
    home, work = folder / "venv", folder / "work"
    work.mkdir()
    venv.create(home, with_pip=True)
    unset = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment |= {"PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(home)}
    environment |= {
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    if inherit:
        (place,) = (home / "lib").glob("python*/site-packages")
        (place / "inherited.pth").write_text("\n".join(site.getsitepackages()))
        environment |= {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "false"}
    there = Reader(work, environment)
    there.succeed("pip", "install", "--quiet", *["--editable"] * inherit, str(ROOT))
    return there


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("inherit", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["inherited", "fresh"])
def test_the_tutorial_leads_to_a_row_and_a_figure(tmp_path: Path, inherit: bool) -> None:
    there = reader(tmp_path, inherit)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL, flags=re.S | re.M)
    assert {language for language, _ in blocks} == {"sh", "diff", "python", "text"}
    for language, text in blocks:
        getattr(there, language)(text)

    with open(there.folder / "runs" / "leaderboard.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "my-method"]
    assert [(row["owner"], row["budget"], row["n_complete"]) for row in rows] == [("my-method", "smoke", "2")]
    mine = [r for r in records.read_all(there.folder / "runs") if r["spec"]["method"] == "my-method"]
    assert {r["spec"]["settings"]["gen_lr"] for r in mine} == {5e-3}
    tried = [r["spec"]["code"] for r in records.read_all(there.folder / "trial")]
    assert len(set(tried)) == 2
    figures = [there.folder / "runs" / "gallery.png", *(there.folder / "figures").rglob("*.png")]
    assert len(figures) > 1
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)
