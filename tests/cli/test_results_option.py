"""`--results` in every command that reads a results folder; a path as an argument goes on, with a note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import Command
from factory import make_record, write_record


@pytest.mark.parametrize("words", [("status",), ("prune", "--dry-run"), ("verify", "--quick")])
def test_a_path_as_an_argument_means_the_option(command: Command, monkeypatch: Any, tmp_path: Path, words: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(Path("runs"), make_record())
    named = command(*words, "--results", "runs")
    assert named[1]
    assert named[2] == ""
    assert command(*words) == named  # runs is the default
    status, out, err = command(*words, "runs")
    assert (status, out, err) == (*named[:2], "note: name the results with --results runs\n")
    status, out, err = command(*words, "runs", "--results", "runs")
    assert (status, out) == (2, "")
    assert err == "error: results are named twice, runs and --results runs: drop one\n"
