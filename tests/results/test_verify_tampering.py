"""`verify` finds and names whatever is changed in results after their runs, however consistently."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forgeries as by
import pytest
import torch
from forge import Forger, flip, said

from dfkd_bench import models
from dfkd_bench.protocol import PROTOCOL, task
from dfkd_bench.results.verify import integrity, verify
from dfkd_bench.teachers.registry import Teacher, register, teacher_for


@dataclass(frozen=True)
class Case:
    forge: by.Forgery
    file: str  # that has to be named
    says: str
    full: bool = False  # only an evaluation of the student finds it


RUN = "scratch/pinned-smoke-s0-"
RECORD, CURVES, PREDICTIONS = (f"{RUN}HASH/{n}" for n in ("record.json", "curves.csv", "predictions.safetensors"))
CASES = {
    "edited accuracy": Case(by.edited("result.accuracy", seal=False, last=99.0),
                            RECORD, "its seal does not match its content"),
    "edited accuracy, sealed": Case(by.edited("result.accuracy", last=99.0),
                                    RECORD, "accuracy.last is 99.0, curves.csv gives"),
    "edited accuracy with curves": Case(by.accuracy_with_curves, RECORD, "accuracy.last is 99.0, predictions"),
    "edited accuracy with curves and predictions": Case(
        by.accuracy_with_predictions, PREDICTIONS, "has other predictions than student.safetensors", full=True
    ),
    "oracle copied into last": Case(by.oracle_as_last, RECORD, "accuracy.last is 98.0, curves.csv gives"),
    "swapped students, digests fitted": Case(
        by.swap("student.safetensors"), PREDICTIONS, "has other predictions than student.safetensors", full=True
    ),
    "swapped predictions, digests fitted": Case(
        by.swap("predictions.safetensors"), PREDICTIONS, "has other predictions than student.safetensors", full=True
    ),
    "other samples, digests fitted": Case(
        by.tensors("samples.safetensors", lambda t: t["images"].mul_(1.1), "good_Good"),
        "good_Good", "samples.diversity is", full=True
    ),
    "flipped bit in student": Case(by.flipped("student.safetensors"), f"{RUN}HASH/student.safetensors", "has SHA-256"),
    "flipped bit in predictions": Case(by.flipped("predictions.safetensors"), PREDICTIONS, "has SHA-256"),
    "flipped bit in samples": Case(
        by.flipped("samples.safetensors", "good_Good"), "s0-HASH/samples.safetensors", "has SHA-256"
    ),
    "flipped bit in curves": Case(by.flipped("curves.csv"), CURVES, "has SHA-256"),
    "flipped bit in generator": Case(
        by.flipped("generator.safetensors", "good_Good"), "s0-HASH/generator.safetensors", "has SHA-256"
    ),
    "flipped bit in record": Case(by.flipped("record.json"), RECORD, ""),
    "flipped bit in table": Case(by.bit_of_the_table, "leaderboard.csv", "row scratch"),
    "another teacher in the manifest": Case(by.edited("manifest.teacher", sha256="ab" * 32),
                                            RECORD, "manifest.teacher.sha256 is abab"),
    "edited teacher hash": Case(by.teacher_hash, RECORD, "the specification was changed"),
    "edited dataset hash, all fitted": Case(
        by.in_spec(data="cd" * 32), RECORD, "spec.data is cdcdcdcdcdcd, the protocol's"
    ),
    "edited seed": Case(by.edited("spec", seed=9), RECORD, "the specification was changed"),
    "edited hash": Case(by.edited(hash="0" * 12), RECORD, "the record says 000000000000"),
    "one run sold as two seeds": Case(by.as_another_seed, "pinned-smoke-s7-", "has the same student as"),
    "renamed method": Case(by.edited("spec", method="mine"), RECORD, "hash"),
    "renamed method, all fitted": Case(
        by.in_spec(method="noise"), "noise/pinned-smoke-s0-HASH/record.json", "its code is that of scratch"
    ),
    "moved folder": Case(by.moved, "scratch/pinned-smoke-s4-", "its specification belongs in"),
    "duplicate in another folder": Case(
        by.elsewhere, f"again/{PROTOCOL}/digits16_cnn32-cnn16/{RECORD}", "a second time"
    ),
    "edited cell of the table": Case(by.cell, "leaderboard.csv", "column last_mean holds 98.75, the records give"),
    "a row left out of the table": Case(by.row_gone, "leaderboard.csv", "has no row scratch"),
    "a row made up": Case(by.row_made_up, "leaderboard.csv", "has a row mine"),
    "a column renamed": Case(by.column_gone, "leaderboard.csv", "n_failed missing, n_lost unknown"),
    "missing record, the table has it": Case(
        by.run_gone, "leaderboard.csv", "column n_complete holds 2, the records give 1"
    ),
    "missing record, its files are here": Case(by.gone("record.json"), RECORD, "is missing"),
    "missing predictions": Case(by.gone("predictions.safetensors"), PREDICTIONS, "is missing, and the record names it"),
    "truncated record": Case(by.record_cut, RECORD, "is not a record of dfkd-bench"),
    "removed seal": Case(by.unsealed, RECORD, "has no seal"),
    "an older schema": Case(by.schema_1, RECORD, "says schema 1"),
    "the same key twice": Case(by.said_twice, RECORD, "is not as dfkd-bench writes it"),
    "edited count of steps": Case(
        by.edited("result.counts", student_steps=10), RECORD, "counts.student_steps is 10, the schedule gives 30"
    ),
    "edited count of passes": Case(
        by.edited("result.counts", student_forwards=10),
        RECORD, "counts.student_images is 3840, more than counts.student_forwards (10)"
    ),
    "edited settings": Case(by.edited("manifest.settings.method", of="good_Good", width=64),
                            "good_Good", "manifest.settings.method.width is 64, the specification says 16"),
    "edited settings, all fitted": Case(
        by.in_spec(settings={"label_smoothing": 0.5}), RECORD, "manifest.settings.method.label_smoothing is 0.0"
    ),
    "edited schedule": Case(by.edited("manifest.settings.schedule", rounds=3),
                            RECORD, "manifest.settings.schedule.rounds is 3"),
    "edited recipe": Case(by.edited("manifest.settings.recipe", lr=0.5),
                          RECORD, "settings.recipe.lr is 0.5, track pinned and budget smoke give 0.1"),
    "edited agreement": Case(by.edited("result.fidelity", agreement=99.0), RECORD, "agreement is 99.0, predictions"),
    "edited calibration": Case(by.edited("result.fidelity", ece=0.01), RECORD, "fidelity.ece is 0.01, predictions"),
    "edited divergence": Case(by.edited("result.fidelity", kl=0.01), RECORD, "fidelity.kl is 0.01, student", full=True),
    "edited teacher's accuracy": Case(
        by.edited("result.fidelity", teacher_top1=99.9), RECORD, "fidelity.teacher_top1 is 99.9"
    ),
    "edited diversity": Case(by.edited("result.samples", of="good_Good", diversity=0.9),
                             "good_Good", "samples.diversity is 0.9, samples", full=True),
    "edited distance to the test images": Case(by.edited("result.realism", of="good_Good", recall=0.9),
                                               "good_Good", "realism.recall is 0.9, samples", full=True),
    "edited convergence": Case(
        by.edited("result.convergence", area=97.0), RECORD, "convergence.area is 97.0, curves.csv gives"
    ),
    "edited confidences": Case(by.tensors("predictions.safetensors", by.wrong_confidence),
                               PREDICTIONS, "image 17, student_confidence is 0.5", full=True),
    "edited labels": Case(by.tensors("predictions.safetensors", by.wrong_label),
                          PREDICTIONS, "its labels are not those of digits16", full=True),
    "dropped row of the curves": Case(by.curve_row, CURVES, "has 2 rows, the schedule has 3 snapshots"),
    "truncated student": Case(by.truncated, f"{RUN}HASH/student.safetensors", "has SHA-256"),
    "truncated student, digests fitted": Case(
        by.truncated_settled, f"{RUN}HASH/student.safetensors", "is not a cnn16", full=True
    ),
    "another student, digests fitted": Case(
        by.tensors("student.safetensors", by.other_weights), PREDICTIONS, "student.safetensors gives", full=True
    ),
    "a generator with less in it": Case(by.tensors("generator.safetensors", by.less_weights, "good_Good"),
                                        "good_Good", "generator_parameters is"),
    "edited seconds": Case(by.edited("measurement", seconds_total=1.0),
                           RECORD, "measurement.seconds_total is 1.0, its parts give"),
    "seconds beyond the dates": Case(by.seconds_longer_than_the_run, RECORD, "started and ended differ by"),
    "a hidden alarm": Case(by.alarm_hidden, "good_Good", "alarms is []"),
}  # fmt: skip


# what today's terms alone tell, and so of no earlier version
TODAY = ("edited recipe", "renamed method, all fitted", "edited dataset hash, all fitted")
EARLIER = {name: case for name, case in CASES.items() if name not in TODAY} | {
    "edited schedule": Case(
        by.edited("manifest.settings.schedule", rounds=3),
        RECORD,
        "counts.student_steps is 30, the schedule gives",
    ),
    "duplicate in another folder": Case(by.elsewhere, f"again/1.1/digits16_cnn32-cnn16/{RECORD}", "a second time"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_tampering_is_found_and_named(forger: Forger, name: str) -> None:
    check_found(forger, CASES[name], name)


@pytest.mark.long
@pytest.mark.parametrize("name", EARLIER)
def test_tampering_with_an_earlier_protocol_is_found_and_named(forger: Forger, name: str) -> None:
    by.of_another_protocol(forger)
    check_found(forger, EARLIER[name], name)


def check_found(forger: Forger, case: Case, name: str) -> None:
    case.forge(forger)
    report = verify(forger.root, quick=not case.full)
    head, _, tail = case.file.partition("HASH")
    hits = [f for f in report.problems if head in f.file and tail in f.file and case.says in f.what]
    assert hits, said(report)
    print(f"{name}: {hits[0]}")  # `pytest -rP` shows what is said of each
    if case.full:
        assert not [f for f in verify(forger.root, quick=True).problems if f in hits]  # the student was needed


@pytest.mark.parametrize("version", ["1.1", "9.0"])
def test_records_of_another_protocol_are_held_to_themselves(forger: Forger, version: str) -> None:
    by.of_another_protocol(forger, version)
    report = verify(forger.root)
    assert said(report) == ""
    assert (report.records, report.students, report.exact) == (3, 3, 3)
    (told,) = (f for f in report.notes if "protocol" in f.what)
    age = "an earlier" if version == "1.1" else "a later"
    of = f"of protocol {version}, {age} version: checked only against"
    assert str(told) == f"results: 3 records {of} their own files"
    (alone,) = verify(forger.folder(), quick=True).notes
    assert str(alone) == f"{forger.folder().name}: 1 record {of} its own files"


def test_the_same_records_do_not_pass_as_today_s(forger: Forger) -> None:
    by.of_another_protocol(forger, PROTOCOL)
    report = verify(forger.root, quick=True)
    assert said(report).count("StudentRecipe.__init__() got an unexpected keyword argument 'of_before'") == 3
    assert not [f for f in report.notes if "checked only against" in f.what]


def test_another_protocol_may_have_had_other_tasks_and_data(forger: Forger) -> None:
    by.of_another_protocol(forger, task="digits16/cnn99-cnn16", data="cd" * 32)
    report = verify(forger.root)
    assert (said(report), report.students) == ("", 0)
    assert [f.what for f in report.notes if "evaluated again" in f.what] == [
        "nothing was evaluated again: unknown architecture 'cnn99'; did you mean 'cnn32'?"
    ] * 3
    by.edited("result.fidelity", agreement=99.0)(forger)
    assert "agreement is 99.0, predictions" in said(verify(forger.root))


def test_students_are_not_evaluated_on_the_data_of_another_protocol(forger: Forger) -> None:
    by.of_another_protocol(forger, data="cd" * 32)
    report = verify(forger.root)
    assert (said(report), report.students) == ("", 0)
    told = {f.what for f in report.notes if f.file.endswith("record.json")}
    assert told == {
        "spec.data is cdcdcdcdcdcd, the protocol's digits16 has SHA-256 2d5661a7b446: nothing was evaluated again on it"
    }


def test_a_protocol_that_is_no_version_is_a_problem(forger: Forger) -> None:
    by.in_spec(protocol="mine")(forger)
    assert "protocol 'mine' is not a version" in said(verify(forger.root, quick=True))


def test_a_record_of_before_the_distance_to_the_test_images_is_as_good(forger: Forger) -> None:
    forger.edit(lambda r: r["result"].pop("realism"), forger.folder("good_Good"))
    assert forger.folder("good_Good").joinpath("samples.safetensors").is_file()
    found = [f for f in verify(forger.root).problems if f.file != "leaderboard.csv"]
    assert found == []


def test_any_flipped_bit_of_a_record_is_found(forger: Forger) -> None:
    path = forger.folder() / "record.json"
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(300):
        flip(path, chance.random(), chance.randrange(8))
        _, found = integrity(path.parent, forger.root)
        assert any(f.severity == "problem" and f.file.endswith("record.json") for f in found)
        path.write_bytes(whole)
    assert not [f for f in integrity(path.parent, forger.root)[1] if f.severity == "problem"]


def test_another_registered_teacher_is_found_by_its_answers(
    forger: Forger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_BENCH_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    weights = models.build("cnn32", 10, (1, 16, 16)).state_dict()
    top1 = teacher_for(task("digits16/cnn32-cnn16")).top1
    mine = register(Teacher("mine", "digits16", "cnn32", 1, "mine.safetensors", "", top1, "", "me"), weights)

    def blame(record: dict[str, Any]) -> None:
        record["spec"]["teacher"] = mine.sha256
        record["manifest"]["teacher"].update(name="mine", sha256=mine.sha256, top1=top1, origin="me")

    forger.edit(blame)
    forger.settle(move=True)
    forger.table()
    assert said(verify(forger.root, quick=True)) == ""
    found = said(verify(forger.root))
    assert "predictions.safetensors: has other predictions of the teacher than computed here" in found
    flip(mine.path)
    assert "teacher mine: its file has SHA-256" in said(verify(forger.root, quick=True))
