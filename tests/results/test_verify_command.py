"""`dfkd-bench verify` as a user meets it, and how renderings are compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command, Printed
from forge import Forger

from dfkd_bench.results.verify import renderings, verify


def test_clean_results(printed: Printed, real_results: Path) -> None:
    out = printed("verify", "--results", real_results)
    lines = out.splitlines()
    assert lines[-1] == "3 records, 3 students evaluated again, 1 rendering: all as recorded"
    assert all(line.startswith("note: ") for line in lines[:-1])


def test_each_problem_is_a_line_and_the_exit_status_says_so(command: Command, forger: Forger) -> None:
    forger.edit(lambda r: r["result"]["accuracy"].update(last=99.0))
    (forger.folder(seed=1) / "curves.csv").unlink()
    status, out, err = command("verify", "--results", forger.root, "--quick")
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == f"3 records, 1 rendering: {len(problems)} problems"
    assert any("record.json: accuracy.last is 99.0, curves.csv gives" in line for line in problems)
    assert any("curves.csv: is missing, and the record names it" in line for line in problems)


def test_notes_of_one_kind_are_one_line(printed: Printed, forger: Forger) -> None:
    for path in forger.root.rglob("student.safetensors"):
        path.unlink()
    out = printed("verify", "--results", forger.root, "--quick")
    assert sum("student.safetensors is not here" in line for line in out.splitlines()) == 1
    assert "note: 3 files: student.safetensors is not here" in out


# -- renderings -------------------------------------------------------------------------------------------------------


def test_any_rendering_is_compared_and_the_first_difference_named(forger: Forger) -> None:
    made = {"page.html": b"<p>\n<td>97.50</td>\n</p>\n", "figure.png": b"\x89PNG\xff\x01\x02", "not-here.tex": b"x"}
    for name, payload in list(made.items())[:2]:
        (forger.root / name).write_bytes(payload)
    report = verify(forger.root, quick=True, render=lambda results: made)
    assert (report.problems, report.renderings) == ([], ("page.html", "figure.png"))
    (forger.root / "page.html").write_bytes(b"<p>\n<td>98.50</td>\n</p>\n")
    (forger.root / "figure.png").write_bytes(b"\x89PNG\xff\x01\x03")
    says = [str(f) for f in verify(forger.root, quick=True, render=lambda results: made).problems]
    assert says == [
        "page.html: line 2, column 6: holds '<td>98.50</td>', the records give '<td>97.50</td>'",
        "figure.png: is not what the records give, from byte 6 on",
    ]


def test_renderings_that_cannot_be_made_are_said_so(forger: Forger) -> None:
    (forger.folder() / "record.json").write_text("{")
    report = verify(forger.root, quick=True)
    assert any("renderings were not compared" in f.what for f in report.notes)
    assert any("is not a record" in f.what for f in report.problems)


def test_last_digits_of_another_library_are_no_problem() -> None:
    (found,) = renderings.compare("a.md", b"| 97.50000000000001 |", b"| 97.5 |")
    assert found.severity == "note"
    (found,) = renderings.compare("a.md", b"| 97.5001 |", b"| 97.5 |")
    assert (found.severity, "line 1" in found.what) == ("problem", True)
    assert renderings.compare("a.md", b"| 97.5 |", b"| 97.5 |") == []


def test_a_table_of_before_may_lack_columns_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderings, "LATER_DEFAULTS", {"tidy": False})
    have, meant = "hash,last\na,1\nb,2\n", "hash,tidy_a,last,new\na,False,1,\nb,False,2,\n"

    def says(text: str, wanted: str) -> list[tuple[str, str]]:
        return [(f.severity, f.what) for f in renderings.compare("runs.csv", text.encode(), wanted.encode())]

    lacks = ("note", "lacks columns that came later and say nothing of its rows: tidy_a, new")
    assert says(have, meant) == [lacks]
    wrong = ("problem", "row : column last holds 3, the records give 2")
    assert says(have.replace("2", "3"), meant) == [lacks, wrong]
    for other in (meant.replace("b,False", "b,True"), meant + "c,False,1,5\n"):
        assert ("problem", "has other columns") in [(kind, what.partition(":")[0]) for kind, what in says(have, other)]
    assert says(meant, have) == [("problem", "has other columns: none missing, tidy_a, new unknown")]


def test_a_table_is_compared_by_the_names_of_its_rows() -> None:
    meant = "hash,method,last\na,x,1.5\nb,y,2.5\nc,z,3.5\n"

    def says(text: str) -> list[str]:
        return list(renderings.csv_differences(text, meant))

    assert says("hash,method,last\na,x,1.5\nb,y,9.5\n") == [
        "row y: column last holds 9.5, the records give 2.5", "has no row z, and there are records of it",
    ]  # fmt: skip
    assert says(meant + "d,w,1\n") == ["has a row w, and there is no record of it"]
    assert says("hash,method,last\nb,y,2.5\na,x,1.5\nc,z,3.5\n") == [
        "line 2, column 1: holds 'b,y,2.5', the records give 'a,x,1.5'"
    ]
    assert says("hash,last\n") == ["has other columns: method missing, none unknown"]
    assert says("") == ["has other columns: hash, method, last missing, none unknown"]


def test_no_more_differences_are_named_than_one_reads() -> None:
    meant = "hash,last\n" + "".join(f"{k},1\n" for k in range(40))
    found = renderings.compare("runs.csv", meant.replace(",1\n", ",2\n").encode(), meant.encode())
    assert len(found) == renderings.MOST + 1
    assert found[-1].what == "and 35 more differences"
