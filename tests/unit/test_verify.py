"""`verify` passes what runs left, and finds and names whatever is changed afterwards, however consistently."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from forge import Forger, flip

from dfkd_bench import models, records
from dfkd_bench.report.docs import tables_of, write_docs
from dfkd_bench.report.leaderboard import leaderboard
from dfkd_bench.report.table import load_results
from dfkd_bench.teachers.registry import Teacher, register, teacher_for
from dfkd_bench.verification import Report, integrity, verify
from dfkd_bench.verification.sums import FILE as SUMS
from dfkd_bench.verification.sums import write_sums

Forgery = Callable[[Forger], Any]


@pytest.fixture
def forger(real_results: Path, tmp_path: Path) -> Forger:
    return Forger(real_results, tmp_path / "results")


def said(report: Report) -> str:
    return "\n".join(map(str, report.problems))


# -- what runs left ---------------------------------------------------------------------------------------------------


def test_clean_results_pass_bit_for_bit(real_results: Path) -> None:
    report = verify(real_results)
    assert said(report) == ""
    assert (report.records, report.students, report.exact) == (3, 3, 3)
    assert report.renderings == ("leaderboard.csv",)
    assert {f.what.partition(" is ")[0] for f in report.notes} == {"method good:Good"}  # no file plugin is installed


def test_quick_evaluates_no_student(real_results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfkd_bench.verification.students.load_teacher", lambda *_: pytest.fail("a teacher was loaded"))
    report = verify(real_results, quick=True)
    assert (said(report), report.records, report.students) == ("", 3, 0)


def test_without_weights_the_numbers_are_checked_against_what_is_stored(forger: Forger) -> None:
    for name in ("student.safetensors", "samples.safetensors", "generator.safetensors"):
        for path in forger.root.rglob(name):
            path.unlink()
    report = verify(forger.root)
    assert said(report) == ""
    assert report.students == 0
    assert sum("student.safetensors is not here" in f.what for f in report.notes) == 3
    forger.tensors("predictions.safetensors", lambda t: t["teacher"].add_(1).remainder_(10))
    forger.settle()
    assert "holds other answers of the teacher than it gives" in said(verify(forger.root))


def test_a_run_s_own_folder_and_a_part_of_the_results_pass(forger: Forger) -> None:
    assert said(verify(forger.folder(), quick=True)) == ""
    assert verify(forger.folder().parent, quick=True).records == 2


def test_diverged_and_failed_runs_pass(tmp_path: Path) -> None:
    from dfkd_bench.errors import RunError
    from dfkd_bench.plan import Request, make_plan
    from dfkd_bench.run import run

    source = (Path(__file__).parents[1] / "conformance" / "good.py").read_text()
    spoilt = source.replace("0.01 * self.seen.value", "float('inf') * (self.context.progress.round > 4)")
    (tmp_path / "off.py").write_text(spoilt)
    (tmp_path / "fails.py").write_text(source.replace("self.seen.value += 1", "raise ValueError('no')"))
    for name in ("off", "fails"):
        request = Request((f"{tmp_path}/{name}.py:Good",), budget="smoke", threads=1, device="cpu")
        (planned,) = make_plan(request, tmp_path / "results")
        try:
            run(planned.spec, tmp_path / "results", method=planned.entry, teacher=planned.teacher)
        except RunError:
            assert name == "fails"
    report = verify(tmp_path / "results")
    statuses = {r["result"]["status"] for r in records.read_all(tmp_path / "results")}
    assert (said(report), statuses, report.students) == ("", {"diverged", "failed"}, 1)


# -- forgeries --------------------------------------------------------------------------------------------------------


def last(value: float) -> Forgery:
    return lambda f: f.edit(lambda r: r["result"]["accuracy"].update(last=value))


def accuracy_unsealed(f: Forger) -> None:
    f.edit(lambda r: r["result"]["accuracy"].update(last=99.0), seal=False)


def accuracy_with_curves(f: Forger) -> None:
    """The best snapshot's row is raised, and everything that follows from the curves with it."""
    from dfkd_bench.evaluators.run import over_run

    f.curves(lambda rows: [row.update(top1=repr(99.0)) for row in rows[-1:]])

    def fit(record: dict[str, Any]) -> None:
        from dfkd_bench.evaluators.convergence import first_reaching
        from dfkd_bench.verification.case import Case
        from dfkd_bench.verification.numbers import read_curves

        rows = read_curves(Case(f.root, f.folder(), record, record))
        top1, images = [float(r["top1"] or 0) for r in rows], [float(r["student_images"] or 0) for r in rows]
        teacher = record["result"]["fidelity"]["teacher_top1"]
        record["result"].update(over_run(top1, [r["probe_agreement"] for r in rows], images, teacher))
        record["result"]["rel_teacher"] = top1[-1] / teacher
        measured = record["measurement"]
        measured["seconds_to"] = first_reaching(top1, measured["snapshot_seconds"], teacher)

    f.edit(fit)
    f.settle()


