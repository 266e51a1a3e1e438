"""Commands as tests run them: in this process, or in a fresh one that tells what it loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dfkd_bench.cli.main import entry

PLUGINS = ("plug_fine", "plug_raises", "plug_figures", "plug_loggers")  # of tests
HEAVY = ("torch", "pandas", "scipy", "matplotlib", "sklearn", "dfkd_methods", *PLUGINS)
SNOOP = """
import sys
from dfkd_bench.cli.main import entry
try:
    entry()
finally:
    print("LOADED", [m for m in HEAVY if m in sys.modules], file=sys.stderr)
"""


def dfkd(monkeypatch: Any, capsys: Any, *words: str | Path | float, columns: int = 120) -> tuple[int, str, str]:
    """Exit status, output and errors of a command, run in this process."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["dfkd-bench", *map(str, words)])
    status = 0
    try:
        entry()
    except SystemExit as done:
        status = int(done.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err


class Command:
    """`dfkd-bench` in this process, as the fixture `cli` gives it."""

    def __init__(self, monkeypatch: Any, capsys: Any) -> None:
        self._given = monkeypatch, capsys

    def __call__(self, *words: str | Path | float, columns: int = 120) -> tuple[int, str, str]:
        """Exit status, output and errors."""
        return dfkd(*self._given, *words, columns=columns)

    def refused(self, *words: str | Path | float, status: int = 2, columns: int = 120) -> str:
        """The one line with which it is refused, without `error: ` and the newline; nothing else is printed."""
        found, out, err = self(*words, columns=columns)
        assert (found, out, err.count("\n"), err[:7]) == (status, "", 1, "error: "), (found, out, err)
        return err.removeprefix("error: ").rstrip("\n")


def python(code: str, *words: str | Path, **options: Any) -> str:
    """What a fresh Python prints, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def finding(folder: Path) -> dict[str, str]:
    """The environment of a process that finds packages in `folder` too."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def snoop(*words: str, path: Path | None = None, also: tuple[str, ...] = ()) -> tuple[str, str]:
    """Output and the list of heavy modules loaded, of a command in a fresh process; it must succeed."""
    environment = {**(finding(path) if path else os.environ), "COLUMNS": "200"}
    code = f"HEAVY = {HEAVY + also}\n{SNOOP}"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.rpartition("LOADED ")[2].strip()
