"""Versions of the protocol: what each is called, and that numbers of two of them never share a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import Command
from factory import make_record, write_record

from dfkd_bench.errors import UsageError
from dfkd_bench.protocol import PROTOCOL, TAGGED, check_version, latest, tag, titled, version
from dfkd_bench.report.docs import filled, stale, tables_of
from dfkd_bench.report.figures.data import terms_of
from dfkd_bench.report.html.groups import groups
from dfkd_bench.report.images.gallery import pick
from dfkd_bench.report.latex import latex
from dfkd_bench.report.tables import gap, tuning
from dfkd_bench.report.tables import leaderboard as lb
from dfkd_bench.report.tables.runs import load_results
from dfkd_bench.report.tables.throughput import throughput
from dfkd_bench.report.terminal.leaderboard import of_method

EARLIER, LATER = "1.1", "9.0"
SAID = f"protocol {EARLIER}, an earlier version"


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Two methods, two seeds, in two protocols: 90 and 80 in today's, 50 and 60 in an earlier one."""
    for of, alpha, beta in ((PROTOCOL, 90.0, 80.0), (EARLIER, 50.0, 60.0)):
        for seed in (0, 1):
            for method, last in (("alpha", alpha), ("beta", beta)):
                write_record(tmp_path / "runs", make_record(method=method, last=last + seed, seed=seed, protocol=of))
    return tmp_path / "runs"


def only_of(of: str, text: str) -> bool:
    """Whether `text` shows the numbers of the protocol `of` and none of the other."""
    return ("90.50" in text, "50.50" in text) == ((True, False) if of == PROTOCOL else (False, True))


# -- what they are called ---------------------------------------------------------------------------------------------


def test_versions_are_numbers() -> None:
    assert [version(w) for w in ("1.2", "0.10", "12.0")] == [(1, 2), (0, 10), (12, 0)]
    assert [version(w) for w in ("1", "1.2.3", "01.2", "1.x", " 1.2", "-1.2", "")] == [None] * 7
    assert latest(["1.9", "1.10", "1.2"]) == "1.10"
    assert latest(["x", "0.1"]) == "0.1"
    assert latest([]) is None
    assert check_version("1.1") == "1.1"
    with pytest.raises(UsageError, match=rf"a protocol is MAJOR.MINOR, such as {PROTOCOL}, got 'one'"):
        check_version("one")


def test_titles_say_whether_a_version_is_today_s() -> None:
    assert titled(PROTOCOL) == f"protocol {PROTOCOL}"
    assert titled(EARLIER) == SAID
    assert titled(LATER) == "protocol 9.0, a later version"
    assert titled("mine") == "protocol mine, no known version"


def test_earlier_versions_have_a_tag() -> None:
    assert tag(EARLIER) == "protocol-1.1"
    assert (tag(PROTOCOL), tag("1.0")) == (None, None)
    assert all((version(word) or (9,)) < (version(PROTOCOL) or (0,)) for word in TAGGED)


# -- tables -----------------------------------------------------------------------------------------------------------


def test_every_rendering_has_a_table_for_each_protocol(both: Path) -> None:
    runs = load_results(both)
    board = lb.leaderboard(runs)
    ranked = board.set_index(["protocol", "method"])["rank"].to_dict()
    assert ranked == {(PROTOCOL, "alpha"): 1, (PROTOCOL, "beta"): 2, (EARLIER, "beta"): 1, (EARLIER, "alpha"): 2}
    assert [line.split(" · ")[-1] for line in throughput(board).splitlines() if "budget quick" in line] == [
        SAID, f"protocol {PROTOCOL}",
    ]  # fmt: skip
    earlier, today = of_method(board, "alpha").split(f"protocol {PROTOCOL}")
    assert earlier.startswith(SAID)
    assert only_of(EARLIER, earlier)
    assert only_of(PROTOCOL, today)
    assert SAID in latex(board)
    shown = groups(runs, board, both)
    assert [dict(group.terms)["Protocol"] for group in shown] == [PROTOCOL, f"{EARLIER}, an earlier version"]
    assert [group.label.split(" · ")[-1] for group in shown] == [f"protocol {PROTOCOL}", SAID]


def test_figures_say_which_earlier_version_they_are_of(both: Path) -> None:
    board = lb.leaderboard(load_results(both))
    assert terms_of(board[board["protocol"] == PROTOCOL]).endswith("quick budget")
    assert terms_of(board[board["protocol"] == EARLIER]).endswith(f"quick budget, {SAID}")


def test_gaps_of_two_protocols_are_two_tables() -> None:
    common = dict.fromkeys(gap.NAMES, "x") | {"ours": 1.0, "ci95": 2.0, "published": 3.0, "gap": 4.0, "n": 1}
    rows = [{**common, "protocol": of, "source": f"of {of}"} for of in (PROTOCOL, EARLIER)]
    found = pd.DataFrame(rows, columns=list(gap.NAMES))
    earlier, today = gap.gaps_table(found).split(f"protocol {PROTOCOL}\n")
    assert earlier.startswith(f"{SAID}\n\n| task |")
    assert today.startswith("\n| task |")
    assert (f"of {EARLIER}" in earlier, f"of {PROTOCOL}" in earlier) == (True, False)
    assert (f"of {EARLIER}" in today, f"of {PROTOCOL}" in today) == (False, True)


