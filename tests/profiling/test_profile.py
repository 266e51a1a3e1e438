"""`dfkd-bench profile`: needs no data and no teacher, and refuses what it cannot time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import dfkd

from dfkd_bench.data import loading

ONE_STEP = ("--set", "synthesis_steps=1", "--set", "student_steps=1")
PROFILE = ("profile", "-m", "cpsc", "--device", "cpu", "--threads", "1", "--rounds", "1", "--batch", "4", *ONE_STEP)


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No dataset may be read, and the user has no teachers of their own."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a profile looked at data")

    for name in ("load", "digest"):
        monkeypatch.setattr(loading, name, refuse)
    monkeypatch.setenv("DFKD_BENCH_HOME", str(tmp_path / "home"))


def test_networks_without_a_teacher_have_random_weights(monkeypatch: Any, capsys: Any) -> None:
    status, out, err = dfkd(monkeypatch, capsys, *PROFILE, "--task", "digits16/cnn16-cnn16")
    assert (status, err) == (0, "")
    assert "no teacher registered for digits16/cnn16-cnn16: random weights are used, which take the same time\n" in out
    status, out, _ = dfkd(monkeypatch, capsys, *PROFILE)
    assert "no teacher" not in out
    steps = [line.split() for line in out.splitlines() if line.split()[:1] in (["synthesis"], ["student"])]
    assert [(row[0], row[1], row[6]) for row in steps] == [("synthesis", "1", "184"), ("student", "1", "118")]  # MFLOP
    status, out, err = dfkd(monkeypatch, capsys, *PROFILE, "--networks", "cnn16-cnn16", "--shape", "1x16x16")
    assert (status, err, "no teacher" in out) == (0, "", False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--threads", "0"), "Invalid value for '--threads'"),
        (("--batch", "0"), "Invalid value for '--batch'"),
        (("--rounds", "0"), "Invalid value for '--rounds'"),
        (("--precision", "bf61"), "unknown precision"),
        (("--task", "digits16/cnn17-cnn16"), "unknown architecture 'cnn17'"),
        (("--networks", "cnn16-cnn16", "-m", "real-kd"), "needs real data"),
    ],
)
def test_the_command_refuses_in_one_line(monkeypatch: Any, capsys: Any, words: tuple[str, ...], says: str) -> None:
    drop = ONE_STEP if "real-kd" in words else ()
    status, _, err = dfkd(monkeypatch, capsys, *[w for w in PROFILE if w not in drop], *words)
    assert (status, err.count("\n")) == (2, 1)
    assert says in err
