"""The whole atlas and its command: what is drawn, how files are called, what is left out and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import Command, Refused
from drawn import write_results, write_run
from factory import make_record, write_record

from dfkd_bench.errors import UsageError
from dfkd_bench.report.figures import cost
from dfkd_bench.report.figures.base import BUILT_IN, kinds
from dfkd_bench.report.figures.data import labelled
from dfkd_bench.report.figures.draw import Selection, Skipped, drawings
from dfkd_bench.report.figures.input import FigureInput, stems
from dfkd_bench.report.figures.style import looks
from dfkd_bench.report.tables.leaderboard import GROUP, leaderboard
from dfkd_bench.report.tables.runs import load_results, long_table

TASK = "digits16_cnn32-cnn16"


@pytest.fixture(scope="module")
def results(tmp_path_factory: Any) -> Path:
    """Three methods and the bounds, three seeds each, with curves and predictions."""
    return write_results(tmp_path_factory.mktemp("results"), methods=3, seeds=2, tasks=("digits16/cnn32-cnn16",))


def draw_all(*arguments: Any, **named: Any) -> tuple[list[Path], list[Skipped]]:
    """What `drawings` gives: files, and what was not drawn."""
    drawn = list(drawings(*arguments, **named))
    return [d for d in drawn if isinstance(d, Path)], [d for d in drawn if isinstance(d, Skipped)]


def test_all_that_the_records_allow_is_drawn(results: Path, tmp_path: Path) -> None:
    runs = load_results(results)
    files, skipped = draw_all(runs, leaderboard(runs), tmp_path / "new" / "out", formats=["png"])
    known = ("cost", "curves", "bars", "ranks", "published", "losses", "schedules", "confusion")
    assert BUILT_IN[: len(known)] == known
    assert {kind.name.partition("-")[0] for kind in (*files, *skipped)} == {*BUILT_IN}
    names = [file.name for file in files if file.name.partition("-")[0] in known]
    stem = f"{TASK}-pinned-quick"
    each = [f"{stem}-method-{k:02d}.png" for k in range(3)]
    assert names == [
        f"cost-{stem}.png", f"cost-{stem}-passes.png", f"curves-{stem}.png", f"curves-{stem}-seconds.png",
        f"bars-{stem}.png", "ranks-pinned-quick.png", *(f"losses-{n}" for n in each), f"schedules-{stem}.png",
        *(f"confusion-{n}" for n in each),
    ]  # fmt: skip
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert [(s.name, s.reason) for s in skipped][:1] == [(f"published-{TASK}-quick", "nothing published on this task")]


def test_records_without_files_beside_them_lose_those_figures_alone(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_record(tmp_path / "runs", make_record(seed=seed, last=90.0 + seed))
    write_record(tmp_path / "runs", make_record(seed=2, status="failed"))
    broken = write_run(tmp_path / "runs", {"method": "beta", "seed": 0}, 80.0)
    (broken / "predictions.safetensors").write_bytes(b"junk")
    runs = load_results(tmp_path / "runs")
    files, skipped = draw_all(
        runs, leaderboard(runs), tmp_path, ["bars", "curves", "ranks", "losses", "confusion"], formats=["svg"]
    )
    assert [f.name.split("-")[0] for f in files] == ["curves", "curves", "bars", "losses"]
    reasons = {s.name: s.reason for s in skipped}
    assert "fewer than three competitors" in reasons["ranks-pinned-quick"]
    assert reasons[f"losses-{TASK}-pinned-quick-alpha"] == "no run has curves beside its record"
    assert "does not hold the predictions" in reasons[f"confusion-{TASK}-pinned-quick-beta"]
    assert "no complete run has predictions" in reasons[f"confusion-{TASK}-pinned-quick-alpha"]


def test_a_limit_holds_for_each_kind_and_is_said(results: Path, tmp_path: Path) -> None:
    runs = load_results(results)
    files, skipped = draw_all(runs, leaderboard(runs), tmp_path, ["confusion", "bars"], formats=["svg"], limit=1)
    assert [f.name for f in files] == [f"bars-{TASK}-pinned-quick.svg", f"confusion-{TASK}-pinned-quick-method-00.svg"]
    (left,) = skipped
    assert (left.name, left.reason[:35]) == ("confusion", "2 more are beyond the limit of 1 of")


def test_unknown_words_are_refused_before_anything_is_drawn(results: Path, tmp_path: Path) -> None:
    runs = load_results(results)
    board = leaderboard(runs)
    with pytest.raises(UsageError, match="unknown kind of figure 'bar'; did you mean 'bars'"):
        draw_all(runs, board, tmp_path / "x", ["bar"])
    with pytest.raises(UsageError, match="unknown format 'jpg'"):
        draw_all(runs, board, tmp_path / "x", ["bars"], formats=["jpg"])
    assert not (tmp_path / "x").exists()


def test_a_choice_changes_no_colour(results: Path, tmp_path: Path) -> None:
    runs = load_results(results)
    board = leaderboard(runs)
    one, _ = draw_all(runs, board, tmp_path / "a", ["losses"], Selection(methods=("method-02",)), ["svg"])
    every, _ = draw_all(runs, board, tmp_path / "b", ["losses"], formats=["svg"])
    (alone,) = one
    (same,) = [file for file in every if file.name == alone.name]
    assert alone.read_bytes() == same.read_bytes()
    assert looks(["method-02"])["method-02"].colour not in alone.read_text()  # it is not the first of its call


def test_groups_have_names_of_their_own() -> None:
    keys = [
        ("1.0", "a/b-c", "d1", "t1", "pinned", "quick", "cpu", "fp32"),
        ("1.0", "a/b-c", "d1", "t1", "pinned", "quick", "cuda", "bf16"),
        ("1.0", "a_b-c", "d1", "t2", "pinned", "quick", "cpu", "fp32"),
        ("1.0", "../x/b-c", "d1", "t1", "recipe", "full", "cpu", "fp32"),
    ]
    assert list(stems(GROUP, keys).values()) == [
        "a_b-c-pinned-quick-t1-cpu-fp32", "a_b-c-pinned-quick-t1-cuda-bf16", "a_b-c-pinned-quick-t2-cpu-fp32",
        "_x_b-c-recipe-full",
    ]  # fmt: skip
    twice = [("1.0", f"a{c}b-c", "d", "t", "pinned", "quick", "cpu", "fp32") for c in "/_"]
    assert list(stems(GROUP, twice).values()) == ["a_b-c-pinned-quick", "a_b-c-pinned-quick-2"]


def test_seconds_of_two_devices_are_two_figures() -> None:
    runs = long_table([make_record(), make_record(method="beta", device_name="Other/CPU"), make_record(method="noise")])
    board = leaderboard(runs)
    found = FigureInput(labelled(runs, board), labelled(board, board), looks(["alpha", "beta"]))
    jobs = {job.name: job for job in cost.jobs(found)}
    stem = f"{TASK}-pinned-quick"
    assert list(jobs) == [f"{stem}-Other_CPU-2-threads", f"{stem}-Some_CPU-2-threads", f"{stem}-passes"]
    for job in jobs.values():
        figure = job.draw()
        assert figure is not None
        shown = {str(line.get_label()) for line in figure.axes[0].get_lines()} & {"alpha", "beta"}
        assert len(shown) == (2 if job.name.endswith("passes") else 1)


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_draws_and_what_not(
    command: Command, refused: Refused, results: Path, tmp_path: Path
) -> None:
    words = ["figures", "schedules", "published", "--results", results, "-o", tmp_path, "--format", "svg"]
    status, out, err = command(*words, "--columns", "loss/alpha, loss/student", "-m", "method-00")
    assert (status, out) == (0, f"{tmp_path / f'schedules-{TASK}-pinned-quick.svg'}\n")
    assert err == f"not drawn: published-{TASK}-quick: nothing published on this task\n"
    status, out, err = command(*words, "--columns", "loss/alpa")
    assert (status, out) == (2, "")
    assert "no curve has a column 'loss/alpa'; did you mean 'loss/alpha'" in err
    cases: list[tuple[tuple[str, ...], str]] = [
        (("-m", "method-0"), "no record of method 'method-0'"),
        (("--budget", "quik"), "unknown budget 'quik'"),
        (("--budget", "full"), "is of that task, track, budget, protocol and method"),
        (("--protocol", "1.1"), "is of that task, track, budget, protocol and method"),
        (("--protocol", "one"), "a protocol is MAJOR.MINOR"),
        (("-t", "x"), "unknown task 'x'"),
        (("--format", "gif"), "unknown format 'gif'"),
        (("--limit", "0"), "--limit"),
    ]
    for more, says in cases:
        status, out, err = command(*words, *more)
        assert (status, out) == (2, ""), more
        assert says in err
    assert "no results folder" in refused("figures", "--results", tmp_path / "none")


def test_the_help_names_every_kind(command: Command) -> None:
    _, out, _ = command("figures", "--help")
    assert all(f"  {kind}" in out for kind in kinds())
