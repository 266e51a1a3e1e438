"""A run survives being killed at any moment, and ends in the same bytes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from smoke_runs import GOOD, TESTS, edited_good, plan_one, start, stop_at

from dfkd_bench.errors import RunError
from dfkd_bench.plugins.registry import entries
from dfkd_bench.runs import records
from dfkd_bench.training import loop, storage
from dfkd_bench.utils import files


def kill_and_resume(*words: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(TESTS / "helpers" / "kill_and_resume.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.long
def test_a_killed_run_ends_in_the_same_bytes_and_the_script_sees_one_that_does_not(tmp_path: Path) -> None:
    forgotten = ("self.seen = context.state(", 'self.seen = type("Cell", (), {"value": 0})()  # ')
    words = ["--method", GOOD, "--method", edited_good(tmp_path / "forgetful.py", forgotten), "--point", "synthesis"]
    status, (good, bad) = kill_and_resume(*words)
    assert good == "good:Good: killed at synthesis 8: identical, resumed from a checkpoint: 1 x"
    assert bad.startswith("forgetful:Good: killed at synthesis 8: FAILED student.safetensors; curves.csv")
    assert status == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_method_survives_every_fail_point() -> None:
    status, lines = kill_and_resume("--method", "all", "--method", GOOD)
    assert status == 0, lines
    assert len(lines) >= 9 + 4 * 7


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_method_survives_a_kill_in_synthesis_and_one_at_a_checkpoint() -> None:
    status, lines = kill_and_resume("--method", "all", "--quick")
    assert status == 0, lines
    told = r"([\w-]+): killed at (synthesis|distillation) \d+, then checkpoint-rename 1: identical, resumed .*: 1 x"
    assert [found[1] for line in lines if (found := re.fullmatch(told, line))] == list(entries())


def test_what_is_set_for_one_method_is_set_for_no_other() -> None:
    from kill_and_resume import quick, settings_of
    from small import SMALL

    texts = ["alpha=1", "cmi.iterations=5", "nayer.g_steps=2", "alpha=2=3"]
    assert settings_of("cmi", texts, False) == {"alpha": "2=3", "iterations": "5"}
    assert settings_of("dafl", texts, False) == {"alpha": "2=3"}
    assert settings_of("cmi", texts, True) == {k: str(v) for k, v in SMALL["cmi"].items()} | {
        "alpha": "2=3", "iterations": "5",
    }  # fmt: skip
    assert [str(k) for k in quick({"synthesis": 6, "distillation": 9})] == ["synthesis 4, then checkpoint-rename 1"]
    assert [str(k) for k in quick({"synthesis": 0, "distillation": 9})] == ["distillation 5, then checkpoint-rename 1"]


def test_fail_points_are_counted_with_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method whose warm-up is a share of the run passes them as often as the script believes."""
    from kill_and_resume import passings

    counts: dict[str, int] = {}

    def count(name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    for module in (loop, storage, files, sys.modules["dfkd_bench.metrics.evaluate"]):
        monkeypatch.setattr(module, "fail_point", count)
    overrides: dict[str, Any] = {"k": 1, "warmup": 0.4, "student_steps": 10}
    planned = plan_one(tmp_path, "fastdfkd", overrides=overrides)
    record = start(planned, tmp_path, checkpoint_seconds=-1.0).record
    assert record["manifest"]["settings"]["schedule"]["warmup_rounds"] == 2
    assert counts == passings(record, planned)
    assert counts["synthesis"] == counts["checkpoint-rename"] == 5


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The record of a run never interrupted."""
    results = tmp_path_factory.mktemp("whole")
    return start(plan_one(results), results).record


@pytest.mark.long
@pytest.mark.parametrize(("phase", "round"), [("training", 7), ("evaluation", 10)])
def test_ctrl_c_is_a_restart_as_any_other(tmp_path: Path, whole: dict, phase: str, round: int) -> None:
    planned = plan_one(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        start(planned, tmp_path, callback=stop_at(round, phase))
    assert plan_one(tmp_path).state == "interrupted"
    again = start(planned, tmp_path).record
    assert records.canonical(again["result"]) == records.canonical(whole["result"])
    assert again["measurement"]["restarts"] == 1
    assert plan_one(tmp_path).state == "done"


@pytest.mark.long
def test_a_diverged_run_killed_in_its_evaluation_is_the_same_diverged_run(tmp_path: Path) -> None:
    loss = "return F.mse_loss(student.logits, teacher.logits)"
    word = edited_good(tmp_path / "diverging.py", (loss, f"{loss} / (self.context.progress.round != 6)"))
    whole = start(plan_one(tmp_path / "whole", word), tmp_path / "whole").record
    assert whole["result"]["status"] == "diverged"
    planned = plan_one(tmp_path, word)
    with pytest.raises(KeyboardInterrupt):
        start(planned, tmp_path, callback=stop_at(5, "evaluation"))
    again = start(planned, tmp_path).record
    assert again["result"]["counts"] == whole["result"]["counts"]
    assert records.canonical(again["result"]) == records.canonical(whole["result"])


@pytest.mark.long
def test_a_damaged_checkpoint_is_one_line_and_force_starts_over(tmp_path: Path, whole: dict) -> None:
    planned = plan_one(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        start(planned, tmp_path, callback=stop_at(7))
    file = tmp_path / planned.spec.folder / "checkpoint.pt"
    payload = bytearray(file.read_bytes())
    for damaged in (payload[: len(payload) // 2], b"", bytes(payload[:-1]) + bytes([payload[-1] ^ 1])):
        file.write_bytes(damaged)
        with pytest.raises(RunError, match=r"^checkpoint .* is damaged: start the run over with --force$"):
            start(planned, tmp_path)
        assert plan_one(tmp_path).state == "failed"
    again = start(planned, tmp_path, force=True).record
    assert records.canonical(again["result"]) == records.canonical(whole["result"])
    assert again["measurement"]["restarts"] == 0
