"""Run commands for tests: in this process, or in a new one that prints which heavy modules it loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dfkd_bench.cli.main import entry

Command = Callable[..., tuple[int, str, str]]  # the fixture `command`
Printed = Callable[..., str]  # the fixture `printed`
Refused = Callable[..., str]  # the fixture `refused`
PLUGINS = ("plug_fine", "plug_raises", "plug_figures", "plug_loggers")  # of tests
HEAVY = ("torch", "pandas", "scipy", "matplotlib", "sklearn", "dfkd_methods", *PLUGINS)
SNOOP = f"""
import json, sys
from dfkd_bench.cli.main import entry
try:
    for sys.argv[1:] in json.loads(sys.argv[1]):
        try:
            entry()
        except SystemExit as done:
            if done.code:
                raise
finally:
    print("LOADED", [m for m in {HEAVY} if m in sys.modules], file=sys.stderr)
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
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def python(code: str, *words: str | Path, **options: Any) -> str:
    """What a fresh Python prints, which must succeed."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def finding(folder: Path) -> dict[str, str]:
    """The environment for a process that also imports packages from `folder`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def snoop(*words: str, path: Path | None = None) -> tuple[str, str]:
    """Output and the list of heavy modules loaded, of a command in a fresh process; it must succeed."""
    return snoop_all([words], path)


def snoop_all(commands: Sequence[Sequence[str]], path: Path | None = None) -> tuple[str, str]:
    """The same of several commands, one after the other in one process."""
    environment = {**(finding(path) if path else os.environ), "COLUMNS": "200"}
    words = [sys.executable, "-c", SNOOP, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.rpartition("LOADED ")[2].strip()
