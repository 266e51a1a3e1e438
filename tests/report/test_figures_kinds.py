"""Ranks, published numbers, confusion, and what figures are drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn import board_of, drawn, overlaps, words_of
from factory import RESULT, make_record, write_record
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from safetensors.numpy import save_file

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.report.figures.confusion import confusion
from dfkd_bench.report.figures.data import blocks_of, confusion_of, labelled, names_of
from dfkd_bench.report.figures.published import published
from dfkd_bench.report.figures.ranks import ranks
from dfkd_bench.report.figures.style import looks
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import load_results, long_table

TASK, SMALL = "cifar10/resnet34-resnet18", "digits16/cnn32-cnn16"


class Found:
    """Ranks by hand: `a_$x$` differs from the two others, which do not differ from each other."""

    competitors = ("b", "a_$x$", "c")
    mean = np.array([2.25, 1.0, 2.75])
    n_blocks = 4
    friedman_p = 0.02
    cd = 1.2
    pairs = pd.DataFrame(
        [[np.nan, 0.01, 0.9], [0.01, np.nan, 0.02], [0.9, 0.02, np.nan]], index=competitors, columns=competitors
    )


def test_a_bar_joins_those_that_do_not_differ_and_no_others() -> None:
    figure = drawn(ranks(Found(), looks(Found.competitors), "t", ["first."]))
    (axes,) = figure.axes
    bars = [line for line in axes.get_lines() if line.get_linewidth() == 2.2]
    assert [list(line.get_xdata()) for line in bars] == [[2.25, 2.75]]
    marks = [c for c in axes.collections if isinstance(c, PathCollection)]
    at = {tuple(np.round(np.asarray(m.get_offsets())[0], 3)): tuple(m.get_facecolor()[0]) for m in marks}
    own = {name: look.colour for name, look in looks(Found.competitors).items()}
    from matplotlib.colors import to_rgba

    assert at == {(1.0, 0): to_rgba(own["a_$x$"]), (2.25, 0): to_rgba(own["b"]), (2.75, 0): to_rgba(own["c"])}
    texts = {t.get_text().strip() for t in axes.texts}
    assert texts == {"a_$x$  1.00", "b  2.25", "2.75  c", "CD = 1.20"}
    (ruler,) = [line for line in axes.get_lines() if line.get_marker() == "|"]
    assert np.ptp(ruler.get_xdata()) == pytest.approx(1.2)  # type: ignore[arg-type]
    said = words_of(figure)
    assert "Mean rank over 4 blocks" in said
    assert "p = 0.02." in said
    assert "does not refute" not in said
    assert overlaps(figure) == []


def test_a_bar_over_many_goes_from_end_to_end_once_whatever_order_a_set_has() -> None:
    class Alike(Found):
        competitors = tuple("abcdefgh")
        mean = np.linspace(2.0, 3.4, 8)
        pairs = pd.DataFrame(0.9, index=competitors, columns=competitors)

    figure = drawn(ranks(Alike(), looks(Alike.competitors)))
    (bar,) = [line for line in figure.axes[0].get_lines() if line.get_linewidth() == 2.2]
    assert list(bar.get_xdata()) == [2.0, 3.4]


def test_ranks_say_what_they_cannot_tell() -> None:
    found = Found()
    found.friedman_p = 0.4
    found.competitors = (*Found.competitors, "gone")  # type: ignore[assignment]
    found.mean = np.array([*Found.mean, np.nan])
    figure = drawn(ranks(found, looks(found.competitors)))
    said = words_of(figure)
    assert "does not refute that all rank alike" in said
    assert "Without a rank: gone." in said
    found.cd = float("nan")
    assert ranks(found, looks(found.competitors)) is None
    few = Found()
    few.mean = np.array([1.0, 2.0, np.nan])
    assert ranks(few, looks(few.competitors)) is None


def test_blocks_are_what_all_competitors_have_and_nothing_is_filled_in() -> None:
    found = [
        make_record(method=m, seed=s, task=t, last=90.0 + k + s, data=d * 32)
        for k, m in enumerate(("a", "b", "c", "noise")) for t, d in ((SMALL, "11"), (TASK, "22"))
        for s in (0, 1)
    ] + [make_record(method="a", seed=9, task=TASK, data="22" * 32, last=1.0),
         make_record(method="late", seed=0, task=TASK, data="22" * 32, last=99.0),
         make_record(method="hurt", seed=0, task=TASK, data="22" * 32, status="diverged", last=5.0)]  # fmt: skip
    runs = long_table(found)
    blocks = blocks_of(labelled(runs, runs))
    assert blocks.table.columns.tolist() == ["a", "b", "c"]
    assert blocks.table.index.tolist() == [(TASK, 0), (TASK, 1), (SMALL, 0), (SMALL, 1)]
    assert blocks.table.loc[(TASK, 1)].tolist() == [91.0, 92.0, 93.0]
    assert blocks.left_out == ("hurt", "late")
    assert blocks.dropped == 1


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_name_tells_its_row_and_stays_the_same_in_every_group() -> None:
    found = [
        make_record(method="a", preset="one"), make_record(method="a", preset="two"),
        make_record(method="a", preset="one", budget="full"), make_record(method="b", overrides={"x": 1.5}),
        make_record(method="c"), make_record(method="c", code="6b" * 32, budget="full"), make_record(method="d"),
        make_record(method="d", code="6b" * 32), make_record(method="e", threads=1), make_record(method="e"),
    ]  # fmt: skip
    board = labelled(leaderboard(long_table(found)), leaderboard(long_table(found)))
    assert sorted(board["label"]) == [
        "a one", "a one", "a two", "b x=1.5", "c", "c", "d code 5a5a5a5a", "d code 6b6b6b6b", "e 1 thread",
        "e 2 threads",
    ]  # fmt: skip


def test_names_cut_short_stay_apart() -> None:
    found = [make_record(overrides={"setting": "x" * 80 + str(k) + "y" * 40}) for k in range(2)]
    board = leaderboard(long_table(found))
    names = list(names_of(board).values())
    assert len(set(names)) == 2
    assert max(map(len, names)) < 70


# -- published --------------------------------------------------------------------------------------------------------


def printed(**more: Any) -> dict[str, Any]:
    row = {
        "method": "alpha", "dataset": "cifar10", "teacher": "resnet34", "student": "resnet18", "teacher_top1": 95.4,
        "student_supervised_top1": np.nan, "top1": 94.0, "std": np.nan, "selection": "best-on-test", "kind": "own",
        "source": "paper", "note": "",
    }  # fmt: skip
    return row | more


PRINTED = pd.DataFrame([
    printed(), printed(top1=93.0, selection="last", std=0.5),
    printed(top1=80.0, selection="mean-over-epochs", teacher_top1=94.0),
    printed(top1=70.0, selection="unknown", teacher_top1=np.nan), printed(top1=1.0, note="superseded: no"),
    printed(top1=np.nan), printed(top1=2.0, student="wrn16_1"), printed(top1=3.0, method="other"),
])  # fmt: skip


def ours(track: str, last: float, **more: Any) -> list[dict[str, Any]]:
    def result() -> dict[str, Any]:
        fidelity = {**RESULT["fidelity"], "teacher_top1": 95.6}
        return {"fidelity": fidelity, "accuracy": {**RESULT["accuracy"], "oracle": last + 1}}

    return [
        make_record(task=TASK, track=track, budget="full", seed=s, last=last + s / 10, result=result(), **more)
        for s in (0, 1)
    ]


def marks(figure: Figure, panel: int) -> list[tuple[float, float, str, bool]]:
    """Top-1, line from the top, shape, and whether hollow."""
    return [
        (round(float(line.get_xdata()[0]), 2), float(line.get_ydata()[0]), str(line.get_marker()), line.get_markerfacecolor() == "none")  # type: ignore[index]  # noqa: E501
        for line in figure.axes[panel].get_lines() if len(line.get_xdata()) == 1  # type: ignore[arg-type]
    ]  # fmt: skip


def test_published_stands_beside_the_recipe_track_and_the_pinned_one_apart() -> None:
    rows = board_of([*ours("recipe", 92.0), *ours("pinned", 90.0), *ours("recipe", 50.0, method="unheard")])
    figure = drawn(published(rows, PRINTED))
    assert marks(figure, 0) == [
        (94.0, 0.0, "^", False), (93.0, 0.0, "o", False), (80.0, 0.0, "D", True), (70.0, 0.0, "s", True),
        (92.05, 1.0, "o", False), (93.0, 1.0, "^", False),
    ]  # fmt: skip
    assert marks(figure, 1) == [(90.05, 1.0, "v", False)]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["published, and our recipe track", "our pinned track"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["alpha: published", "alpha: ours"]
    said = words_of(figure)
    assert "differs from ours (95.60 %) by more than 0.3 points or is not given" in said
    assert "The pinned track has other terms than any publication: drawn apart, not to be compared with it." in said
    assert "published, mean-over-epochs" in said
    assert overlaps(figure) == []


def test_pinned_rows_alone_never_share_a_panel_with_published_ones() -> None:
    figure = drawn(published(board_of(ours("pinned", 90.0)), PRINTED))
    assert {mark[0] for mark in marks(figure, 0)} == {94.0, 93.0, 80.0, 70.0}
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["published", "our pinned track"]


def test_shorter_runs_than_the_published_are_called_so_and_no_match_is_no_figure() -> None:
    short = [
        {**r, "spec": {**r["spec"], "budget": "quick"}, "hash": str(k)} for k, r in enumerate(ours("recipe", 92.0))
    ]
    figure = drawn(published(board_of(short), PRINTED))
    assert "not like for like" in words_of(figure)
    assert published(board_of([make_record()]), PRINTED) is None
    assert published(board_of(ours("recipe", 92.0, method="unheard")), PRINTED) is None
    assert published(board_of([make_record(task=TASK, status="failed")]), PRINTED) is None
    with pytest.raises(UsageError, match="rows of one budget only"):
        published(board_of([*short, *ours("recipe", 92.0)]), PRINTED)


# -- confusion --------------------------------------------------------------------------------------------------------

SAID = {"labels": [0, 1, 2, 2, 1, 0], "teacher": [0, 1, 2, 1, 1, 0], "student": [0, 2, 2, 2, 0, 0]}


def write(root: Path, said: dict[str, Any], **more: Any) -> Path:
    folder = write_record(root, make_record(**more)).parent
    save_file({k: np.array(v, dtype=np.int32) for k, v in said.items()}, folder / "predictions.safetensors")
    return folder / "predictions.safetensors"


def test_confusion_with_the_teacher_by_hand(tmp_path: Path) -> None:
    write(tmp_path, SAID, seed=0)
    write(tmp_path, SAID, seed=1)
    write(tmp_path, SAID, seed=2, status="diverged")
    write_record(tmp_path, make_record(seed=3))
    found = confusion_of(load_results(tmp_path))
    assert found is not None
    assert found.counts.tolist() == [[4, 0, 0], [2, 0, 4], [0, 0, 2]]
    # they differ on three images a run: teacher right on 1 and 4, student on 3
    assert (found.runs, found.images, found.differing) == (2, 12, 6)
    assert (found.teacher_right, found.student_right, found.neither_right) == (4, 2, 0)
    figure = confusion(found, "t")
    matrix, strip = figure.axes[:2]
    (image,) = [child for child in matrix.get_children() if isinstance(child, AxesImage)]
    shown = np.ma.asarray(image.get_array())
    assert shown.filled(0).tolist() == [[0, 0, 0], [2, 0, 4], [0, 0, 0]]  # the diagonal has no colour
    assert {(t.get_position(), t.get_text()) for t in matrix.texts} == {
        ((0, 0), "4"), ((0, 1), "2"), ((2, 1), "4"), ((2, 2), "2"),
    }  # fmt: skip
    assert [p.get_width() for p in strip.patches] == [4, 2, 0]  # type: ignore[attr-defined]
    said = words_of(figure)
    assert "12 test answers of 2 runs; they differ in 6 (50.00 %)." in said
    assert "teacher right 4" in said
    assert overlaps(figure) == []


def test_many_classes_are_a_picture_without_numbers() -> None:
    from dfkd_bench.report.figures.data import Confusion

    counts = np.diag(np.full(100, 90)).astype(np.int64)
    counts[3, 5] = 7
    figure = confusion(Confusion(counts, 7, 0, 0, 1), "t")
    assert not figure.axes[0].texts
    assert overlaps(figure) == []


@pytest.mark.parametrize(
    "bad", [{**SAID, "student": [0, 1]}, {"teacher": [0]}, {**SAID, "labels": [-1] * 6}], ids=["length", "key", "class"]
)
def test_predictions_that_are_none_are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    write(tmp_path, bad)
    with pytest.raises(RunError, match="does not hold the predictions of a run"):
        confusion_of(load_results(tmp_path))


def test_no_predictions_no_confusion(tmp_path: Path) -> None:
    write_record(tmp_path, make_record())
    assert confusion_of(load_results(tmp_path)) is None
    write(tmp_path, SAID, seed=1).write_bytes(b"junk")
    with pytest.raises(RunError, match="does not hold the predictions"):
        confusion_of(load_results(tmp_path))
