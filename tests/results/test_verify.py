"""`verify` passes what runs left, here or on another machine; documents and sums are compared too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forge import Forger

from dfkd_bench.report.docs import tables_of, write_docs
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import load_results
from dfkd_bench.results.verify import Report, integrity, verify
from dfkd_bench.results.verify.sums import FILE as SUMS
from dfkd_bench.results.verify.sums import write_sums
from dfkd_bench.runs import records


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
    monkeypatch.setattr(
        "dfkd_bench.results.verify.students.load_teacher", lambda *_: pytest.fail("a teacher was loaded")
    )
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
    from dfkd_bench.runs.plan import Request, make_plan
    from dfkd_bench.runs.planned import RunOptions
    from dfkd_bench.training.runner import run

    source = (Path(__file__).parents[1] / "conformance" / "good.py").read_text()
    spoilt = source.replace("0.01 * self.seen.value", "float('inf') * (self.context.progress.round > 4)")
    (tmp_path / "off.py").write_text(spoilt)
    (tmp_path / "fails.py").write_text(source.replace("self.seen.value += 1", "raise ValueError('no')"))
    for name in ("off", "fails"):
        request = Request((f"{tmp_path}/{name}.py:Good",), budget="smoke", threads=1, device="cpu")
        (planned,) = make_plan(request, tmp_path / "results")
        try:
            run(planned, RunOptions(tmp_path / "results"))
        except RunError:
            assert name == "fails"
    report = verify(tmp_path / "results")
    statuses = {r["result"]["status"] for r in records.read_all(tmp_path / "results")}
    assert (said(report), statuses, report.students) == ("", {"diverged", "failed"}, 1)


# -- documents, sums, other machines ----------------------------------------------------------------------------------


def test_a_document_is_compared_block_by_block(forger: Forger, tmp_path: Path) -> None:
    document = tmp_path / "PAGE.md"
    begin, end = "<!-- begin:leaderboard budget=smoke -->", "<!-- end:leaderboard -->"
    document.write_text(f"# Page\n\n{begin}\n{end}\n")
    board = leaderboard(load_results(forger.root))
    write_docs([document], tables_of(board, board))
    assert said(verify(forger.root, quick=True, docs=(document,))) == ""
    text = document.read_text()
    shown = f"{board['last_mean'][0]:.2f}"
    assert shown in text
    document.write_text(text.replace(shown, "99.99"))
    found = said(verify(forger.root, quick=True, docs=(document,)))
    assert found == f"{document}: block leaderboard budget=smoke does not hold what the records give"


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
    from dfkd_bench.results.verify import students

    real = students.logits_of

    def by(scale: float) -> Callable[..., torch.Tensor]:
        def logits(model: Any, images: torch.Tensor) -> torch.Tensor:
            found = real(model, images)
            noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
            return found + scale * noise

        return logits

    monkeypatch.setattr(students, "logits_of", by(2e-6))
    report = verify(forger.folder())
    assert (said(report), report.students, report.exact) == ("", 1, 0)
    monkeypatch.setattr(students, "logits_of", by(0.3))
    assert "predictions.safetensors" in said(verify(forger.folder()))
    monkeypatch.setattr(students, "logits_of", by(2e-6))
    kl = json.loads((forger.folder() / "record.json").read_text())["result"]["fidelity"]["kl"]
    forger.edit(lambda r: r["result"]["fidelity"].update(kl=kl * 1.001))
    assert "fidelity.kl is" in said(verify(forger.folder()))


def test_a_record_of_schema_1_passes_with_a_note(tmp_path: Path) -> None:
    from dfkd_bench.results.verify.identity import check_names

    old = (Path(__file__).parents[1] / "helpers" / "records" / "schema-1.json").read_text()
    spec = json.loads(old)["spec"]
    folder = tmp_path / f"1.0/digits16_cnn32-cnn16/{spec['method']}/pinned-standard-s0-{json.loads(old)['hash']}"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(old)
    case, found = integrity(folder, tmp_path)
    assert case is not None
    assert list(check_names(case)) == []
    assert "is of schema 1, which has no seal" in [f.what for f in found]
    (folder / "record.json").write_text(old.replace('"seed": 0', '"seed": 1'))
    case, found = integrity(folder, tmp_path)
    assert any("the specification was changed" in f.what for f in found)
