"""Students under corruptions: what is measured, what is not measured again, how it is shown and verified."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from commands import Command, Printed
from forge import Forger, said
from safetensors.torch import load_file, save_file

from dfkd_bench import models
from dfkd_bench.data import loading
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.metrics.corruptions import corrupted
from dfkd_bench.report.docs import stale, write_docs
from dfkd_bench.report.tables.robustness import sections
from dfkd_bench.report.tables.runs import load_results
from dfkd_bench.results.verify import verify
from dfkd_bench.studies import robustness
from dfkd_bench.teachers.registry import load_teacher, teacher

FOG = ("-c", "fog", "--severity", "5")
FILE = robustness.FILE


@pytest.fixture(scope="module")
def measured(real_results: Path, tmp_path_factory: Any) -> Path:
    """Three runs with two corruptions at two severities."""
    root: Path = tmp_path_factory.mktemp("robust") / "results"
    shutil.copytree(real_results, root)
    where, left_out = robustness.sites(load_results(root))
    assert left_out == []
    cells = robustness.chosen(("fog", "contrast"), (2, 5))
    assert robustness.measure(root, where, cells, torch.device("cpu")) == 12
    return root


@pytest.fixture
def forger(measured: Path, tmp_path: Path) -> Forger:
    return Forger(measured, tmp_path / "results")


@pytest.fixture
def unsettled() -> Iterator[None]:
    """Commands set the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# -- measuring --------------------------------------------------------------------------------------------------------


def test_a_row_is_what_student_and_teacher_say_of_the_corrupted_images(measured: Path) -> None:
    table = robustness.read(measured)
    assert len(table) == 12
    assert [*table.columns] == [*robustness.COLUMNS]
    test = loading.load_test("digits16")
    images = (corrupted(test.images, "fog", 5).float() / 255.0 - test.facts.mean[0]) / test.facts.std[0]
    teacher_entry = load_teacher(teacher("digits16-cnn32-s0"), torch.device("cpu"))
    for folder in measured.glob("*/*/*/*"):
        student = models.build("cnn16", 10, (1, 16, 16))
        student.load_state_dict(load_file(folder / "student.safetensors"))
        with torch.no_grad():
            s, t = student.eval()(images).argmax(1), teacher_entry(images).argmax(1)
        (row,) = table[
            (table["hash"] == folder.name[-12:]) & (table["corruption"] == "fog") & (table["severity"] == 5)
        ].to_dict("records")
        found = [100.0 * float((a == b).double().mean()) for a, b in ((s, test.labels), (t, test.labels), (s, t))]
        assert [row["top1"], row["teacher_top1"], row["agreement"]] == pytest.approx(found, abs=1e-9)
        assert (row["group"], row["task"]) == ("weather", "digits16/cnn32-cnn16")


