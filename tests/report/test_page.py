"""The leaderboard's page as text: every row and number in it, nothing of a record or plugin part of it, no address."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from commands import finding
from factory import make_record, write_record
from pages import HOSTILE, Seen, page_at, page_of, rows_of

from dfkd_bench.report import html as package
from dfkd_bench.report.html.build import page
from dfkd_bench.report.html.groups import relative
from dfkd_bench.report.html.payload import ROW, as_json
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import load_results, long_table

# -- what is in it ----------------------------------------------------------------------------------------------------


def test_every_row_is_there_with_the_numbers_of_the_leaderboard() -> None:
    high, low = rows_of(
        make_record(method="high", last=95.0), make_record(method="high", last=97.0, seed=1),
        make_record(method="low", last=80.128),
    )  # fmt: skip
    assert (high["rank"], high["method"], high["n"], high["last"]) == (1, "high", 2, 96.0)
    assert high["ci"] == 12.71  # t(0.975, 1 degree) = 12.7062 times sd 1.41421 over sqrt(2)
    assert (high["oracle"], high["mean"], high["selected"], high["agreement"]) == (98.0, 80.0, 97.0, 97.25)
    assert (high["coverage"], high["seconds"], high["passes"]) == (100, 60.0, 112640 + 61440)
    assert (low["rank"], low["last"], low["ci"]) == (2, 80.13, None)
    assert set(high) == set(ROW)


def test_bounds_stand_beneath_and_have_no_rank() -> None:
    rows = rows_of(
        make_record(method="real-kd", last=99.0, privileges=("real_data",)),
        make_record(method="alpha", last=60.0),
        make_record(method="noise", last=10.0, privileges=()),
    )
    found = [(row["method"], row["rank"], row["bound"]) for row in rows]
    assert found == [("alpha", 1, 0), ("noise", None, 1), ("real-kd", None, 1)]


def test_failed_and_diverged_runs_are_counted_and_say_why() -> None:
    seen = page_of(
        make_record(seed=0, last=90.0), make_record(seed=1, status="diverged", last=1.0, result={"alarms": ["NaN"]}),
        make_record(seed=2, status="failed"), make_record(seed=3, last=92.0, result={"alarms": ["coverage: 10%"]}),
    )  # fmt: skip
    words, ((table),) = seen.data()
    (row,) = table["rows"]
    assert (row["n"], row["diverged"], row["failed"], row["alarmed"], row["last"]) == (2, 1, 1, 1, 91.0)
    runs = [(run[0], run[1], words["words"][run[5]] if len(run) > 5 else "") for run in row["runs"]]
    assert runs == [(0, 0, ""), (3, 0, "coverage: 10%"), (1, 1, "NaN"), (2, 2, "ValueError: no")]
    assert "1 diverged and 1 failed" in " ".join("".join(seen.text).split())


def test_a_run_on_disk_twice_is_one_run() -> None:
    again = {**make_record(last=90.0), "path": "copy/record.json"}
    (row,) = rows_of({**make_record(status="failed"), "path": "a/record.json"}, make_record(last=90.0), again)
    assert (row["n"], row["failed"]) == (1, 0)
    assert [run[:3] for run in row["runs"]] == [[0, 0, 90.0]]


def test_rows_that_cannot_be_compared_share_no_table() -> None:
    seen = page_of(*(make_record(track=t, budget=b, device=d) for t, b, d in
                     product(("pinned", "recipe"), ("quick", "standard"), ("cpu", "cuda"))))  # fmt: skip
    _, tables = seen.data()
    assert [len(table["rows"]) for table in tables] == [1] * 8
    labels = [table["title"].partition(", ")[2] for table in tables]
    assert labels[0] == "pinned · standard · cpu"  # the longest budget first, and the device because it differs
    assert len(set(labels)) == 8
    assert [a for tag, a in seen.elements if tag == "option"]  # too many for tabs
    assert len([1 for tag, a in seen.elements if tag == "section" and "group" in str(a.get("class"))]) == 8


def test_of_one_budget_the_table_with_most_rows_comes_first() -> None:
    seen = page_of(make_record(precision="bf16"), make_record(), make_record(method="b"), make_record(budget="smoke"))
    assert [len(table["rows"]) for table in seen.data()[1]] == [2, 1, 1]
    titles = [table["title"] for table in seen.data()[1]]
    assert ["fp32" in titles[0], "bf16" in titles[1], "smoke" in titles[2]] == [True] * 3


def test_one_group_needs_no_choice_and_several_are_tabs() -> None:
    def roles(seen: Seen) -> list[str]:
        return [str(a["role"]) for _, a in seen.elements if a.get("role") in ("tablist", "tab", "tabpanel")]

    assert roles(page_of(make_record())) == []
    two = page_of(make_record(), make_record(track="recipe"), make_record(task="mnist/lenet5-lenet5_half"))
    assert roles(two).count("tablist") == 2  # tasks, and the terms of one of them
    controlled = {a["aria-controls"] for _, a in two.elements if a.get("role") == "tab"}
    assert controlled == {a["id"] for _, a in two.elements if a.get("role") == "tabpanel"}


def test_provenance_is_whole(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    words, (table,) = Seen(page_at(tmp_path)).data()
    (row,) = table["rows"]
    said = {
        key: words["words"][row[key]] for key in ("code", "settings", "commit", "torch", "harness", "device", "folder")
    }
    assert said["code"] == "5a" * 32
    assert (said["commit"], said["torch"], said["harness"], said["device"]) == ("a" * 40, "2.11.0", "0.1.0", "Some CPU")
    assert len(said["settings"]) == 64
    assert table["data"] == "2d" * 32
    (run,) = row["runs"]
    leaf = f"{table['track']}-{table['budget']}-s{run[0]}-{run[3]}"  # as the script puts it together
    assert tmp_path / said["folder"] / leaf / "record.json" == path
    elsewhere = rows_of(make_record())[0]["runs"][0]  # somewhere/record.json is not where a run would put it
    assert len(elsewhere) == 5


def test_local_changes_show_in_the_commit() -> None:
    record = make_record()
    record["manifest"]["git_dirty"] = True
    assert long_table([record])["commit"].tolist() == ["a" * 40 + "+"]
    assert long_table([make_record()])["commit"].tolist() == ["a" * 40]


def test_paths_name_no_folder_of_the_machine(tmp_path: Path) -> None:
    write_record(tmp_path, make_record())
    runs = load_results(tmp_path)
    for results in (tmp_path, None):
        assert str(tmp_path) not in page(runs, leaderboard(runs), results)
    assert relative("/home/me/results/1.0/t/m/r/record.json", Path("/home/me/results")) == "1.0/t/m/r/record.json"
    assert relative("/home/me/results/1.0/t/m/r/record.json", None) == "1.0/t/m/r/record.json"


def test_no_record_is_a_page_too() -> None:
    assert "There are no records" in "".join(page_of().text)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    found = [make_record(method=m, seed=s, last=90 + s / 3) for m in ("b", "a", "noise") for s in range(3)]
    for name, order in (("x", found), ("y", found[::-1])):
        for record in order:
            write_record(tmp_path / name, record)
    assert page_at(tmp_path / "x") == page_at(tmp_path / "y")


# -- nothing gets in, nothing goes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_whatever_they_hold(name: str) -> None:
    failed = {**make_record(method="beta", status="failed")}
    failed["result"]["error"] = name
    odd = make_record(method=name, preset=name, overrides={"key": name}, task=f"{name}/a-b", track=name,
                      device_name=name, privileges=("gradients", name))  # fmt: skip
    odd["manifest"]["plugin"].update(owner=name, version=name)
    odd["manifest"]["teacher"]["name"] = name
    seen = page_of(odd, failed)
    plain = page_of(make_record(preset="p", overrides={"key": "v"}, task="x/a-b"), make_record(method="b"))
    words, tables = seen.data()
    assert name in [row["method"] for table in tables for row in table["rows"]]
    assert name in words["words"]
    assert {"img", "script"} & {tag for tag, _ in seen.elements} == {"script"}
    assert len(seen.raw) == len(plain.raw)  # no further script
    assert not [a for _, a in seen.elements if any(key.startswith("on") for key in a)]
    assert seen.text.count(name) >= 1 or name in "".join(seen.text)


def test_json_cannot_leave_its_element() -> None:
    text = as_json(["</script><!--", "a & b", "\u2028", "ä"])
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == ["</script><!--", "a & b", "\u2028", "ä"]


def test_the_page_asks_for_nothing() -> None:
    seen = page_of(make_record(), make_record(method="beta"))
    for tag, attributes in seen.elements:
        for key in ("src", "href", "srcset", "action", "data", "poster", "style"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (tag, key, value)
    (style,) = [text for tag, _, text in seen.raw if tag == "style"]
    assert not re.search(r"url\(|@import|http", style)


def test_the_policy_allows_the_two_scripts_and_no_request() -> None:
    seen = page_of(make_record())
    policy = next(str(a["content"]) for tag, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    run = [text for tag, a, text in seen.raw if tag == "script" and "type" not in a]
    digests = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in run]
    assert len(digests) == 2
    assert set(rules["script-src"].split()) == set(digests)


def test_the_library_is_the_one_that_its_table_names() -> None:
    folder = Path(package.__file__).parent / "vendor"
    named = dict(re.findall(r"\| `([\w.]+)` \|.*`([0-9a-f]{64})` \|", (folder / "README.md").read_text()))
    assert {p.name for p in folder.iterdir()} == {*named, "README.md"}
    for name, digest in named.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_a_page_needs_neither_torch_nor_a_method(tmp_path: Path) -> None:
    write_record(tmp_path, make_record(method="noise"))
    script = (
        "import sys; from pathlib import Path; from pages import page_at; page_at(Path(sys.argv[1]));"
        "print([m for m in ('torch', 'matplotlib', 'dfkd_methods') if m in sys.modules])"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    environment = finding(Path(__file__).parents[1] / "helpers")
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
