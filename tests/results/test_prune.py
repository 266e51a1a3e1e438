"""What `prune` removes, and what it never touches."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from factory import make_record, write_record
from filelock import FileLock

from dfkd_bench.errors import UsageError
from dfkd_bench.results import prune
from dfkd_bench.results.prune import leftovers, remove


def run_folder(root: Path, seed: int, *, status: str | None = None, **files: int) -> Path:
    """A run's folder with files of these sizes (`snapshots` is a folder), and a record where a status is given."""
    record = make_record(seed=seed, **({"status": status} if status else {}))
    if status:
        folder = write_record(root, record).parent
    else:
        folder = root / "1.0" / "digits16_cnn32-cnn16" / "alpha" / f"pinned-quick-s{seed}-{record['hash']}"
        folder.mkdir(parents=True)
    for name, size in files.items():
        path = folder / {"checkpoint": "checkpoint.pt", "snapshots": "snapshots/student.safetensors"}.get(name, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * size)
    return folder


def plan(root: Path, name: str, *folders: Path) -> Path:
    path = root / "plans" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"runs": [{"folder": str(f.relative_to(root)), "spec": {}} for f in folders]}))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_kind_is_found_and_goes(tmp_path: Path) -> None:
    finished = run_folder(tmp_path, 0, status="complete", checkpoint=10, snapshots=5)
    (finished / ".record.json.77.tmp").write_bytes(b"xy")
    diverged = run_folder(tmp_path, 1, status="diverged", snapshots=3)
    tidy = run_folder(tmp_path, 2, status="complete")
    interrupted = run_folder(tmp_path, 3, checkpoint=100, snapshots=1)
    (interrupted / ".lock").touch()
    failed = run_folder(tmp_path, 4, status="failed", checkpoint=7)
    done, open_ = plan(tmp_path, "done", finished, diverged), plan(tmp_path, "open", finished, interrupted)
    old, new = tmp_path / ".leaderboard.csv.1.tmp", tmp_path / ".leaderboard.csv.2.tmp"
    for path in (old, new):
        path.write_bytes(b"1234")
    os.utime(old, (time.time() - 7200,) * 2)

    found = leftovers(tmp_path)
    assert [(i.kind, i.path, i.size) for i in found] == [
        *sorted([("finished", finished, 17), ("finished", diverged, 3)], key=lambda i: i[1]),
        ("interrupted", interrupted, 101), ("temporary", old, 4), ("plan", done, done.stat().st_size),
    ]  # fmt: skip
    assert all(remove(item) for item in found)
    for folder in (finished, diverged, tidy):
        assert names(folder) == {"record.json"}
    assert not interrupted.exists()
    assert names(failed) == {"record.json", "checkpoint.pt"}
    assert open_.exists()
    assert new.exists()
    assert not done.exists()
    assert not old.exists()
    assert leftovers(tmp_path) == []


def test_a_run_that_somebody_is_at_is_left_in_peace(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, 0, checkpoint=10)
    (item,) = leftovers(tmp_path)
    with FileLock(folder / ".lock"):
        assert leftovers(tmp_path) == []
        assert not remove(item)  # taken up between the look and the answer
    assert names(folder) >= {"checkpoint.pt"}
    beat = {"host": "elsewhere", "pid": 1, "round": 1, "rounds": 2, "seconds": 1.0, "restarted_at": 0}
    (folder / "running.json").write_text(json.dumps(beat))  # where locks do not reach
    assert leftovers(tmp_path) == []
    (folder / "running.json").write_text(json.dumps({**beat, "host": socket.gethostname(), "pid": 2**22 + 1}))
    assert [i.path for i in leftovers(tmp_path)] == [folder]  # its process is dead


def test_a_run_that_went_on_in_the_meantime_stays(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, 0, checkpoint=10)
    (item,) = leftovers(tmp_path)
    (folder / "checkpoint.pt").write_bytes(b"x" * 11)
    assert not remove(item)
    assert (folder / "checkpoint.pt").exists()


def test_what_is_no_run_is_not_looked_at(tmp_path: Path) -> None:
    broken = run_folder(tmp_path, 0, status="complete", checkpoint=10)
    (broken / "record.json").write_text("{")
    other = tmp_path / "1.0" / "task" / "method" / "my notes"
    other.mkdir(parents=True)
    (other / "checkpoint.pt").write_bytes(b"x")
    assert leftovers(tmp_path) == []
    assert not (broken / ".lock").exists()
    with pytest.raises(UsageError, match="no results folder"):
        leftovers(tmp_path / "none")


def test_the_command_asks_for_plans_apart(tmp_path: Path, command: Command, monkeypatch: Any) -> None:
    root = tmp_path / "runs"
    finished = run_folder(root, 0, status="complete", checkpoint=1500)
    kept = plan(root, "done", finished)
    asked: list[str] = []

    def answer(text: str) -> bool:
        asked.append(text)
        return "plan" not in text

    monkeypatch.setattr("click.confirm", answer)
    status, out, _ = command("prune", "--results", root, "--dry-run")
    assert (status, asked) == (0, [])
    assert "1.5 kB" in out
    assert "plans/done.json" in out
    assert (finished / "checkpoint.pt").exists()
    status, out, _ = command("prune", "--results", root)
    assert asked == ["Remove 1.5 kB of leftovers?", "Remove 1 plan?"]
    assert "removed 1 leftover, 1.5 kB" in out
    assert names(finished) == {"record.json"}
    assert kept.exists()
    status, out, _ = command("prune", "--results", root, "--yes")
    assert not kept.exists()
    assert len(asked) == 2
    assert "nothing to remove" in command("prune", "--results", root)[1]


def test_the_form_of_a_run_s_name_is_the_specification_s() -> None:
    from dfkd_bench.runs.spec import RunSpec

    folder = RunSpec.from_json(make_record()["spec"]).folder
    assert prune.RUN_NAME.fullmatch(folder.rpartition("/")[2])
