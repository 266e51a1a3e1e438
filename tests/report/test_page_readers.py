"""The leaderboard's page for every reader: contrast, structure, privilege cards, what is left out of large groups."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from factory import make_record, write_record
from pages import Seen, write_run

from dfkd_bench.report import html as package
from dfkd_bench.report.html import cards
from dfkd_bench.report.html.build import page
from dfkd_bench.report.html.groups import MAX_ROWS, groups
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import load_results, long_table

# -- for every reader -------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the lightest grey that passes on white


PAIRS = [
    *((text, back, 4.5) for text in ("ink", "soft", "accent", "warn", "best") for back in ("page", "card", "row")),
    ("on-accent", "accent", 4.5), ("warn", "warn-back", 4.5),
    *((f"c{k}", "card", 3.0) for k in range(8)),
]  # fmt: skip


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(theme: int) -> None:
    style = (Path(package.__file__).parents[1] / "templates" / "page.css").read_text()
    colours = {m[0]: m[1:] for m in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)}
    poor = [(a, b, round(contrast(colours[a][theme], colours[b][theme]), 2)) for a, b, least in PAIRS
            if contrast(colours[a][theme], colours[b][theme]) < least]  # fmt: skip
    assert poor == []
    outside = re.sub(r":root \{.*?\n\}", "", style, flags=re.S)
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", outside)) <= {"#fff", "#ccc"}  # behind images, and on paper


def test_structure_that_a_screen_reader_needs(tmp_path: Path) -> None:
    write_run(tmp_path, {1: 1.0, 2: 2.0}, labels=[1] * 10)
    write_run(tmp_path, track="recipe")
    runs = load_results(tmp_path)
    seen = Seen(page(runs, leaderboard(runs), tmp_path))
    tags = [tag for tag, _ in seen.elements]
    assert dict(seen.elements)["html"]["lang"] == "en"
    assert {"main", "header", "caption", "title", "noscript", "svg", "img"} <= set(tags)
    assert all(a["alt"] for tag, a in seen.elements if tag == "img")
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [a["id"] for _, a in seen.elements if "id" in a]
    assert len(ids) == len(set(ids))
    first = next(a for tag, a in seen.elements if tag == "a")
    assert first["href"] == "#main"
    assert "main" in ids


# -- cards and groups -------------------------------------------------------------------------------------------------


def test_cards_say_what_each_preset_uses() -> None:
    board = leaderboard(long_table([
        make_record(preset="a", privileges=("gradients",)), make_record(preset="b", privileges=("gradients",)),
        make_record(preset="c", privileges=("gradients", "penultimate")), make_record(method="beta", privileges=()),
        make_record(method="nobody", privileges=None), make_record(method="noise", privileges=()),
    ]))  # fmt: skip
    alpha, beta, nobody, noise = cards.cards(board)
    assert [(use.presets, [p[1] for p in use.privileges]) for use in alpha.uses] == [
        (("a", "b"), ["gradients"]), (("c",), ["gradients", "penultimate"]),
    ]  # fmt: skip
    assert alpha.owner == "somebody 1.2"
    assert [use.privileges for use in (*beta.uses, *nobody.uses)] == [(cards.LOGITS,), (cards.UNKNOWN,)]
    assert (noise.bound, beta.bound) == (True, False)
    assert noise.paper == ""  # somebody's noise is not the installed one


def test_cards_of_installed_methods_name_their_paper() -> None:
    record = make_record(method="real-kd", privileges=("real_data",))
    record["manifest"]["plugin"]["owner"] = "dfkd-bench"
    (card,) = cards.cards(leaderboard(long_table([record])))
    assert "Hinton" in card.paper
    assert card.summary


def test_large_groups_say_that_pictures_are_left_out(tmp_path: Path) -> None:
    for k in range(MAX_ROWS + 1):
        write_record(tmp_path, make_record(method=f"m{k}"))
    runs = load_results(tmp_path)
    board = leaderboard(runs)
    assert f"up to {MAX_ROWS} rows" in page(runs, board, tmp_path)
    assert [group.small for group in groups(runs, board, tmp_path)] == [False]
    fewer = board[board["method"] != "m0"]  # a part of the board is a page too
    assert f"up to {MAX_ROWS} rows" not in page(runs, fewer, tmp_path)
    assert "No curves" in page(runs, fewer, tmp_path)