def test_only_what_is_missing_is_measured_and_a_new_student_is_new(forger: Forger, monkeypatch: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    real = robustness.under

    def watched(teacher_entry: Any, students: Any, test: Any, corruption: str, severity: int) -> Any:
        seen.append((corruption, severity, len(students)))
        return real(teacher_entry, students, test, corruption, severity)

    monkeypatch.setattr(robustness, "under", watched)
    where, _ = robustness.sites(load_results(forger.root))
    cells = robustness.chosen(("fog", "contrast", "gaussian_noise"), (5,))
    before = (forger.root / FILE).read_bytes()
    assert robustness.measure(forger.root, where, cells[:2], torch.device("cpu")) == 0
    assert (forger.root / FILE).read_bytes() == before
    assert robustness.measure(forger.root, where, cells, torch.device("cpu")) == 3
    assert seen == [("gaussian_noise", 5, 3)]
    assert robustness.measure(forger.root, where, cells[:1], torch.device("cpu"), force=True) == 3
    assert len(robustness.read(forger.root)) == 15
    path = forger.folder() / "student.safetensors"
    state = load_file(path)
    save_file({k: v * 1.5 if v.is_floating_point() else v for k, v in state.items()}, path)
    del seen[:]
    assert robustness.measure(forger.root, where, cells, torch.device("cpu")) == 3
    assert seen == [("fog", 5, 1), ("contrast", 5, 1), ("gaussian_noise", 5, 1)]
    assert len(robustness.read(forger.root)) == 15  # in the place of the old ones


def test_a_stopped_measurement_goes_on_where_it_was(real_results: Path, tmp_path: Path, monkeypatch: Any) -> None:
    root = tmp_path / "results"
    shutil.copytree(real_results, root)
    where, _ = robustness.sites(load_results(root))
    cells = robustness.chosen(("fog", "contrast"), (2, 5))
    real = robustness.under

    def stopped(teacher_entry: Any, students: Any, test: Any, corruption: str, severity: int) -> Any:
        if corruption == "contrast":
            raise KeyboardInterrupt
        return real(teacher_entry, students, test, corruption, severity)

    monkeypatch.setattr(robustness, "under", stopped)
    with pytest.raises(KeyboardInterrupt):
        robustness.measure(root, where, cells, torch.device("cpu"))
    monkeypatch.undo()
    assert robustness.measure(root, where, cells, torch.device("cpu")) == 6


def test_the_file_is_the_same_whatever_was_measured_first(measured: Path, forger: Forger) -> None:
    (forger.root / FILE).unlink()
    where, _ = robustness.sites(load_results(forger.root))
    for cells in (robustness.chosen(("contrast",), (5, 2)), robustness.chosen(("fog",), (2, 5))):
        robustness.measure(forger.root, where, cells, torch.device("cpu"))
    assert (forger.root / FILE).read_bytes() == (measured / FILE).read_bytes()


def test_runs_that_cannot_be_measured_are_named_with_the_reason(forger: Forger, monkeypatch: Any) -> None:
    (forger.folder() / "student.safetensors").unlink()
    where, left_out = robustness.sites(load_results(forger.root))
    assert [len(site.runs) for site in where] == [2]
    assert left_out == ["1 of 3 runs on digits16/cnn32-cnn16 have no student.safetensors beside their record"]
    monkeypatch.setattr(robustness, "is_present", lambda facts: False)
    assert "digits16 is not on this machine" in robustness.sites(load_results(forger.root))[1][1]

    def unknown(name: str) -> Any:
        raise UsageError("no such folder")

    with monkeypatch.context() as patch:
        patch.setattr(robustness, "task", unknown)
        assert robustness.sites(load_results(forger.root))[1][1] == "2 runs on digits16/cnn32-cnn16: no such folder"
    monkeypatch.setattr(robustness, "teachers", dict)
    where, left_out = robustness.sites(load_results(forger.root))
    assert where == []
    assert "their teacher e72e14fd is not registered here" in left_out[1]


def test_a_damaged_student_or_table_is_said(forger: Forger) -> None:
    where, _ = robustness.sites(load_results(forger.root))
    (forger.folder() / "student.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match=r"student.safetensors is not a cnn16"):
        robustness.measure(forger.root, where, [("fog", 1)], torch.device("cpu"))
    (forger.root / FILE).write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no column hash"):
        robustness.read(forger.root)
    (forger.root / FILE).write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be read"):
        robustness.read(forger.root)


# -- showing ----------------------------------------------------------------------------------------------------------


def test_rows_are_means_over_cells_of_means_over_seeds(measured: Path) -> None:
    (section,) = sections(measured)
    table, runs = robustness.read(measured), load_results(measured).set_index("hash")
    own = table[table["method"] == "scratch"]
    each, clean = own.groupby("hash")["top1"].mean(), runs.loc[own["hash"].unique(), "last"]
    rows = {row[0]: dict(zip(section.headers, row, strict=True)) for row in [*section.ranked, *section.bounds]}
    assert [row[0] for row in section.ranked] == ["good:Good"]
    assert list(rows) == ["good:Good", "scratch", "teacher"]
    scratch = rows["scratch"]
    half = 12.706205 * each.std() / 2**0.5  # Student's t with one degree of freedom
    assert scratch["corrupted"] == f"{each.mean():.2f} ± {half:.2f}"
    assert (scratch["n"], scratch["clean"]) == ("2", f"{clean.mean():.2f}")
    assert scratch["kept"] == f"{(each / clean.loc[each.index]).mean():.1%}"
    assert scratch["agree"] == f"{own['agreement'].mean():.2f}"
    assert scratch["weather"] == f"{own[own['corruption'] == 'fog']['top1'].mean():.2f}"
    assert scratch["digital"] == f"{own[own['corruption'] == 'contrast']['top1'].mean():.2f}"
    assert (scratch["noise"], scratch["blur"]) == ("", "")
    assert rows["teacher"]["corrupted"] == f"{own['teacher_top1'].mean():.2f}"
    assert "2 of 12 corruptions · 4 cells in all" in section.terms


def test_a_section_compares_what_all_of_its_runs_have(forger: Forger) -> None:
    table = robustness.read(forger.root)
    lacks = (table["method"] == "good:Good") & (table["corruption"] == "fog") & (table["severity"] == 2)
    robustness.write(forger.root, table[~lacks])
    (section,) = sections(forger.root)
    assert "3 cells in all" in section.terms
    own = table[(table["method"] == "scratch") & ((table["corruption"] != "fog") | (table["severity"] != 2))]
    (scratch,) = [row for row in section.bounds if row[0] == "scratch"]
    assert scratch[section.headers.index("corrupted")].startswith(f"{own['top1'].mean():.2f} ±")
    other = table[(table["method"] == "scratch") & (table["corruption"] == "contrast")].head(1)
    robustness.write(forger.root, pd.concat([table[lacks], other]))
    with pytest.raises(UsageError, match="no corruption is measured for every run"):
        sections(forger.root)


def test_a_document_takes_the_table_and_tells_when_it_is_old(forger: Forger, tmp_path: Path) -> None:
    document = tmp_path / "DOC.md"
    document.write_text(f"<!-- begin:robustness results/{FILE} -->\n<!-- end:robustness -->\n")
    write_docs([document], "")
    text = document.read_text()
    assert "| scratch |" in text
    assert "| teacher |" in text
    assert stale(document) == []
    table = robustness.read(forger.root)
    robustness.write(forger.root, table.assign(top1=50.0))
    assert stale(document) == [f"robustness results/{FILE}"]


def test_the_command_measures_shows_and_writes(
    forger: Forger, command: Command, printed: Printed, unsettled: None
) -> None:
    (forger.root / FILE).unlink()
    words = ("robustness", "--results", forger.root, *FOG)
    out = printed(*words)
    assert "1 of 12 corruptions · 1 cell in all" in out
    assert "3 students, 3 evaluations now" in out
    assert len(robustness.read(forger.root)) == 3
    assert "3 students, 0 evaluations now" in printed(*words)
    out = printed(*words, "-m", "scratch")
    assert "2 students, 0 evaluations now" in out
    assert "good" not in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-c", "fogg"), "error: unknown corruption fogg; did you mean 'fog'?"),
        (("--severity", "6"), "6 is not in the range 1<=x<=5"),
        (("-m", "cpsd"), "none of the 3 records below"),
        (("--budget", "hours"), "hours"),
        (("-t", "digits16/none"), "digits16/none"),
        (("--device", "tpu"), "tpu"),
        (("--results", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_get_a_line(
    measured: Path, words: tuple[str, ...], says: str, command: Command, unsettled: None
) -> None:
    status, _, err = command("robustness", "--results", measured, *words)
    assert status != 0
    assert says in err
    assert err.count("\n") <= 3


def test_without_a_student_there_is_nothing_to_do(forger: Forger, command: Command) -> None:
    for path in forger.root.rglob("student.safetensors"):
        path.unlink()
    status, _, err = command("robustness", "--results", forger.root)
    assert status == 2
    assert "3 of 3 runs" in err
    assert "no student to evaluate" in err


# -- verifying --------------------------------------------------------------------------------------------------------


def test_what_was_measured_passes(measured: Path) -> None:
    report = verify(measured)
    assert said(report) == ""
    assert FILE in report.renderings


@pytest.mark.long
@pytest.mark.parametrize("column", ["top1", "teacher_top1", "agreement"])
def test_any_number_that_was_changed_is_found(forger: Forger, column: str) -> None:
    table = robustness.read(forger.root)
    table.loc[7, column] += 100.0 / 597.0 if table.loc[7, column] < 50.0 else -100.0 / 597.0
    robustness.write(forger.root, table)
    found = said(verify(forger.root))
    row = table.loc[7]
    assert f"{row['corruption']} {row['severity']} of run {row['hash']}: {column} is" in found
    assert said(verify(forger.root, quick=True)) == ""


def test_without_students_the_teacher_s_numbers_are_compared(forger: Forger) -> None:
    for path in forger.root.rglob("student.safetensors"):
        path.unlink()
    assert said(verify(forger.root)) == ""
    table = robustness.read(forger.root)
    robustness.write(forger.root, table.assign(teacher_top1=100.0 - table["teacher_top1"]))
    assert said(verify(forger.root)).count("teacher_top1") == 12


def test_rows_of_other_runs_and_students_and_double_rows_are_found(forger: Forger) -> None:
    table = robustness.read(forger.root)
    name = table.loc[0, "hash"]
    robustness.write(forger.root, table.assign(hash=table["hash"].replace(name, "f" * 12)))
    assert f"has rows of run {'f' * 12}, of which there is no record" in said(verify(forger.root, quick=True))
    spoilt = table.copy()
    spoilt.loc[0, "student"] = "0" * 64
    robustness.write(forger.root, spoilt)
    assert f"rows of run {name} are of student 000000000000" in said(verify(forger.root, quick=True))
    robustness.write(forger.root, pd.concat([table, table.head(2)]))
    assert "holds 2 numbers a second time" in said(verify(forger.root, quick=True))
    robustness.write(forger.root, table.assign(severity=table["severity"].replace(5, 6)))
    assert "rows of no corruption" in said(verify(forger.root, quick=True))
    robustness.write(forger.root, table.assign(top1=101.0))
    assert "top1 is not a percentage everywhere" in said(verify(forger.root, quick=True))
    (forger.root / FILE).write_text("hash\n1\n")
    assert "no column method" in said(verify(forger.root, quick=True))