def accuracy_with_predictions(f: Forger) -> None:
    """As many test images are answered rightly as the edited accuracy needs: 591 of 597."""

    def answers(t: dict[str, torch.Tensor]) -> None:
        t["student"] = t["labels"].clone()
        t["student"][:6] = (t["labels"][:6] + 1) % 10

    f.tensors("predictions.safetensors", answers)
    wanted = 100.0 * float(torch.tensor([1.0] * 591 + [0.0] * 6, dtype=torch.float64).mean())
    f.curves(lambda rows: rows[-1].update(top1=repr(wanted)))
    f.edit(lambda r: r["result"]["accuracy"].update(last=wanted))
    f.settle()


def oracle_as_last(f: Forger) -> None:
    f.curves(lambda rows: rows[0].update(top1="98.0"))
    f.edit(lambda r: r["result"]["accuracy"].update(last=98.0, oracle=98.0, oracle_snapshot=0))
    f.settle()


def swap(name: str) -> Forgery:
    """A file of two runs swapped, all digests written anew."""

    def forge(f: Forger) -> None:
        one, two = f.folder(seed=0) / name, f.folder(seed=1) / name
        kept = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(kept)
        f.settle(one.parent)
        f.settle(two.parent)

    return forge


def other_samples(f: Forger) -> None:
    f.tensors("samples.safetensors", lambda t: t["images"].mul_(1.1), f.folder("good_Good"))
    f.settle(f.folder("good_Good"))


