"""`dfkd-bench merge`: whole runs are taken, the same skipped; a contradiction is refused by name, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Printed
from filelock import FileLock
from forge import Forger, flip

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.protocol import PROTOCOL
from dfkd_bench.results.merge import merge, plan_merge
from dfkd_bench.results.verify import verify
from dfkd_bench.runs import records
from dfkd_bench.utils import checkpoint


@pytest.fixture
def a(real_results: Path, tmp_path: Path) -> Forger:
    return Forger(real_results, tmp_path / "a")


@pytest.fixture
def b(real_results: Path, tmp_path: Path) -> Forger:
    return Forger(real_results, tmp_path / "b")


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def fail(forger: Forger) -> Path:
    """Turn a run into one that failed."""
    forger.empty(forger.folder(), records.FILE)
    return forger.edit(lambda r: r.update(result={"status": "failed", "error": "no"}, artifacts={}))


def interrupt(forger: Forger) -> Path:
    """Turn a run into one that has not come to its end."""
    folder = forger.folder()
    forger.empty(folder)
    (folder / checkpoint.NAME).write_bytes(b"state")
    return folder


def acts(plan: Any) -> list[str]:
    return sorted(s.act for s in plan.steps)


def test_two_machines_become_one_folder(a: Forger, b: Forger, tmp_path: Path) -> None:
    shutil.rmtree(a.folder(seed=1))
    shutil.rmtree(b.folder(seed=0))
    plan = plan_merge([a.root, b.root], tmp_path / "all")
    assert acts(plan) == ["skip", "take", "take", "take"]  # both have the third
    merge(plan)
    assert len(list(records.read_all(tmp_path / "all"))) == 3
    for forger, seed in ((a, 0), (b, 1)):
        run = forger.folder(seed=seed)
        taken = tree(tmp_path / "all" / run.relative_to(forger.root))
        assert taken == {n: p for n, p in tree(run).items() if n != ".lock"}
    assert verify(tmp_path / "all", quick=True).problems == []
    assert not [p for p in (tmp_path / "all").rglob("*") if p.name.endswith((".tmp", ".old"))]
    assert not (tmp_path / "all" / "leaderboard.csv").exists()
    assert acts(plan_merge([a.root, b.root], tmp_path / "all")) == ["skip"] * 4


def test_a_contradiction_is_refused_by_name_and_nothing_is_written(a: Forger, b: Forger, command: Command) -> None:
    shutil.rmtree(a.folder(seed=1))  # which b could give
    b.edit(lambda r: r["result"]["accuracy"].update(last=99.0))
    before = tree(a.root)
    status, out, err = command("merge", b.root, "--into", a.root)
    run = a.folder().relative_to(a.root).as_posix()
    assert (status, out) == (1, "")
    assert f"refused: {run}: its result in {a.root} is different (in accuracy) (from {b.folder()})" in err
    assert err.splitlines()[-1] == "1 of 3 runs refused: nothing was written"
    assert tree(a.root) == before
    with pytest.raises(RunError, match="nothing was written"):
        merge(plan_merge([b.root], a.root))


def test_two_sources_that_contradict_each_other_are_refused(a: Forger, b: Forger, tmp_path: Path) -> None:
    b.edit(lambda r: r["result"]["accuracy"].update(last=99.0))
    (step,) = plan_merge([a.root, b.root], tmp_path / "all").of("refuse")
    assert (step.source, "is different" in step.why, str(a.root) in step.why) == (b.folder(), True, True)
    assert not (tmp_path / "all").exists()


def test_measurements_may_differ(a: Forger, b: Forger) -> None:
    b.edit(lambda r: r["measurement"].update(peak_memory_bytes=1))
    assert acts(plan_merge([b.root], a.root)) == ["skip"] * 3


def test_a_finished_run_replaces_one_that_failed_and_never_the_other_way(
    a: Forger, b: Forger, printed: Printed
) -> None:
    whole, run = tree(a.folder()), a.folder().relative_to(a.root).as_posix()
    failed = fail(b)
    assert acts(plan_merge([b.root], a.root)) == ["skip"] * 3
    out = printed("merge", a.root, "--into", b.root)
    assert f"replaced: {run}: is finished; the one in {b.root} failed" in out
    assert "1 runs taken, 2 skipped" in out
    assert "write them again with `dfkd-bench leaderboard --results" in out
    assert tree(failed) == {n: p for n, p in whole.items() if n != ".lock"}


def test_a_failed_run_is_a_row_and_comes_along(a: Forger, tmp_path: Path) -> None:
    fail(a)
    merge(plan_merge([a.root], tmp_path / "all"))
    found = sorted(record["result"]["status"] for record in records.read_all(tmp_path / "all"))
    assert found == ["complete", "complete", "failed"]


def test_what_has_not_come_to_its_end_stays_where_it_is(a: Forger, b: Forger, tmp_path: Path) -> None:
    for forger in (a, b):
        interrupt(forger)
    plan = plan_merge([a.root], tmp_path / "all")
    assert acts(plan) == ["skip", "take", "take"]
    merge(plan)
    assert not list((tmp_path / "all").rglob(checkpoint.NAME))


def test_a_finished_run_replaces_one_under_way_and_spares_one_that_is_being_run(a: Forger, b: Forger) -> None:
    folder = interrupt(b)
    with FileLock(folder / ".lock"):
        (step,) = plan_merge([a.root], b.root).of("refuse")
        assert f"another process is executing it in {b.root}" in step.why
    plan = plan_merge([a.root], b.root)
    (step,) = plan.of("replace")
    assert "is not" in step.why
    merge(plan)
    assert records.read(folder)["result"]["status"] == "complete"
    assert not (folder / checkpoint.NAME).exists()


def test_a_run_that_is_being_written_at_its_source_is_not_taken(a: Forger, tmp_path: Path) -> None:
    with FileLock(a.folder() / ".lock"):
        (step,) = plan_merge([a.root], tmp_path / "all").of("refuse")
    assert f"another process is executing it in {a.root}" in step.why


@pytest.mark.parametrize("name", ["student.safetensors", "predictions.safetensors", "curves.csv", "record.json"])
def test_a_damaged_run_is_refused_by_name(a: Forger, tmp_path: Path, name: str) -> None:
    flip(a.folder() / name)
    (step,) = plan_merge([a.root], tmp_path / "all").of("refuse")
    assert name in step.why
    assert step.run == a.folder().relative_to(a.root).as_posix()


def test_runs_without_weights_come_as_they_are(a: Forger, tmp_path: Path) -> None:
    (a.folder() / "student.safetensors").unlink()
    merge(plan_merge([a.root], tmp_path / "all"))
    assert len(list(records.find(tmp_path / "all"))) == 3


def test_a_copy_that_went_wrong_does_not_count(a: Forger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dfkd_bench.results.merge as merging

    real = shutil.copytree

    def lossy(source: Path, target: Path, **options: Any) -> None:
        real(source, target, **options)
        flip(Path(target) / "student.safetensors")

    monkeypatch.setattr(merging.shutil, "copytree", lossy)
    with pytest.raises(RunError, match=r"student.safetensors has a wrong digest"):
        merge(plan_merge([a.root], tmp_path / "all"))
    assert list(records.find(tmp_path / "all")) == []
    assert tree(tmp_path / "all") == {}


def test_a_dry_run_writes_nothing(a: Forger, tmp_path: Path, printed: Printed) -> None:
    out = printed("merge", a.root, "--into", tmp_path / "all", "--dry-run")
    assert out.count(f"to take: {PROTOCOL}/digits16_cnn32-cnn16/") == 3
    assert out.splitlines()[-1] == f"3 runs to take, 0 skipped: {tmp_path / 'all'}"
    assert not (tmp_path / "all").exists()


def test_folders_that_are_none(a: Forger, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for source, into, says in (
        ("nowhere", "all", "no results folder at"),
        ("empty", "all", "no records below"),
        ("a", "a", "is the folder to merge into"),
        ("a", "file", "is a file, not a folder"),
    ):
        with pytest.raises(UsageError, match=says):
            plan_merge([tmp_path / source], tmp_path / into)


def test_a_run_in_the_wrong_place_is_refused(a: Forger, tmp_path: Path) -> None:
    folder = a.folder()
    folder.rename(folder.with_name("elsewhere"))
    (step,) = plan_merge([a.root], tmp_path / "all").of("refuse")
    assert "its specification belongs in" in step.why
    assert json.loads((folder.with_name("elsewhere") / records.FILE).read_text())["hash"] in step.why
