"""Accuracy against cost, and dots or bars per task: what is drawn is what the rows say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn import board_of, overlaps, words_of
from factory import RESULT, make_record
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from dfkd_bench.errors import UsageError
from dfkd_bench.report.figures.bars import bars
from dfkd_bench.report.figures.cost import SIDE_STEP, cost, pareto_front, sideways_offsets
from dfkd_bench.report.figures.style import looks

T2 = 4.302652729911275  # Student t, 2 degrees of freedom, 97.5 %
TASK2 = "cifar10/resnet34-resnet18"


def records(accuracies: dict[str, tuple[float, ...]], seconds: dict[str, float] | None = None, **more: Any) -> Any:
    for method, values in accuracies.items():
        for seed, last in enumerate(values):
            clock = {"seconds_total": (seconds or {}).get(method, 60.0)}
            yield make_record(method=method, seed=seed, last=last, measurement=clock, **more)


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    figure.draw_without_rendering()
    return figure


def points(figure: Figure, panel: int = 0) -> dict[str, tuple[float, float]]:
    """Single marks by their label."""
    found = {}
    for line in figure.axes[panel].get_lines():
        if line.get_marker() not in ("", "None", None) and len(line.get_xdata()) == 1:  # type: ignore[arg-type]
            found[str(line.get_label())] = (float(line.get_xdata()[0]), float(line.get_ydata()[0]))  # type: ignore[index]
    return found


def intervals(figure: Figure, panel: int = 0) -> list[tuple[float, ...]]:
    found = [c for c in figure.axes[panel].collections if isinstance(c, LineCollection)]
    return [tuple(float(v) for v in np.ravel(segment)) for c in found for segment in c.get_segments()]


def test_the_front_by_hand() -> None:
    costs = np.array([10.0, 20.0, 20.0, 30.0, 40.0, 5.0, 10.0])
    scores = np.array([80.0, 90.0, 85.0, 90.0, 95.0, 80.0, 99.0])
    # 5 s 80 %; 10 s 99 %: beats all that cost more
    assert pareto_front(costs, scores) == [5, 6]
    assert pareto_front(costs[:5], scores[:5]) == [0, 1, 4]
    assert pareto_front(np.array([1.0, 1.0, 2.0]), np.array([5.0, 5.0, 5.0])) == [
        0,
        1,
    ]  # the same point twice, then a dearer


def test_points_intervals_and_front_stand_where_the_numbers_say() -> None:
    rows = board_of(
        records(
            {"cheap": (90.0, 91.0, 92.0), "dear": (95.0, 95.0, 95.0), "bad": (89.0, 90.0, 91.0), "noise": (10.0, 11.0)},
            {"cheap": 10.0, "dear": 100.0, "bad": 50.0},
        )
    )
    figure = drawn(cost(rows, looks(rows["label"])))
    assert points(figure) == {"bad": (50.0, 90.0), "cheap": (10.0, 91.0), "dear": (100.0, 95.0)}
    half = T2 / math.sqrt(3)
    assert intervals(figure)[1] == pytest.approx((10.0, 91 - half, 10.0, 91 + half))
    (edge,) = [line for line in figure.axes[0].get_lines() if "Pareto" in str(line.get_label())]
    right = figure.axes[0].get_xlim()[1]
    assert list(zip(edge.get_xdata(), edge.get_ydata(), strict=True)) == [(10, 91), (100, 95), (right, 95)]
    assert figure.axes[0].get_xscale() == "log"
    said = words_of(figure)
    assert "Means over 2 to 3 seeds" not in said  # the bound does not count
    assert "Means over 3 seeds with 95 % intervals (Student t). Seconds on Some CPU, 2 threads." in said
    assert "noise 10.50, off the axis" in said
    assert overlaps(figure) == []


def test_names_stand_beside_points_where_they_find_room_else_in_a_legend() -> None:
    few = board_of(records({"a1": (80.0,), "b2": (85.0,), "c3": (90.0,)}, {"a1": 10.0, "b2": 30.0, "c3": 100.0}))
    figure = drawn(cost(few, looks(few["label"])))
    notes = {t.get_text(): t for t in figure.axes[0].texts if isinstance(t, Annotation)}
    assert set(notes) == {"a1", "b2", "c3"}
    place = points(figure)
    for name, note in notes.items():
        assert tuple(note.xy) == place[name]
    assert [line.get_markerfacecolor() for line in figure.axes[0].get_lines()[-3:]] == ["white"] * 3  # one seed each
    assert intervals(figure) == []
    assert "One seed each: no interval, hollow marks." in words_of(figure)
    names = [f"a-rather-long-name-{k}" for k in range(9)]
    many = board_of(records(dict.fromkeys(names, (90.0,))))  # all on one spot
    figure = drawn(cost(many, looks(many["label"])))
    assert not figure.axes[0].texts
    assert [t.get_text() for t in figure.legends[0].get_texts()] == names
    assert overlaps(figure) == []


def test_points_of_equal_cost_stand_side_by_side() -> None:
    assert sideways_offsets(np.array([10.0, 20.0, 10.01, 30.0, 10.02])).tolist() == [
        -SIDE_STEP,
        0.0,
        0.0,
        0.0,
        SIDE_STEP,
    ]
    rows = board_of(records({"a": (90.0, 91.0), "b": (90.0, 91.0)}))
    figure = drawn(cost(rows, looks(rows["label"])))
    marks = [line for line in figure.axes[0].get_lines() if line.get_label() in ("a", "b")]
    assert [list(line.get_xdata()) for line in marks] == [[60.0], [60.0]]
    left, right = (float(line.get_transform().transform((60.0, 90.5))[0]) for line in marks)
    assert right - left == pytest.approx(SIDE_STEP / 72 * figure.dpi)
    assert "Points of equal cost stand side by side." in words_of(figure)


def test_a_collapsed_method_does_not_flatten_the_rest() -> None:
    values = {f"m{k}": (99.0 + k / 10, 99.1 + k / 10) for k in range(5)} | {"lost": (20.0, 22.0)}
    rows = board_of(records(values))
    figure = drawn(cost(rows, looks(rows["label"])))
    low, high = figure.axes[0].get_ylim()
    assert low > 97
    assert high <= 100.2
    assert points(figure)["lost (21.0, off the axis)"][1] == low
    figure = drawn(bars(rows, looks(rows["label"])))
    assert "21.0, off the axis" in words_of(figure)
    assert overlaps(figure) == []


def test_failed_and_missing_are_said_and_not_drawn() -> None:
    rows = board_of(
        [
            *records({"a": (90.0, 91.0), "b": (92.0, 93.0)}),
            make_record(method="a", seed=7, status="failed"),
            make_record(method="a", seed=8, status="diverged", last=3.0),
            make_record(method="gone", status="failed"),
        ]
    )
    for figure in (drawn(cost(rows, looks(rows["label"]))), drawn(bars(rows, looks(rows["label"])))):
        said = words_of(figure)
        assert "Runs in no mean: a 1 diverged and 1 failed of 4; gone 1 failed of 1." in said
        assert "gone" not in points(figure)
    assert "Not drawn, a number is missing: gone." in words_of(drawn(cost(rows, looks(rows["label"]))))
    only = board_of([make_record(method="gone", status="failed")])
    assert cost(only, looks(only["label"])) is None
    assert bars(only, looks(only["label"])) is None


def test_what_does_not_compare_shares_no_figure() -> None:
    def both(**other: Any) -> pd.DataFrame:
        return board_of([make_record(), make_record(method="beta", **other)])

    for other in ({"track": "recipe"}, {"protocol": "1.1"}, {"device": "cuda"}, {"budget": "full"}):
        rows = both(**other)
        for draw in (cost, bars):
            with pytest.raises(UsageError, match=f"rows of one {next(iter(other))} only"):
                draw(rows, looks(rows["label"]))
    rows = both(device_name="Other CPU")
    with pytest.raises(UsageError, match="rows of one device_name only, got Other CPU, Some CPU"):
        cost(rows, looks(rows["label"]))
    assert cost(rows, looks(rows["label"]), "passes") is not None  # counts are the same everywhere
    with pytest.raises(UsageError, match="against seconds or passes, not 'euros'"):
        cost(rows, looks(rows["label"]), "euros")


# -- dots and bars ----------------------------------------------------------------------------------------------------


def test_bars_start_at_zero_where_they_tell_and_dots_say_that_they_do_not() -> None:
    far = board_of(records({"a": (90.0, 92.0), "b": (40.0, 44.0), "scratch": (95.0, 95.0)}))
    figure = drawn(bars(far, looks(far["label"])))
    (panel,) = figure.axes
    assert panel.get_xlim()[0] == 0.0
    widths = {round(p.get_y() + p.get_height() / 2): (p.get_x(), p.get_width()) for p in panel.patches}  # type: ignore[attr-defined]
    assert widths == {0: (0.0, 91.0), 1: (0.0, 42.0)}
    assert [t.get_text() for t in panel.get_yticklabels()] == ["a", "b"]
    said = words_of(figure)
    assert "Bars start at 0." in said
    assert "scratch 95.00" in said
    assert "teacher 99.50" in said
    near = board_of(records({"a": (99.0, 99.2, 99.4), "b": (98.8, 98.9, 99.0), "noise": (10.0,)}))
    figure = drawn(bars(near, looks(near["label"])))
    assert not figure.axes[0].patches
    assert figure.axes[0].get_xlim()[0] > 98
    assert sorted(points(figure).values(), key=lambda p: p[1]) == [(99.2, 0.0), (pytest.approx(98.9), 1.0)]
    half = T2 * 0.2 / math.sqrt(3)
    assert intervals(figure)[0] == pytest.approx((99.2 - half, 0, 99.2 + half, 0))
    said = words_of(figure)
    assert "Dots: the axis does not start at 0." in said
    assert "noise 10.00, off the axis" in said


def test_every_task_has_its_panel_and_what_was_not_run_stays_empty() -> None:
    harder = {"fidelity": {**RESULT["fidelity"], "teacher_top1": 95.0}}
    rows = board_of(
        [
            *records({"a": (99.0, 99.1), "b": (99.2, 99.3), "scratch": (99.4,)}),
            *records({"a": (90.0, 90.4), "scratch": (94.0,)}, task=TASK2, result=harder),
        ]
    )
    figure = drawn(bars(rows, looks(rows["label"])))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [TASK2, "digits16/cnn32-cnn16"]
    assert [t.get_text() for t in figure.axes[0].texts] == ["no run"]
    lines = [
        {float(np.ravel(line.get_xdata())[0]) for line in axes.get_lines() if len(line.get_xdata()) == 2}  # type: ignore[arg-type]
        for axes in figure.axes
    ]
    assert 95.0 not in lines[1]
    assert {99.4, 99.5} <= lines[1]
    legend = " ".join(t.get_text() for legend in figure.legends for t in legend.get_texts())
    assert "teacher 95.00" in legend
    assert "teacher 99.50" in legend
    strokes = {
        str(h.get_label()).split()[0]: h.get_linestyle()
        for legend in figure.legends
        for h in legend.legend_handles
        if isinstance(h, Line2D) and h.get_linestyle() != "None"
    }
    assert strokes["teacher"] == "-"
    assert overlaps(figure) == []


def test_one_task_under_two_teachers_is_two_panels() -> None:
    rows = board_of(
        [*records({"a": (99.0, 99.1), "b": (98.0, 98.2)}), *records({"a": (95.0, 95.1)}, teacher="ab" * 32)]
    )
    figure = drawn(bars(rows, looks(rows["label"])))
    assert sorted(axes.get_title(loc="left")[-10:] for axes in figure.axes) == [" abababab)", " e72e14fd)"]


def test_thirteen_methods_within_half_a_point_are_legible() -> None:
    values = {f"method-{k:02d}": tuple(99.0 + k / 25 + s / 10 for s in range(3)) for k in range(13)}
    rows = board_of(
        records(values | {"noise": (18.0,), "real-kd": (99.4,)}, {m: 20.0 * (k + 1) for k, m in enumerate(values)})
    )
    for figure in (drawn(cost(rows, looks(rows["label"]))), drawn(bars(rows, looks(rows["label"])))):
        assert overlaps(figure) == []
        span = figure.axes[0].get_ylim() if len(figure.legends[0].get_texts()) == 13 else figure.axes[0].get_xlim()
        assert span[1] - span[0] < 2.5
        assert "real-kd 99.40" in words_of(figure)
