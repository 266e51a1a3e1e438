"""Markers in documents: each kind is filled, what is wrong is named with its line, and a stale block is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Printed, snoop
from factory import make_record, write_record

from dfkd_bench.errors import UsageError
from dfkd_bench.report import docs
from dfkd_bench.report.docs import check_document, documents, filled, stale, tables_of, write_docs
from dfkd_bench.report.tables import leaderboard as lb
from dfkd_bench.report.tables import tuning
from dfkd_bench.report.tables.published import published, published_table
from dfkd_bench.report.tables.runs import long_table

COLUMNS = (
    "task,track,budget,seed,method,preset,trial,settings,status,coverage,probe_agreement,eligible,chosen,run,code,"
    "teacher_passes,seconds,probe,protocol"
)
TERMS = "digits16/cnn32-cnn16,pinned,quick"
TUNING = f"""{COLUMNS}
{TERMS},100,alpha,own,0,{{}},complete,1,70.125,true,false,h0,c,1,1,p,1.0
{TERMS},100,alpha,own,1,"{{""lr"":0.1,""steps"":2}}",complete,1,81.5,true,true,h1,c,1,1,p,1.0
{TERMS},100,alpha,own,2,"{{""lr"":1}}",complete,0.4,99.0,false,false,h2,c,1,1,p,1.0
{TERMS},100,beta,x,0,{{}},complete,0.4,50.0,false,true,h3,c,1,1,p,1.0
{TERMS},100,beta,x,1,"{{""a"":1}}",failed,,,false,false,h4,c,,,p,1.0
"""


def known_method() -> str:
    return str(published()["method"].iloc[-1])


def document(folder: Path, *lines: str) -> Path:
    path = folder / "D.md"
    path.write_text("\n".join(["top", *lines, "bottom", ""]))
    return path


def tables() -> docs.Tables:
    found = [
        make_record(last=90.0), make_record(last=81.0, budget="standard"), make_record(last=70.0, track="recipe"),
        make_record(last=60.0, budget="full", precision="bf16"),
    ]  # fmt: skip
    board = lb.leaderboard(long_table(found))
    return tables_of(board, board[board["budget"] == "quick"])


def test_every_kind_of_block_is_filled_and_the_rest_untouched(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "tuning.csv").write_text(TUNING)
    name = known_method()
    path = document(
        tmp_path, "<!-- begin:leaderboard -->", "<!-- end:leaderboard -->", "between",
        f"<!-- begin:published {name} -->", "old", f"<!-- end:published {name} -->",
        "<!-- begin:tuning sub/tuning.csv -->", "<!-- end:tuning -->",
    )  # fmt: skip
    write_docs([path], tables())
    text = path.read_text()
    assert text.startswith("top\n<!-- begin:leaderboard -->\n### digits16/cnn32-cnn16")
    assert "<!-- end:leaderboard -->\nbetween\n<!-- begin:published" in text
    assert f"{published_table(name).strip()}\n<!-- end:published {name} -->" in text
    assert "old" not in text
    assert "| alpha | own | 3 | 2 | 70.12 | 81.50 | lr=0.1, steps=2 |" in text
    assert text.endswith("<!-- end:tuning -->\nbottom\n")
    assert filled(path, tables()) == text  # once filled it stays


def test_filters_choose_from_all_records_and_a_plain_block_shows_what_was_chosen(tmp_path: Path) -> None:
    path = document(
        tmp_path, "<!-- begin:leaderboard budget=standard track=pinned -->", "<!-- end:leaderboard -->",
        "<!-- begin:leaderboard -->", "<!-- end:leaderboard -->",
    )  # fmt: skip
    first, second = filled(path, tables()).split("<!-- end:leaderboard -->")[:2]
    assert ("81.00" in first, "90.00" in first, "70.00" in first) == (True, False, False)
    assert ("81.00" in second, "90.00" in second, "70.00" in second) == (False, True, True)
    path = document(tmp_path, "<!-- begin:leaderboard precision=bf16 device=cpu -->", "<!-- end:leaderboard -->")
    (row,) = (line for line in filled(path, tables()).splitlines() if line.startswith("| 1 |"))
    assert "60.00" in row
    path = document(tmp_path, "<!-- begin:leaderboard budget=smoke -->", "<!-- end:leaderboard -->")
    with pytest.raises(UsageError, match=r"line 2: no record has budget smoke"):
        write_docs([path], tables())


def test_the_rows_of_one_method_come_from_all_records(tmp_path: Path) -> None:
    name = make_record()["spec"]["method"]
    path = document(
        tmp_path, f"<!-- begin:ours {name} -->", "<!-- end:ours -->", "<!-- begin:ours nobody -->", "<!-- end:ours -->"
    )
    first, second = filled(path, tables()).split("<!-- end:ours -->")[:2]
    rows = [line.split(" | ") for line in first.splitlines() if line.startswith("| digits16")]
    assert sorted((*row[1:4], row[6]) for row in rows) == [
        ("pinned", "full", "cpu bf16", "60.00"), ("pinned", "quick", "cpu fp32", "90.00"),
        ("pinned", "standard", "cpu fp32", "81.00"), ("recipe", "quick", "cpu fp32", "70.00"),
    ]  # fmt: skip
    assert "###" not in first
    assert "No record of ours yet." in second
    assert filled(path) == path.read_text(), "without records it stays as it is"


def test_throughput_is_of_whole_runs_by_device_with_the_fastest_first(tmp_path: Path) -> None:
    def record(method: str, seconds: float, **more: object) -> dict[str, object]:
        made = make_record(method=method, **more)
        made["measurement"]["seconds"] = {"synthesis": 0.75 * seconds, "distillation": 0.25 * seconds}
        made["measurement"]["seconds_total"] = seconds
        made["result"]["counts"] |= {
            "student_images": 6000, "teacher_forwards": 7000, "teacher_backwards": 5000,
        }  # fmt: skip
        return made

    found = [
        record("slow", 60.0),
        record("quick", 3.0),
        record("quick", 5.0, seed=1),
        record("other", 1.0, track="recipe"),
    ]
    board = lb.leaderboard(long_table(found))
    path = document(tmp_path, "<!-- begin:throughput budget=quick track=pinned -->", "<!-- end:throughput -->")
    text = filled(path, tables_of(board, board))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "| digits16" in line]
    assert [(row[1], *row[4:]) for row in rows] == [
        ("quick", "2", "4", "75%", "1,500", "12 k", "3 k"), ("slow", "1", "60", "75%", "100", "12 k", "200"),
    ]  # fmt: skip
    assert "budget quick, track pinned" in text
    assert filled(path) == path.read_text(), "without records it stays as it is"
    path = document(tmp_path, "<!-- begin:throughput sort=name -->", "<!-- end:throughput -->")
    with pytest.raises(UsageError, match="begin:throughput takes task=NAME"):
        filled(path)


def test_stale_blocks_are_named_and_leaderboards_only_where_there_are_records(tmp_path: Path) -> None:
    name = known_method()
    path = document(
        tmp_path, "<!-- begin:leaderboard -->", "<!-- end:leaderboard -->",
        f"<!-- begin:published {name} -->", f"<!-- end:published {name} -->",
    )  # fmt: skip
    assert stale(path) == [f"published {name}"]
    assert stale(path, tables()) == ["leaderboard", f"published {name}"]
    path.write_text(filled(path))
    assert stale(path) == []
    assert stale(path, tables()) == ["leaderboard"]
    path.write_text(path.read_text().replace("published.", "published!").replace("| own |", "| mine |"))
    write_docs([path], tables())
    assert stale(path, tables()) == []


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["<!-- begin:leaderbord -->"], r"line 2: unknown marker 'leaderbord'; did you mean 'leaderboard'"),
        (["<!-- begin:published x -->"], r"line 2: <!-- begin:published x --> has no <!-- end:published -->"),
        (["<!-- end:tuning -->"], r"line 2: <!-- end:tuning --> without a <!-- begin:tuning --> before it"),
        (
            ["<!-- begin:published a -->", "<!-- end:published b -->"],
            r"line 3: .* without a <!-- begin:published b -->",
        ),
        (["<!-- begin:published a -->", "<!-- begin:tuning t.csv -->"], r"line 2: no <!-- end:published --> before"),
        (["<!-- begin:published -->", "<!-- end:published -->"], r"line 2: .*takes the name of a method, got nothing"),
        (["<!-- begin:published no one -->", "<!-- end:published -->"], r"got no one"),
        (["<!-- begin:published nobody -->", "<!-- end:published -->"], r"line 2: no published number of 'nobody'"),
        (["<!-- begin:tuning no.csv -->", "<!-- end:tuning -->"], r"line 2: cannot read .*no.csv"),
        (["<!-- begin:leaderboard colour=red -->", "<!-- end:leaderboard -->"], r"takes task=NAME, .*got colour=red"),
        (["<!-- begin:leaderboard budget=quik -->", "<!-- end:leaderboard -->"], r"line 2: unknown budget 'quik'"),
        (["<!-- begin:leaderboard track=pined -->", "<!-- end:leaderboard -->"], r"unknown track 'pined'"),
        (["<!-- begin:leaderboard device=gpu -->", "<!-- end:leaderboard -->"], r"line 2: unknown device 'gpu'"),
        (["<!-- begin:throughput precision=fp8 -->", "<!-- end:throughput -->"], r"unknown precision 'fp8'"),
        (["<!-- begin:leaderboard task=x -->", "<!-- end:leaderboard -->"], r"line 2: unknown task 'x'"),
        (["```", "<!-- begin:leaderboard -->", "<!-- end:leaderboard -->", "```"], r"needs the lines"),
        (["<!-- begin:columns all -->", "<!-- end:columns -->"], r"line 2: begin:columns takes nothing, got all"),
        (["<!-- begin:settings nobody -->", "<!-- end:settings -->"], r"line 2: unknown method 'nobody'"),
        (["text <!-- begin:leaderboard -->", "<!-- end:leaderboard --> text"], r"needs the lines"),
        (["<!-- begin:leaderboard protocol=one -->", "<!-- end:leaderboard -->"], r"line 2: a protocol is MAJOR.MINOR"),
        (
            ["<!-- begin:leaderboard protocol=9.0 -->", "<!-- end:leaderboard -->"],
            r"line 2: no record has protocol",
        ),
        (["<!-- begin:ours a b -->", "<!-- end:ours -->"], r"a method and optionally protocol=VERSION, got a b"),
        (
            ["<!-- begin:ours a protocol=1.1 b -->", "<!-- end:ours -->"],
            r"and optionally .*, got a protocol=1.1 b",
        ),
        (["<!-- begin:ours a protocol= -->", "<!-- end:ours -->"], r"a protocol is MAJOR.MINOR"),
        (["<!-- begin:tuning t.csv budget=quick -->", "<!-- end:tuning -->"], r"tuning.csv and optionally protocol="),
        (
            ["<!-- begin:published a protocol=1.1 -->", "<!-- end:published -->"],
            r"of a method, got a protocol=1.1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named_and_the_document_left_alone(tmp_path: Path, lines: list[str], says: str) -> None:
    path = document(tmp_path, *lines)
    before = path.read_text()
    with pytest.raises(UsageError, match=says):
        write_docs([path], tables())
    assert path.read_text() == before


METHOD = """
class MineConfig:
    width: int = setting(64, "base channels", unit="channels")
    kind: str = setting("a", "a | b", choices=("a", "b"))
    lr: float = setting(0.1, "learning rate")


