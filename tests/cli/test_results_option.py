"""`--results` in every command that reads a results folder; a path as an argument goes on, with a note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import dfkd
from factory import make_record, write_record


@pytest.mark.parametrize("words", [("status",), ("prune", "--dry-run"), ("verify", "--quick")])
def test_a_path_as_an_argument_means_the_option(monkeypatch: Any, capsys: Any, tmp_path: Path, words: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(Path("runs"), make_record())
    named = dfkd(monkeypatch, capsys, *words, "--results", "runs")
    assert named[1]
    assert named[2] == ""
    assert dfkd(monkeypatch, capsys, *words) == named  # runs is the default
    status, out, err = dfkd(monkeypatch, capsys, *words, "runs")
    assert (status, out, err) == (*named[:2], "note: name the results with --results runs\n")
    status, out, err = dfkd(monkeypatch, capsys, *words, "runs", "--results", "runs")
    assert (status, out) == (2, "")
    assert err == "error: results are named twice, runs and --results runs: drop one\n"


def test_an_archive_is_an_argument_of_verify_without_a_note(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("not a zip")
    for words in (["verify"], ["verify", "--results"]):
        status, _, err = dfkd(monkeypatch, capsys, *words, tmp_path / "text.zip")
        assert (status, err.count("\n")) == (2, 1)
        assert "text.zip is neither a folder nor a zip archive" in err