# -- documents --------------------------------------------------------------------------------------------------------


def document(folder: Path, *lines: str) -> Path:
    path = folder / "D.md"
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.mark.parametrize("of", [PROTOCOL, EARLIER])
def test_a_marker_names_a_protocol(both: Path, tmp_path: Path, of: str) -> None:
    path = document(
        tmp_path, f"<!-- begin:leaderboard protocol={of} -->", "<!-- end:leaderboard -->",
        f"<!-- begin:throughput budget=quick protocol={of} -->", "<!-- end:throughput -->",
        f"<!-- begin:ours alpha protocol={of} -->", "<!-- end:ours -->",
    )  # fmt: skip
    board = lb.leaderboard(load_results(both))
    text = filled(path, tables_of(board, board))
    board_part, throughput_part, own_part = text.split("<!-- begin:")[1:]
    assert only_of(of, board_part)
    assert only_of(of, own_part)
    assert text.count(titled(of)) == 3
    assert all(titled(of) in part for part in (board_part, throughput_part, own_part))
    assert filled(path) == path.read_text()  # without records they stay as they are
    path.write_text(text.replace(titled(of), "protocol 1.7"))
    assert stale(path, tables_of(board, board)) == [
        f"leaderboard protocol={of}", f"throughput budget=quick protocol={of}", f"ours alpha protocol={of}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("leaderboard protocol=one", "line 1: a protocol is MAJOR.MINOR"),
        (f"leaderboard protocol={LATER}", "line 1: no record has protocol 9.0"),
        ("ours alpha beta", "takes the name of a method and maybe protocol=VERSION, got alpha beta"),
        ("ours alpha protocol=1.1 more", "and maybe protocol=VERSION, got alpha protocol=1.1 more"),
        ("ours alpha protocol=", "a protocol is MAJOR.MINOR"),
        ("tuning t.csv budget=quick", "takes the path of a tuning.csv and maybe protocol=VERSION"),
        ("published dafl protocol=1.1", "takes the name of a method, got dafl protocol=1.1"),
    ],
)
def test_a_marker_that_names_none_is_refused(both: Path, tmp_path: Path, marker: str, says: str) -> None:
    board = lb.leaderboard(load_results(both))
    path = document(tmp_path, f"<!-- begin:{marker} -->", f"<!-- end:{marker.partition(' ')[0]} -->")
    with pytest.raises(UsageError, match=says):
        filled(path, tables_of(board, board))


def test_a_search_of_several_protocols_is_parted_and_chosen_from(tmp_path: Path) -> None:
    columns = "task,track,budget,seed,method,preset,trial,settings,probe_agreement,eligible,chosen,protocol"
    rows = [f"t,pinned,quick,100,alpha,own,0,{{}},{score},true,true,{of}" for of, score in ((EARLIER, 11), (LATER, 22))]
    (tmp_path / "tuning.csv").write_text("\n".join([columns, *rows, ""]))
    text = tuning.trials_table(tmp_path / "tuning.csv")
    assert text.index(f"seed 100 · {SAID}") < text.index("11.00") < text.index(titled(LATER)) < text.index("22.00")
    assert "22.00" not in tuning.trials_table(tmp_path / "tuning.csv", EARLIER)


# -- commands ---------------------------------------------------------------------------------------------------------


def test_commands_keep_protocols_apart_or_show_one(both: Path, command: Command) -> None:
    def said(*words: Any) -> str:
        status, out, err = command(*words, "--results", both, columns=140)
        assert (status, err) == (0, ""), err
        return " ".join(out.split())

    text = said("leaderboard")
    assert text.index(SAID) < text.index("50.50") < text.index(f"protocol {PROTOCOL}") < text.index("90.50")
    assert only_of(EARLIER, said("leaderboard", "--protocol", EARLIER))
    assert only_of(PROTOCOL, said("leaderboard", "--protocol", PROTOCOL))
    text = said("compare", "alpha", "beta")
    assert f"protocol {PROTOCOL}" in text
    assert "alpha is better than beta: +10.00 points" in text
    assert "protocol 1.1" not in text
    text = said("compare", "alpha", "beta", "--protocol", EARLIER)
    assert SAID in text
    assert "alpha is worse than beta: -10.00 points" in text
    for command in (("leaderboard",), ("compare", "alpha", "beta"), ("figures", "bars")):
        status, _, err = command(*command, "--results", both, "--protocol", LATER)
        assert (status, "and protocol" in err or "protocol and" in err) == (2, True), err


def test_a_gallery_is_of_one_protocol() -> None:
    files = {"files": {"samples.safetensors": "0" * 64}}
    found = [
        make_record(method=m, protocol=of, result=files)
        for of, methods in ((EARLIER, ("alpha", "beta")), (PROTOCOL, ("alpha",)))
        for m in methods
    ]

    def picked(of: str | None) -> list[tuple[str, str]]:
        shown = pick(found, "digits16/cnn32-cnn16", "pinned", None, 0, of)
        return [(r["spec"]["method"], r["spec"]["protocol"]) for r in shown]

    assert picked(None) == [("alpha", PROTOCOL)]
    assert picked(EARLIER) == [("alpha", EARLIER), ("beta", EARLIER)]
    with pytest.raises(UsageError, match=r"protocol 9\.0"):
        picked(LATER)
