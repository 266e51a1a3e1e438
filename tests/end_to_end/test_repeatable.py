"""One specification, one result: in another process, beside other processes, and after any change of the request."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kill_and_resume import FILES, differences
from safetensors.torch import load_file
from smoke_runs import GOOD, edited_good, plan_one, start

from dfkd_bench.errors import RunError
from dfkd_bench.plugins.registry import entries, load
from dfkd_bench.protocol import BOUNDS, task
from dfkd_bench.runs import records
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.progress import ProgressEvent
from dfkd_bench.teachers.registry import load_teacher
from dfkd_bench.training.build import allowed_privileges, assemble
from dfkd_bench.training.runner import Outcome
from dfkd_bench.utils import checkpoint


def in_another_process(results: Path) -> subprocess.CompletedProcess[str]:
    words = ["run", "-m", GOOD, "--budget", "smoke", "--threads", "1", "--device", "cpu", "--quiet"]
    command = [sys.executable, "-m", "dfkd_bench", *words, "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("first")


@pytest.fixture(scope="module")
def first(results: Path) -> Outcome:
    return start(plan_one(results), results)


@pytest.mark.long
def test_another_process_gets_the_same_bytes(first: Outcome, tmp_path: Path) -> None:
    torch.rand(7)  # this process is somewhere else in its global random streams, and has run other things
    done = in_another_process(tmp_path)
    assert done.returncode == 0, done.stderr
    other = tmp_path / plan_one(tmp_path).spec.folder
    assert differences(other, first.folder) == []
    assert records.read(other)["hash"] == first.record["hash"]


def test_another_seed_is_another_student(first: Outcome, tmp_path: Path) -> None:
    other = start(plan_one(tmp_path, seed=1), tmp_path)
    one, two = (load_file(o.folder / "student.safetensors") for o in (first, other))
    assert all(not torch.equal(one[k], two[k]) for k in one if not k.endswith("num_batches_tracked"))
    assert other.record["hash"] != first.record["hash"]
    assert (
        other.record["result"]["files"]["samples.safetensors"] != first.record["result"]["files"]["samples.safetensors"]
    )


def test_every_method_starts_from_the_same_student(tmp_path: Path) -> None:
    """The digest before training is the same for all methods of a seed, whatever they draw before it."""

    def initial(planned: PlannedRun) -> str:
        torch.manual_seed(len(planned.spec.method))
        kind, device, chosen = load(planned.method), torch.device("cpu"), task(planned.spec.task)
        teacher, allowed = load_teacher(planned.teacher, device), allowed_privileges(planned.method)
        job, _ = assemble(planned.spec, chosen, kind, allowed, teacher, device, storage=None)
        return checkpoint.digest(job.student.state_dict())

    names = [GOOD, *(e.name for e in entries().values() if e.owner == "dfkd-bench")]
    assert len(names) > len(BOUNDS) + 1
    for seed in (0, 5):
        assert len({initial(plan_one(tmp_path, name, seed)) for name in names}) == 1
    assert initial(plan_one(tmp_path, seed=0)) != initial(plan_one(tmp_path, seed=5))


# -- the folder of a run ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_second_process_at_one_run_is_refused_in_one_line(first: Outcome, tmp_path: Path) -> None:
    planned = plan_one(tmp_path)
    seen = []

    def meddle(event: ProgressEvent) -> None:
        if event.round == 7 and event.phase == "training" and not seen:
            before = sorted(p.name for p in (tmp_path / planned.spec.folder).iterdir())
            seen.append(in_another_process(tmp_path))
            assert sorted(p.name for p in (tmp_path / planned.spec.folder).iterdir()) == before

    mine = start(planned, tmp_path, callback=meddle)
    said = f"error: another process is working on this run ({tmp_path / planned.spec.folder}): wait for it\n"
    assert (seen[0].returncode, seen[0].stdout, seen[0].stderr) == (1, "", said)
    assert records.canonical(mine.record["result"]) == records.canonical(first.record["result"])


@pytest.mark.long
def test_a_finished_run_is_skipped_and_force_redoes_it(results: Path, first: Outcome) -> None:
    before = (first.folder / records.FILE).read_bytes()
    planned = plan_one(results)
    assert planned.state == "done"
    again = start(planned, results, callback=lambda event: pytest.fail("a finished run was run again"))
    assert again.skipped
    assert (first.folder / records.FILE).read_bytes() == before

    (first.folder / "stale.txt").write_text("of an older run")
    forced = start(planned, results, force=True)
    assert not forced.skipped
    assert not (first.folder / "stale.txt").exists()
    assert records.canonical(forced.record["result"]) == records.canonical(first.record["result"])


def test_a_record_written_while_a_process_waited_is_not_overwritten(
    results: Path, first: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process finishes between this one's look at the folder and its lock."""
    real = records.finished
    calls = []

    def late(root: Path, spec) -> dict | None:
        calls.append(root)
        return None if len(calls) == 1 else real(root, spec)

    monkeypatch.setattr(records, "finished", late)
    outcome = start(plan_one(results), results, callback=lambda event: pytest.fail("a finished run was run again"))
    assert outcome.skipped
    assert outcome.record["result"] == first.record["result"]


