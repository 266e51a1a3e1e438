"""`dfkd-bench profile` needs no data and no teacher."""

from __future__ import annotations

import pytest
from commands import Printed

from dfkd_bench.data import loading

ONE_STEP = ("--set", "synthesis_steps=1", "--set", "student_steps=1")
PROFILE = ("profile", "-m", "cpsc", "--device", "cpu", "--threads", "1", "--rounds", "1", "--batch", "4", *ONE_STEP)


def test_networks_without_a_teacher_have_random_weights(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load", "digest"):  # no dataset may be read
        monkeypatch.setattr(loading, name, lambda *_, **__: pytest.fail("a profile looked at data"))
    out = printed(*PROFILE, "--task", "digits16/cnn16-cnn16")
    assert "no teacher registered for digits16/cnn16-cnn16: random weights are used, which take the same time\n" in out
    out = printed(*PROFILE)
    assert "no teacher" not in out
    steps = [line.split() for line in out.splitlines() if line.split()[:1] in (["synthesis"], ["student"])]
    assert [(row[0], row[1], row[6]) for row in steps] == [("synthesis", "1", "184"), ("student", "1", "118")]  # MFLOP
    assert "no teacher" not in printed(*PROFILE, "--networks", "cnn16-cnn16", "--shape", "1x16x16")