def bit_of_the_table(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    flip(path, (path.read_text().index(".", path.read_text().index(",scratch,")) + 1.5) / path.stat().st_size)


def flipped(name: str, method: str = "scratch") -> Forgery:
    return lambda f: flip(f.folder(method) / name)


def other_teacher(f: Forger) -> None:
    f.edit(lambda r: r["manifest"]["teacher"].update(sha256="ab" * 32))


def teacher_hash(f: Forger) -> None:
    f.edit(lambda r: (r["spec"].update(teacher="ab" * 32), r["manifest"]["teacher"].update(sha256="ab" * 32)))


def in_spec(**change: Any) -> Forgery:
    """The specification edited, and hash, folder and digests made to fit."""

    def forge(f: Forger) -> None:
        f.edit(lambda r: r["spec"].update(change))
        f.settle(move=True)

    return forge


def as_another_seed(f: Forger) -> None:
    """One run once more, under a seed that was never run."""
    copy = f.root / "copy"
    shutil.copytree(f.folder(), copy)
    f.edit(lambda r: r["spec"].update(seed=7), copy)
    f.settle(copy, move=True)
    f.table()


def moved(f: Forger) -> None:
    folder = f.folder()
    folder.rename(folder.with_name(folder.name.replace("s0", "s4")))


def elsewhere(f: Forger) -> None:
    shutil.copytree(f.folder(), f.root / "again" / f.folder().relative_to(f.root))


def cell(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    header, first, *rest = path.read_text().split("\n")
    at = header.split(",").index("last_mean")
    cells = first.split(",")  # no comma inside a cell of this row before that column
    assert cells[8] in ("good:Good", "scratch")
    shift = len(cells) - len(header.split(","))
    assert shift >= 0
    value = next(c for c in cells[at : at + shift + 1] if "." in c)
    path.write_text("\n".join([header, first.replace(value, "98.75", 1), *rest]))


def row_gone(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if ",scratch," not in line))


def row_made_up(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    lines = path.read_text().splitlines(True)
    path.write_text("".join([*lines, lines[1].replace("good:Good", "mine").replace("scratch", "mine")]))


def column_gone(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    path.write_text(path.read_text().replace("n_failed", "n_lost"))


def counts(**change: int) -> Forgery:
    return lambda f: f.edit(lambda r: r["result"]["counts"].update(change))


def setting(f: Forger) -> None:
    f.edit(lambda r: r["manifest"]["settings"]["method"].update(width=64), f.folder("good_Good"))


def schedule(f: Forger) -> None:
    f.edit(lambda r: r["manifest"]["settings"]["schedule"].update(rounds=3))


def recipe(f: Forger) -> None:
    f.edit(lambda r: r["manifest"]["settings"]["recipe"].update(lr=0.5))


def number(part: str, name: str, value: float) -> Forgery:
    return lambda f: f.edit(lambda r: r["result"][part].update({name: value}))


def diversity(f: Forger) -> None:
    f.edit(lambda r: r["result"]["samples"].update(diversity=0.9), f.folder("good_Good"))


def confidences(f: Forger) -> None:
    f.tensors("predictions.safetensors", lambda t: t["student_confidence"][17:18].fill_(0.5))
    f.settle()


def labels(f: Forger) -> None:
    f.tensors("predictions.safetensors", lambda t: t["labels"][:1].copy_((t["labels"][:1] + 1) % 10))
    f.settle()


def curve_row(f: Forger) -> None:
    f.curves(lambda rows: rows.pop(0))
    f.settle()


def truncated(f: Forger) -> None:
    path = f.folder() / "student.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def truncated_settled(f: Forger) -> None:
    truncated(f)
    f.settle()


def student_elsewhere_trained(f: Forger) -> None:
    """Weights of the right shapes from nowhere."""
    f.tensors("student.safetensors", lambda t: [v.mul_(1.01) for k, v in t.items() if k.endswith("weight")])
    f.settle()


def predictions_gone(f: Forger) -> None:
    (f.folder() / "predictions.safetensors").unlink()


def record_gone(f: Forger) -> None:
    (f.folder() / "record.json").unlink()


def run_gone(f: Forger) -> None:
    shutil.rmtree(f.folder())


def record_cut(f: Forger) -> None:
    path = f.folder() / "record.json"
    path.write_bytes(path.read_bytes()[:2000])


def unsealed(f: Forger) -> None:
    f.edit(lambda r: r.pop("seal"))


def schema_1(f: Forger) -> None:
    f.edit(lambda r: (r.pop("seal"), r.update(schema=1)))


def said_twice(f: Forger) -> None:
    """A reader that takes the first of two equal keys sees another accuracy."""
    path = f.folder() / "record.json"
    path.write_text(path.read_text().replace('   "last":', '   "last": 99.0,\n   "last":'))


def generator_smaller(f: Forger) -> None:
    f.tensors("generator.safetensors", lambda t: t.pop("generator.0.weight"), f.folder("good_Good"))
    f.settle(f.folder("good_Good"))


def seconds(f: Forger) -> None:
    f.edit(lambda r: r["measurement"].update(seconds_total=1.0))


def seconds_longer_than_the_run(f: Forger) -> None:
    def slow(record: dict[str, Any]) -> None:
        measured = record["measurement"]
        measured["seconds"]["evaluation"] += 1000.0
        measured["seconds_total"] = sum(measured["seconds"].values())

    f.edit(slow)


def alarm_hidden(f: Forger) -> None:
    def hide(record: dict[str, Any]) -> None:
        record["result"]["samples"]["coverage"] = 0.1
        record["result"]["alarms"] = []

    f.edit(hide, f.folder("good_Good"))


@dataclass(frozen=True)
class Case:
    forge: Forgery
    file: str  # that has to be named
    says: str
    full: bool = False  # only an evaluation of the student finds it


RUN = "scratch/pinned-smoke-s0-"
RECORD, CURVES, PREDICTIONS = (f"{RUN}HASH/{n}" for n in ("record.json", "curves.csv", "predictions.safetensors"))
CASES = {
    "edited accuracy": Case(accuracy_unsealed, RECORD, "its seal does not fit its content"),
    "edited accuracy, sealed": Case(last(99.0), RECORD, "accuracy.last is 99.0, curves.csv gives"),
    "edited accuracy with curves": Case(accuracy_with_curves, RECORD, "accuracy.last is 99.0, predictions.safetensors"),
    "edited accuracy with curves and predictions": Case(
        accuracy_with_predictions, PREDICTIONS, "holds other answers than student.safetensors gives for", full=True
    ),
    "oracle copied into last": Case(oracle_as_last, RECORD, "accuracy.last is 98.0, curves.csv gives"),
    "swapped students, digests fitted": Case(
        swap("student.safetensors"), PREDICTIONS, "holds other answers than student.safetensors gives for", full=True
    ),
    "swapped predictions, digests fitted": Case(
        swap("predictions.safetensors"), PREDICTIONS, "holds other answers than student.safetensors gives", full=True
    ),
    "other samples, digests fitted": Case(
        other_samples, "good_Good", "samples.diversity is", full=True
    ),
    "flipped bit in student": Case(flipped("student.safetensors"), f"{RUN}HASH/student.safetensors", "has SHA-256"),
    "flipped bit in predictions": Case(flipped("predictions.safetensors"), PREDICTIONS, "has SHA-256"),
    "flipped bit in samples": Case(
        flipped("samples.safetensors", "good_Good"), "good_Good/pinned-smoke-s0-HASH/samples.safetensors", "has SHA-256"
    ),
    "flipped bit in curves": Case(flipped("curves.csv"), CURVES, "has SHA-256"),
    "flipped bit in generator": Case(
        flipped("generator.safetensors", "good_Good"), "good_Good/pinned-smoke-s0-HASH/generator.safetensors", "has SHA"
    ),
    "flipped bit in record": Case(flipped("record.json"), RECORD, ""),
    "flipped bit in table": Case(bit_of_the_table, "leaderboard.csv", "row scratch"),
    "another teacher in the manifest": Case(other_teacher, RECORD, "manifest.teacher.sha256 is abab"),
    "edited teacher hash": Case(teacher_hash, RECORD, "the specification was changed"),
    "edited dataset hash, all fitted": Case(
        in_spec(data="cd" * 32), RECORD, "spec.data is cdcdcdcdcdcd, the protocol's"
    ),
    "edited seed": Case(lambda f: f.edit(lambda r: r["spec"].update(seed=9)), RECORD, "the specification was changed"),
    "edited hash": Case(lambda f: f.edit(lambda r: r.update(hash="0" * 12)), RECORD, "the record says 000000000000"),
    "one run sold as two seeds": Case(as_another_seed, "pinned-smoke-s7-", "has the very student of"),
    "renamed method": Case(lambda f: f.edit(lambda r: r["spec"].update(method="mine")), RECORD, "hash"),
    "renamed method, all fitted": Case(
        in_spec(method="noise"), "noise/pinned-smoke-s0-HASH/record.json", "its code is that of scratch"
    ),
    "moved folder": Case(moved, "scratch/pinned-smoke-s4-", "its specification belongs in"),
    "duplicate in another folder": Case(elsewhere, f"again/1.0/digits16_cnn32-cnn16/{RECORD}", "once more, which"),
    "edited cell of the table": Case(cell, "leaderboard.csv", "column last_mean holds 98.75, the records give"),
    "a row left out of the table": Case(row_gone, "leaderboard.csv", "lacks the row scratch"),
    "a row made up": Case(row_made_up, "leaderboard.csv", "has the row mine"),
    "a column renamed": Case(column_gone, "leaderboard.csv", "n_failed missing, n_lost unknown"),
    "missing record, the table has it": Case(
        run_gone, "leaderboard.csv", "column n_complete holds 2, the records give 1"
    ),
    "missing record, its files are here": Case(record_gone, RECORD, "is missing"),
    "missing predictions": Case(predictions_gone, PREDICTIONS, "is missing, and the record names it"),
    "truncated record": Case(record_cut, RECORD, "is not a record of dfkd-bench"),
    "removed seal": Case(unsealed, RECORD, "has no seal"),
    "an older schema": Case(schema_1, RECORD, "says schema 1"),
    "the same key twice": Case(said_twice, RECORD, "is not as dfkd-bench writes it"),
    "edited count of steps": Case(
        counts(student_steps=10), RECORD, "counts.student_steps is 10, the schedule gives 30"
    ),
    "edited count of passes": Case(
        counts(student_forwards=10), RECORD, "counts.student_images is 3840, more than counts.student_forwards (10)"
    ),
    "edited settings": Case(setting, "good_Good", "manifest.settings.method.width is 64, the specification says 16"),
    "edited settings, all fitted": Case(
        in_spec(settings={"label_smoothing": 0.5}), RECORD, "manifest.settings.method.label_smoothing is 0.0"
    ),
    "edited schedule": Case(schedule, RECORD, "manifest.settings.schedule.rounds is 3"),
    "edited recipe": Case(recipe, RECORD, "manifest.settings.recipe.lr is 0.5, track pinned and budget smoke give 0.1"),
    "edited agreement": Case(number("fidelity", "agreement", 99.0), RECORD, "fidelity.agreement is 99.0, predictions"),
    "edited calibration": Case(number("fidelity", "ece", 0.01), RECORD, "fidelity.ece is 0.01, predictions"),
    "edited divergence": Case(number("fidelity", "kl", 0.01), RECORD, "fidelity.kl is 0.01, student", full=True),
    "edited teacher's accuracy": Case(
        number("fidelity", "teacher_top1", 99.9), RECORD, "fidelity.teacher_top1 is 99.9"
    ),
    "edited diversity": Case(diversity, "good_Good", "samples.diversity is 0.9, samples", full=True),
    "edited convergence": Case(
        number("convergence", "area", 97.0), RECORD, "convergence.area is 97.0, curves.csv gives"
    ),
    "edited confidences": Case(confidences, PREDICTIONS, "image 17, student_confidence is 0.5", full=True),
    "edited labels": Case(labels, PREDICTIONS, "its labels are not those of digits16", full=True),
    "dropped row of the curves": Case(curve_row, CURVES, "has 2 rows, the schedule has 3 snapshots"),
    "truncated student": Case(truncated, f"{RUN}HASH/student.safetensors", "has SHA-256"),
    "truncated student, digests fitted": Case(
        truncated_settled, f"{RUN}HASH/student.safetensors", "is not a cnn16", full=True
    ),
    "another student, digests fitted": Case(
        student_elsewhere_trained, PREDICTIONS, "student.safetensors gives", full=True
    ),
    "a generator with less in it": Case(generator_smaller, "good_Good", "generator_parameters is"),
    "edited seconds": Case(seconds, RECORD, "measurement.seconds_total is 1.0, its parts give"),
    "seconds beyond the dates": Case(seconds_longer_than_the_run, RECORD, "from started to ended are"),
    "a hidden alarm": Case(alarm_hidden, "good_Good", "alarms is []"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_tampering_is_found_and_named(forger: Forger, name: str) -> None:
    case = CASES[name]
    case.forge(forger)
    report = verify(forger.root, quick=not case.full)
    head, _, tail = case.file.partition("HASH")
    hits = [f for f in report.problems if head in f.file and tail in f.file and case.says in f.what]
    assert hits, said(report)
    print(f"{name}: {hits[0]}")  # `pytest -rP` shows what is said of each
    if case.full:
        assert not [f for f in verify(forger.root, quick=True).problems if f in hits]  # the student was needed


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
    top1 = teacher_for(__import__("dfkd_bench.protocol", fromlist=["task"]).task("digits16/cnn32-cnn16")).top1
    mine = register(Teacher("mine", "digits16", "cnn32", 1, "mine.safetensors", "", top1, "", "me"), weights)

    def blame(record: dict[str, Any]) -> None:
        record["spec"]["teacher"] = mine.sha256
        record["manifest"]["teacher"].update(name="mine", sha256=mine.sha256, top1=top1, origin="me")

    forger.edit(blame)
    forger.settle(move=True)
    forger.table()
    assert said(verify(forger.root, quick=True)) == ""
    found = said(verify(forger.root))
    assert "predictions.safetensors: holds other answers of the teacher than it gives" in found
    flip(mine.path)
    assert "teacher mine: its file has SHA-256" in said(verify(forger.root, quick=True))


# -- documents, sums, other machines ----------------------------------------------------------------------------------


def test_a_document_is_compared_block_by_block(forger: Forger, tmp_path: Path) -> None:
    document = tmp_path / "PAGE.md"
    begin, end = "<!-- begin:leaderboard budget=smoke -->", "<!-- end:leaderboard -->"
    document.write_text(f"# Page\n\n{begin}\n{end}\n")
    board = leaderboard(load_results(forger.root))
    write_docs(document, tables_of(board, board))
    assert said(verify(forger.root, quick=True, docs=(document,))) == ""
    text = document.read_text()
    shown = f"{board['last_mean'][0]:.2f}"
    assert shown in text
    document.write_text(text.replace(shown, "99.99"))
    found = said(verify(forger.root, quick=True, docs=(document,)))
    assert found == "PAGE.md: block leaderboard budget=smoke does not hold what the records give"


def test_sums_name_what_changed_what_is_missing_and_what_is_not_listed(forger: Forger) -> None:
    (forger.root / "figures").mkdir()
    for name in ("a.png", "b.png"):
        (forger.root / "figures" / name).write_bytes(b"picture")
    (forger.root / "README.md").write_text("words")
    write_sums(forger.root)
    lines = (forger.root / SUMS).read_text()
    assert "figures/a.png" in lines
    assert not any(word in lines for word in ("student.safetensors", ".lock", "README", SUMS))
    assert said(verify(forger.root, quick=True)) == ""
    (forger.root / "figures" / "a.png").write_bytes(b"pictura")
    (forger.root / "figures" / "b.png").unlink()
    (forger.root / "figures" / "c.png").write_bytes(b"new")
    (forger.root / "README.md").write_text("other words")
    found = said(verify(forger.root, quick=True)).split("\n")
    says = ("figures/a.png: has SHA-256", "figures/b.png: is missing", "figures/c.png: is not listed in SHA256SUMS")
    assert len(found) == 3
    assert all(line.startswith(wanted) for line, wanted in zip(found, says, strict=True))


def test_sums_are_those_of_coreutils(forger: Forger) -> None:
    import subprocess

    odd = forger.root / "odd\\name\n.csv"
    odd.write_text("x")
    write_sums(forger.root)
    done = subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=forger.root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said(verify(forger.root, quick=True)) == ""
    odd.write_text("y")
    assert "odd\\name\n.csv: has SHA-256" in said(verify(forger.root, quick=True))


def test_another_machine_s_arithmetic_is_near_enough_and_no_more(
    forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dfkd_bench.evaluators import accuracy

    real = accuracy.logits_of

    def by(scale: float) -> Callable[..., torch.Tensor]:
        def logits(model: Any, images: torch.Tensor) -> torch.Tensor:
            found = real(model, images)
            noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
            return found + scale * noise

        return logits

    monkeypatch.setattr(accuracy, "logits_of", by(2e-6))
    report = verify(forger.folder())
    assert (said(report), report.students, report.exact) == ("", 1, 0)
    monkeypatch.setattr(accuracy, "logits_of", by(0.3))
    assert "predictions.safetensors" in said(verify(forger.folder()))
    monkeypatch.setattr(accuracy, "logits_of", by(2e-6))
    kl = json.loads((forger.folder() / "record.json").read_text())["result"]["fidelity"]["kl"]
    forger.edit(lambda r: r["result"]["fidelity"].update(kl=kl * 1.001))
    assert "fidelity.kl is" in said(verify(forger.folder()))


def test_a_record_of_schema_1_passes_with_a_note(tmp_path: Path) -> None:
    from dfkd_bench.verification.identity import named

    old = (Path(__file__).parents[1] / "records" / "schema-1.json").read_text()
    spec = json.loads(old)["spec"]
    folder = tmp_path / f"1.0/digits16_cnn32-cnn16/{spec['method']}/pinned-standard-s0-{json.loads(old)['hash']}"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(old)
    case, found = integrity(folder, tmp_path)
    assert case is not None
    assert list(named(case)) == []
    assert "is of schema 1, which has no seal" in [f.what for f in found]
    (folder / "record.json").write_text(old.replace('"seed": 0', '"seed": 1'))
    case, found = integrity(folder, tmp_path)
    assert any("the specification was changed" in f.what for f in found)