class Mine(Method):
    Config = MineConfig
    presets = {"slow": {"lr": 0.01, "kind": "b"}, "fast": {}}
    default_preset = "fast"
    task_settings = (("slow", "digits16/*", {"width": 8}),)
    budget_settings = {"smoke": {"width": 4}}
    pinned = {"width": "generator_width"}
    search = {"lr": (0.1, 0.2)}
"""


def test_settings_of_a_method_are_read_from_its_source(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    path = document(tmp_path, f"<!-- begin:settings {tmp_path}/mine.py:Mine -->", "<!-- end:settings -->")
    assert filled(path).split("\n")[2:-3] == [
        "| preset | sets |", "| :-- | :-- |", "| slow | lr=0.01, kind=b |", "| fast (default) | the defaults |", "",
        "| preset | on tasks | sets as well |", "| :-- | :-- | :-- |", r"| slow | digits16/\* | width=8 |", "",
        "| in budget | sets as well |", "| :-- | :-- |", "| smoke | width=4 |", "",
        "| setting | default | meaning |", "| :-- | --: | :-- |",
        "| width | 64 | base channels (channels); fixed on the pinned track |",
        r"| kind | a | a \| b; one of a, b |", "| lr | 0.1 | learning rate; tune tries 0.1, 0.2 |",
    ]  # fmt: skip


def test_columns_are_those_of_the_long_table(tmp_path: Path) -> None:
    path = document(tmp_path, "<!-- begin:columns -->", "<!-- end:columns -->")
    rows = [line.strip("| ").split(" | ") for line in filled(path).split("\n")[4:-3]]
    assert [row[0].replace("\\", "") for row in rows] == list(long_table([]).columns)
    assert (
        "| last | test top-1 of the last checkpoint: the primary number | % | result \\> accuracy \\> last |"
        in filled(path)
    )


def test_a_folder_stands_for_its_documents_and_all_are_filled_or_none(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plain, inner = tmp_path / "plain.md", tmp_path / "in" / "A.md"
    plain.write_text("no marker\n")
    inner.write_text("<!-- begin:columns -->\n<!-- end:columns -->\n")
    outer = document(tmp_path, "<!-- begin:leaderboard budget=smoke -->", "<!-- end:leaderboard -->")
    assert documents([tmp_path, outer, plain]) == [outer, inner, plain]
    with pytest.raises(UsageError, match="no record has budget smoke"):
        write_docs([inner, outer], tables())
    assert "primary" not in inner.read_text()
    write_docs([inner], tables())
    assert "primary" in inner.read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no Markdown file in .*empty has a marker"):
        documents([tmp_path / "empty"])


def test_a_document_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        write_docs([tmp_path / "none.md"], tables())


def test_a_marker_in_a_code_fence_is_text(tmp_path: Path) -> None:
    path = document(
        tmp_path, "```", "<!-- begin:anything -->", "```", "<!-- begin:leaderboard -->", "<!-- end:leaderboard -->"
    )
    assert [block.begin for block in check_document(path)] == [4]


def test_the_table_of_trials(tmp_path: Path) -> None:
    path = tmp_path / "tuning.csv"
    path.write_text(TUNING)
    text = tuning.trials_table(path)
    assert "digits16/cnn32-cnn16, track pinned, budget quick, seed 100 · protocol 1.0, an earlier version" in text
    assert tuning.trials_table(path, "1.0") == text
    with pytest.raises(UsageError, match=r"has no trial of protocol 1\.1"):
        tuning.trials_table(path, "1.1")
    assert "| beta | x | 2 | 0 | 50.00 | – | the preset's |" in text  # nothing eligible: trial 0 stays
    assert "99.00" not in text  # the best of all misses classes
    for bad, says in ((COLUMNS, "no row"), ("a,b\n1,2\n", "no column protocol"), ("", "not a CSV of trials")):
        path.write_text(bad)
        with pytest.raises(UsageError, match=says):
            tuning.trials_table(path)


def test_the_command_fills_a_document(printed: Printed, tmp_path: Path) -> None:
    for last, budget in ((90.0, "quick"), (81.0, "standard")):
        write_record(tmp_path / "runs", make_record(last=last, budget=budget))
    path = document(
        tmp_path, "<!-- begin:leaderboard budget=standard -->", "<!-- end:leaderboard -->",
        "<!-- begin:leaderboard -->", "<!-- end:leaderboard -->",
    )  # fmt: skip
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("<!-- begin:leaderboard -->\n<!-- end:leaderboard -->\n")
    words = ("leaderboard", "--results", tmp_path / "runs", "--budget", "quick")
    out = printed(*words, "--write-docs", path, "--write-docs", tmp_path / "docs")
    assert "90.00" in (tmp_path / "docs" / "page.md").read_text()
    assert out.replace("\n", "").endswith("page.md")
    first, second = path.read_text().split("<!-- end:leaderboard -->")[:2]
    assert ("81.00" in first, "90.00" in first) == (True, False)
    assert ("81.00" in second, "90.00" in second) == (False, True)


def test_filling_a_document_loads_no_torch(tmp_path: Path) -> None:
    write_record(tmp_path / "runs", make_record())
    (tmp_path / "tuning.csv").write_text(TUNING)
    path = document(
        tmp_path, f"<!-- begin:published {known_method()} -->", "<!-- end:published -->",
        "<!-- begin:tuning tuning.csv -->", "<!-- end:tuning -->", "<!-- begin:leaderboard -->",
        "<!-- end:leaderboard -->", f"<!-- begin:settings {known_method()} -->", "<!-- end:settings -->",
        "<!-- begin:columns -->", "<!-- end:columns -->",
    )  # fmt: skip
    _, loaded = snoop("leaderboard", "--results", str(tmp_path / "runs"), "--write-docs", str(path))
    assert loaded == "['pandas', 'scipy']"
    assert stale(path) == []