def test_a_run_leaves_what_it_says_and_nothing_else(first: Outcome) -> None:
    names = {p.name for p in first.folder.iterdir()} - {".lock"}
    assert names == {records.FILE, *FILES}
    assert {*first.record["result"]["files"], *first.record["artifacts"]} == set(FILES)
    assert set(first.record["artifacts"]) == {records.GENERATOR}  # outside of what is compared byte for byte


@pytest.mark.long
def test_a_record_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    """Whatever is renamed onto the record's name parses, and a disk that fills up leaves no piece of one."""
    planned = plan_one(tmp_path)
    import dfkd_bench.utils.files as files

    whole, real = [], files.os.replace

    def full_disk(source: Path, target: Path) -> None:
        if Path(target).name == records.FILE:
            record = json.loads(Path(source).read_text())
            whole.append(record["result"]["status"])
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(RunError, match=r"^cannot write .*record\.json: No space left on device; free some space"):
        start(planned, tmp_path)
    folder = tmp_path / planned.spec.folder
    assert whole[0] == "complete"
    assert not (folder / records.FILE).exists()
    assert not list(folder.glob(".*.tmp"))
    monkeypatch.undo()
    assert plan_one(tmp_path).state == "interrupted"
    assert start(planned, tmp_path).record["result"]["status"] == "complete"


# -- what makes it another run ----------------------------------------------------------------------------------------


def test_an_edited_file_or_helper_is_another_run(tmp_path: Path) -> None:
    path, helper = tmp_path / "mine.py", tmp_path / "helper.py"
    helped = ("import torch\n", "import helper\nimport torch\n")
    word = edited_good(path, helped)
    helper.write_text("A = 1\n")
    before = plan_one(tmp_path, word).spec
    (tmp_path / "bystander.py").write_text("B = 1\n")
    assert plan_one(tmp_path, word).spec == before
    helper.write_text("A = 2\n")
    assert plan_one(tmp_path, word).spec.hash != before.hash
    helper.write_text("A = 1\n")
    edited_good(path, helped, ("0.01 * self.seen", "0.02 * self.seen"))
    after = plan_one(tmp_path, word).spec
    assert (after.hash, after.folder) != (before.hash, before.folder)
    assert replace(after, code=before.code) == before


def test_every_part_of_a_specification_is_in_its_hash(first: Outcome) -> None:
    spec = plan_one(Path()).spec
    changes = {
        "task": "x", "method": "x", "preset": "x", "overrides": (("a", 1),), "track": "recipe", "budget": "full",
        "seed": 9, "device": "cuda", "precision": "bf16", "compile": True, "threads": 3, "teacher": "x", "data": "x",
        "code": "x", "settings": (("a", 1),), "protocol": "9.9",
    }  # fmt: skip
    assert set(changes) == set(spec.to_json())
    hashes = {spec.hash, *(replace(spec, **{k: v}).hash for k, v in changes.items())}
    assert len(hashes) == len(changes) + 1


DECLARED = 'task_settings = (("wide", "digits16/*", {"lr": 0.02}),)'


def test_a_setting_for_another_task_leaves_the_run_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    before = plan_one(tmp_path, edited_good(path)).spec
    for data, other in (("mnist", False), ("digits16", True)):
        changed = f'task_settings = (("*", "{data}/*", {{"lr": 0.02}}),)'
        after = plan_one(tmp_path, edited_good(path, (DECLARED, changed))).spec
        assert after.code == before.code
        assert (after.hash != before.hash) is other
        assert (dict(after.settings)["lr"] == 0.02) is other


def test_settings_of_a_budget_come_after_those_of_a_task_and_before_set(tmp_path: Path) -> None:
    layers = 'task_settings = (("*", "digits16/*", {"lr": 0.02}),)\n    budget_settings = {"smoke": {"lr": 0.5}}'
    word = edited_good(tmp_path / "mine.py", (DECLARED, layers))

    def rate(budget: str, **overrides: float) -> float:
        return float(dict(plan_one(tmp_path, word, budget=budget, overrides=overrides).spec.settings)["lr"])

    assert (rate("quick"), rate("smoke"), rate("smoke", lr=0.7)) == (0.02, 0.5, 0.7)
