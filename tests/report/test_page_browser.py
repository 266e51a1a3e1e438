"""The leaderboard's page in a real browser: sorting, filtering, choosing, hints; by mouse and by keyboard; silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, browse, chromium
from factory import make_record
from pages import HOSTILE, write_run

from dfkd_bench.protocol import PROTOCOL
from dfkd_bench.report.html.build import page
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import load_results, long_table

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium: none of its names is on the path"),
]
NAMES = ".board tbody .name b"
HEAD = ".group:not([hidden]) .dt-column-order"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for all tests of this file."""
    with browse(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(shared: Tab) -> Iterator[Tab]:
    """The browser; after the test the page must have been silent and have asked for nothing but itself."""
    yield shared
    shared.settle()
    assert shared.logged == []
    assert shared.dialogs == []
    first, *others = shared.asked
    assert first.startswith("file://")
    assert [address[:60] for address in others if not address.startswith("data:")] == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, one with two tracks; curves, images, bounds, a failed run, an alarm."""
    root = tmp_path_factory.mktemp("small")
    for method, last, seconds in (("alpha", 91.0, 5.0), ("beta", 97.0, 300.0), ("gamma", 94.0, 20.0)):
        for seed in (0, 1):
            write_run(
                root, {1: 20.0, 2: last + seed}, labels=[0, 1] * 5, method=method, last=last + seed, seed=seed,
                measurement={"seconds_total": seconds},
                privileges=("gradients", "penultimate") if method == "beta" else ("gradients",),
            )  # fmt: skip
    write_run(root, method="gamma", seed=2, status="failed")
    write_run(root, {1: 9.0, 2: 10.0}, method="noise", last=10.0, privileges=(), result={"alarms": ["coverage: 10%"]})
    write_run(root, {1: 80.0, 2: 99.0}, method="real-kd", last=99.0, privileges=("real_data",))
    write_run(root, method="delta", track="recipe", preset="textbook")
    write_run(root, method="delta", track="recipe", budget="standard")
    write_run(root, method="omega", task="mnist/lenet5-lenet5_half")
    return write_page(root, load_results(root))


def write_page(folder: Path, runs: Any, results: Path | None = None) -> Path:
    """The page of some runs as a file."""
    path = folder / "page.html"
    path.write_text(page(runs, leaderboard(runs), results or folder), encoding="utf-8")
    return path


def sorted_by(tab: Tab, column: str) -> tuple[list[str], str | None]:
    """Methods from the top, and what the column's header says of its order."""
    told = tab.run(
        "[...document.querySelectorAll('.group:not([hidden]) th')].filter(e => e.checkVisibility())"
        f".find(e => e.textContent.startsWith('{column}')).getAttribute('aria-sort')"
    )
    return tab.texts(NAMES), told


# -- tables -----------------------------------------------------------------------------------------------------------


def test_sorting_by_click_keeps_bounds_beneath(tab: Tab, small: Path) -> None:
    tab.open(small)
    assert sorted_by(tab, "#") == (["beta", "gamma", "alpha", "noise", "real-kd"], "ascending")
    assert tab.texts(".board td.rank") == ["1", "2", "3", "–", "–"]
    tab.click(".board th:nth-child(11)")
    assert sorted_by(tab, "seconds") == (["alpha", "gamma", "beta", "noise", "real-kd"], "ascending")
    tab.click(".board th:nth-child(11)")
    assert sorted_by(tab, "seconds") == (["beta", "gamma", "alpha", "noise", "real-kd"], "descending")
    tab.click(".board th:nth-child(2)")
    assert sorted_by(tab, "method") == (["alpha", "beta", "gamma", "noise", "real-kd"], "ascending")


def test_sorting_by_keyboard(tab: Tab, small: Path) -> None:
    tab.open(small)
    tab.run(f"[...document.querySelectorAll('{HEAD}')].find(e => e.ariaLabel.startsWith('last')).focus()")
    tab.press("Enter")
    assert sorted_by(tab, "last") == (["beta", "gamma", "alpha", "real-kd", "noise"], "descending")
    tab.press("Enter")
    assert sorted_by(tab, "last") == (["alpha", "gamma", "beta", "noise", "real-kd"], "ascending")
    assert tab.run("document.activeElement.getAttribute('role')") == "button"


def test_missing_numbers_stand_last_whichever_way(tab: Tab, tmp_path: Path) -> None:
    found = [make_record(method="none", status="failed"), make_record(method="low", last=1.0),
             make_record(method="high", last=2.0)]  # fmt: skip
    tab.open(write_page(tmp_path, long_table(found)))
    tab.click(".board th:nth-child(3)")
    assert sorted_by(tab, "last")[0] == ["high", "low", "none"]
    tab.click(".board th:nth-child(3)")
    assert sorted_by(tab, "last")[0] == ["low", "high", "none"]
    assert tab.texts(".board td .bad") == ["1 failed"]


def test_equal_time_has_columns_of_its_own(tab: Tab, tmp_path: Path) -> None:
    found = [make_record(method="alpha"), make_record(method="slow", budget="seconds:20", last=70.0)]
    for method, seconds in (("quick", 15.0), ("gamma", 20.1)):
        measured = {"seconds": {"synthesis": seconds - 4.0, "distillation": 4.0, "evaluation": 2.0}}
        found.append(make_record(method=method, budget="seconds:20", measurement=measured))
    tab.open(write_page(tmp_path, long_table(found)))
    heads = "[...document.querySelectorAll('.group:not([hidden]) thead th')].map((e) => e.textContent.trim())"
    assert {"seconds", "mean", "selected"} < set(tab.run(heads))
    tab.click("[role=tab]:nth-child(2)")
    assert tab.run(heads)[2:8] == ["last ± 95 %", "n", "spent", "off", "made", "seen"]
    tab.click(".group:not([hidden]) .board th:nth-child(6)")
    assert sorted_by(tab, "off") == (["slow", "gamma", "quick"], "descending")
    assert tab.texts(".board td:nth-child(6)") == ["+190.0 %", "+0.5 %", "-25.0 %"]
    assert tab.texts(".board td:nth-child(8)")[0].startswith("51.2K")
    assert tab.texts(".board td:nth-child(8) .second")[0] == "400 steps"
    (warning,) = tab.texts(".notice")
    assert warning.startswith("More than 10 % off the budget")


@pytest.mark.parametrize(
    ("words", "left"),
    [("alp", "alpha"), ("penultimate", "beta"), ("official bound", "noise real-kd"), ("failed", "gamma"), ("97", "")],
)
def test_filtering(tab: Tab, small: Path, words: str, left: str) -> None:
    tab.open(small)
    tab.run("document.querySelector('.group:not([hidden]) input').focus()")
    tab.type(words)
    found = tab.texts(NAMES)
    assert found == left.split()
    assert tab.texts(".dt-info")[0].startswith(f"Rows 1 to {len(found)} of {len(found)}" if left else "No row")


def test_many_rows_come_in_pages(tab: Tab, tmp_path: Path) -> None:
    found = [make_record(method=f"m{k:03d}", last=k / 10) for k in range(130)]
    tab.open(write_page(tmp_path, long_table(found)))
    assert tab.texts(NAMES) == [f"m{k:03d}" for k in range(129, 79, -1)]
    tab.click(".dt-paging-button.last")
    assert tab.texts(NAMES) == [f"m{k:03d}" for k in range(29, -1, -1)]
    tab.click(".board th:nth-child(2)")
    assert tab.texts(NAMES)[0] == "m000"


def test_names_are_shown_as_they_are_written(tab: Tab, tmp_path: Path) -> None:
    found = [make_record(task="a/a-b")]
    for name in HOSTILE:
        odd = make_record(method=name, preset=name, overrides={"k": name}, device_name=name, task=f"x{name}/a-b",
                          privileges=("gradients", name), result={"alarms": [name]})  # fmt: skip
        odd["manifest"]["teacher"]["name"] = name
        odd["manifest"]["plugin"]["owner"] = name
        found.append(odd)
    tab.open(write_page(tmp_path, long_table(found)))
    scripts = tab.run("document.scripts.length")
    shown = []
    for k in range(len(HOSTILE)):
        tab.click(f"[role=tab]:nth-child({k + 2})")
        (name,) = tab.texts(NAMES)
        shown.append(name)
        assert tab.texts("h2")[0] == f"x{name}/a-b"
        assert tab.texts(".board .second") == [name, f"k={name}"]
        tab.click(".board .info")
        assert any(name in text for text in tab.texts(".more dd"))
        tab.run("document.querySelector('.task:not([hidden]) input').focus()")
        tab.type(name)
        assert tab.texts(NAMES) == [name]
    assert sorted(shown) == sorted(HOSTILE)
    assert set(HOSTILE) < set(tab.texts(".card h3"))
    assert tab.run("document.scripts.length") == scripts
    assert tab.run("document.querySelectorAll('img').length") == 0


# -- where a number comes from ----------------------------------------------------------------------------------------


def test_provenance_by_hover_by_focus_and_by_press(tab: Tab, small: Path) -> None:
    tab.open(small)
    shown = "document.querySelector('#tip').matches(':popover-open')"
    wait = "new Promise((done) => setTimeout(done, 250))"
    tab.hover(".board tbody tr:nth-child(2) .name b")
    tab.run(wait)
    assert tab.run(shown)
    (text,) = tab.texts("#tip")
    for words in ("gamma (official)", "0, 1", "2d" * 6, "5a" * 6, "Some CPU", "a" * 12, f"{PROTOCOL}/digits16"):
        assert words in text, words
    tab.press("Escape")
    assert not tab.run(shown)
    tab.hover("h1")

    tab.run("document.querySelector('.dt-input').focus()")
    for _ in range(20):  # through the headers to the first row
        tab.press("Tab")
        if tab.run("document.activeElement.className") == "info":
            break
    assert tab.run(shown)
    assert tab.run("document.activeElement.getAttribute('aria-describedby')") == "tip"
    assert "beta (official)" in tab.texts("#tip")[0]
    tab.press("Enter")
    assert not tab.run(shown)
    assert tab.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    (text,) = tab.texts(".more")
    assert "5a" * 32 in text
    records = tab.texts(".more td:nth-child(4)")
    assert len(records) == 2
    assert all((small.parent / record).is_file() for record in records)
    tab.press("Enter")
    assert tab.texts(".more") == []
    tab.press("Tab")
    assert "gamma (official)" in tab.texts("#tip")[0]
    tab.press("Enter")
    assert tab.texts(".more td:nth-child(2)") == ["complete", "complete", "failed: ValueError: no"]


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_tabs_by_arrow_keys(tab: Tab, small: Path) -> None:
    tab.open(small)
    assert tab.texts("h2")[0] == "digits16/cnn32-cnn16"
    tab.run("document.querySelectorAll('[role=tablist]')[1].querySelector('[tabindex=\"0\"]').focus()")
    tab.press("ArrowRight")
    assert tab.texts(NAMES) == ["delta"]
    assert tab.run("document.activeElement.textContent") == "recipe · standard"
    assert tab.run("document.activeElement.getAttribute('aria-selected')") == "true"
    place = tab.run("location.hash")
    tab.press("ArrowRight")
    tab.press("ArrowRight")  # round
    assert tab.texts(NAMES)[0] == "beta"
    tab.press("End")
    assert tab.texts(".board .second") == ["textbook"]
    tab.press("Home")
    assert tab.texts(NAMES)[0] == "beta"
    tab.run("document.querySelector('[role=tab]').focus()")
    tab.press("ArrowLeft")
    assert tab.texts("h2")[0] == "mnist/lenet5-lenet5_half"
    assert tab.texts(NAMES) == ["omega"]
    hidden = tab.run("[...document.querySelectorAll('[role=tabpanel]')].filter(e => !e.checkVisibility()).length")
    assert hidden == 4  # the other task and its three groups
    tab.run(f"location.hash = '{place}'")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    assert tab.texts(".board .second") == ["official"]  # an address leads to its group


def test_hundreds_of_groups_are_a_list_that_can_be_searched(tab: Tab, tmp_path: Path) -> None:
    found = [
        make_record(task=f"data{d:02d}/a-b", track=f"t{t:02d}", method=f"m{d}-{t}")
        for d in range(20)
        for t in range(10)
    ]
    tab.open(write_page(tmp_path, long_table(found)))
    assert tab.texts(NAMES) == ["m0-0"]
    tab.run("document.querySelector('[data-find]').focus()")
    tab.type("ta17")
    assert tab.texts(NAMES) == ["m17-0"]
    assert tab.run("[...document.querySelector('select').options].length") == 1
    tab.run(
        "(() => { const list = [...document.querySelectorAll('select')].filter(e => e.checkVisibility())[1];"
        "list.value = list.options[3].value; list.dispatchEvent(new Event('change')); })()"
    )
    assert tab.texts(NAMES) == ["m17-3"]
    assert len(tab.texts(".group caption")) == 1


# -- for every reader -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours_follow_the_system_until_the_reader_chooses(tab: Tab, small: Path, dark: bool) -> None:
    tab.open(small, dark=dark)
    tab.run("localStorage.clear()")
    tab.open(small, dark=dark)
    back = "getComputedStyle(document.body).backgroundColor"
    light, night = "rgb(247, 248, 250)", "rgb(17, 21, 27)"
    assert tab.run(back) == (night if dark else light)
    tab.click("#theme")
    assert tab.run(back) == (light if dark else night)
    tab.open(small, dark=dark)
    assert tab.run(back) == (light if dark else night)  # remembered
    tab.click("#theme")
    assert tab.run(back) == (night if dark else light)
    tab.run("localStorage.clear()")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_needs_the_page_to_scroll_sideways(tab: Tab, small: Path, width: int) -> None:
    tab.open(small, width, 800)
    tab.run("document.querySelectorAll('details').forEach((e) => (e.open = true))")
    tab.click(".board .info")
    assert tab.run("document.documentElement.scrollWidth") <= width
    inside = (
        "(() => { const e = [...document.querySelectorAll('.board tbody td.last')].find(e => e.checkVisibility());"
        "return e.getBoundingClientRect().right; })()"
    )
    assert tab.run(inside) <= width  # method and last need no scrolling at all
    tab.run("document.querySelector('.dt-layout-table > .dt-layout-cell').scrollLeft = 400")
    name = "document.querySelector('.board tbody .method').getBoundingClientRect().left"
    assert tab.run(name) >= 0  # the name stays


def test_what_a_screen_reader_is_told(tab: Tab, small: Path) -> None:
    tab.open(small)
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    said = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    roles = "main banner heading table columnheader rowheader tablist tab tabpanel searchbox"
    assert set(roles.split()) <= set(dict(said))
    assert all(name for role, name in said if role in ("button", "tab", "searchbox", "columnheader", "image", "region"))
    assert ("tablist", "Task") in said
    assert any(role == "rowheader" and name.startswith("beta") for role, name in said)
    assert any(role == "table" and name.startswith("Test top-1 in %") for role, name in said)


def test_a_curve_can_be_singled_out(tab: Tab, small: Path) -> None:
    tab.open(small)
    picked = "[...document.querySelectorAll('.chart g.on')].map(e => e.firstChild.textContent)"
    tab.hover(".key li:nth-child(2) button")
    assert tab.run(picked) == ["gamma (official): 94.50 %"]
    tab.hover("h1")
    assert tab.run(picked) == []
    tab.click(".key li:nth-child(1) button")
    tab.click(".key li:nth-child(4) button")
    tab.hover("h1")
    assert sorted(tab.run(picked)) == ["beta (official): 97.50 %", "noise (official): 10.00 %"]
    assert tab.run("document.querySelectorAll('.key [aria-pressed=true]').length") == 2


def test_images_are_shown(tab: Tab, small: Path) -> None:
    tab.open(small)
    sizes = tab.run(
        "Promise.all([...document.querySelectorAll('.grids img')]"
        ".map(e => e.decode().then(() => [e.naturalWidth, e.alt])))"
    )
    assert len(sizes) == 3
    assert sizes[0] == [5 * 18 - 2, "Synthetic images of beta (official), seed 0, a row per label, 0 to 1"]
