"""The style: colours that can be told apart, texts as they stand, sizes, and the same bytes for the same data."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from drawn import board_of, overlaps, texts_of, words_of
from factory import make_record
from matplotlib.figure import Figure

from dfkd_bench.errors import UsageError
from dfkd_bench.report.figures import layout
from dfkd_bench.report.figures.bars import bars
from dfkd_bench.report.figures.cost import cost
from dfkd_bench.report.figures.style import (
    COLOURS,
    COLUMN,
    MARKERS,
    SMALL,
    clean,
    figure_bytes,
    looks,
    save,
    slug,
    styled,
)

# Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009, severity 1.0, on linear RGB
SIGHTS = {
    "full": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
HOSTILE = ("a_b%&", "$x$", "<script>alert(1)</script>", "{label}", "--> ]]>")


def linear(colour: str) -> Any:
    part = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(rgb: Any) -> Any:
    """CIE 1976 L*a*b* of linear sRGB under D65."""
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    x, y, z = (
        np.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116
        for v in matrix @ rgb / np.array([0.95047, 1.0, 1.08883])
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_stay_apart_whatever_the_eye(sight: str) -> None:
    seen = [lab(np.clip(SIGHTS[sight] @ linear(colour), 0, 1)) for colour in (*COLOURS, "#ffffff")]
    nearest = min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))
    assert nearest > 15  # about 2 is just noticeable side by side, 10 at a glance


def test_more_methods_than_colours_differ_in_marker_and_stroke() -> None:
    found = looks(f"method{k:02d}" for k in range(60))
    assert len({(look.colour, look.marker) for look in found.values()}) == 60
    assert len({look.marker for look in list(found.values())[: len(MARKERS)]}) == len(MARKERS)
    first, eighth = found["method00"], found["method07"]
    assert first.colour == eighth.colour
    assert first.marker != eighth.marker
    assert first.stroke != eighth.stroke
    assert looks(["b", "a", "b"]) == looks(["a", "b"])


def hostile_rows() -> Any:
    return board_of(
        make_record(method=name, seed=seed, last=90.0 + k + seed / 10)
        for k, name in enumerate(HOSTILE)
        for seed in (0, 1)
    )


@pytest.mark.parametrize("draw", [cost, bars])
def test_names_of_plugins_come_out_as_they_stand(draw: Any) -> None:
    rows = hostile_rows()
    figure = draw(rows, looks(rows["label"]))
    written = texts_of(figure)
    for name in HOSTILE:
        (text,) = [t for t in written if t.get_text() == name]
        assert text.get_parse_math() is False
    assert not any(text.get_parse_math() for text in written)  # nor what is written around them
    assert overlaps(figure) == []
    drawn = figure_bytes(figure, "svg").decode()
    assert "<script" not in drawn
    figure_bytes(figure, "pdf")


def test_a_name_is_drawn_on_one_line_and_not_forever() -> None:
    assert clean("a\n\tb\x00c") == "a b c"
    assert clean("x" * 100, 10) == "xxxxxx…xxx"
    assert slug("../a b/<c>") == "_a_b__c_"


def test_the_same_data_give_the_same_bytes_and_no_date() -> None:
    rows = hostile_rows()
    for form in ("png", "pdf", "svg"):
        first, second = (figure_bytes(cost(rows, looks(rows["label"])), form) for _ in range(2))  # type: ignore[arg-type]
        assert first == second, form
        assert b"Date" not in first
        assert b"<dc:date>" not in first


def test_pixels_and_size_are_those_of_a_column() -> None:
    rows = hostile_rows()
    figure = cost(rows, looks(rows["label"]))
    assert figure is not None
    assert figure.get_figwidth() == COLUMN
    head = figure_bytes(figure, "png")[16:24]
    assert int.from_bytes(head[:4], "big") == round(COLUMN * 300)
    assert min(text.get_fontsize() for text in texts_of(figure)) >= SMALL >= 7


def test_a_user_s_own_settings_of_matplotlib_change_nothing_and_stay() -> None:
    rows = hostile_rows()
    plain = figure_bytes(bars(rows, looks(rows["label"])), "png")  # type: ignore[arg-type]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        assert figure_bytes(bars(rows, looks(rows["label"])), "png") == plain  # type: ignore[arg-type]
        assert matplotlib.rcParams["font.size"] == 30


def test_only_known_formats_are_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a figure is written as pdf, svg, png, got 'x\.jpg'"):
        save(Figure(), tmp_path / "x.jpg")
    assert list(tmp_path.iterdir()) == []


@styled
def test_title_notes_and_legends_make_the_figure_higher_and_cover_nothing() -> None:
    figure, (axes,) = layout.new_figure()
    lines = [axes.plot([0, 1], [0, k], label=f"a name of some length {k}")[0] for k in range(9)]
    axes.set(xlabel="x", ylabel="y")
    before = figure.get_figheight()
    layout.finish(figure, "a title " * 12, ["a note " * 40, "", "unbreakable" * 12], lines, lines[:2])
    assert overlaps(figure) == []
    assert figure.get_figheight() > before + 1
    words = words_of(figure)
    assert words.count("a note") == 40
    assert words.count("a title") == 12
    assert words.replace(" ", "").count("unbreakable") == 12


def test_a_window_keeps_the_many_apart_and_names_the_few() -> None:
    middle = np.array([99.0, 99.2, 99.4, 99.3, 20.0])
    view = layout.window(middle, middle - 0.1, middle + 0.1, [10.0, 99.55])
    assert not view.holds(20.0)
    assert not view.holds(10.0)
    assert view.holds(98.9)
    assert view.holds(99.55)  # near enough to be taken in
    assert view.low > 98.5
    assert view.high < 100
    wide = layout.window(middle[:4], middle[:4] - np.array([0.1, 0.1, 0.1, 5.0]), middle[:4] + 0.9)
    assert wide.low > 96  # not the whole of one long interval
    assert wide.high < 100.3


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (51200, "51.2k"), (1.3e6, "1.3M"), (2e9, "2G"), (0.5, "0.5")]
)
def test_counts_in_few_letters(value: float, text: str) -> None:
    assert layout.short(value) == text
