"""Commands that only look: list, show, leaderboard. They say what they must and load no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import Printed, Refused, snoop, snoop_all
from factory import write_records
from plugin_file import declare

from dfkd_bench.cli.list import NAMES
from dfkd_bench.cli.main import COMMANDS
from dfkd_bench.models import ARCHITECTURES
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import TASKS
from dfkd_bench.report.docs import BEGIN, END
from dfkd_bench.report.terminal.describe import paragraphs
from dfkd_bench.report.terminal.listing import SECTIONS
from dfkd_bench.teachers.registry import writable_home


def test_every_help_is_quick() -> None:
    words = [*([name] for name in COMMANDS), ["teacher", "train"]]
    out, loaded = snoop_all([[*each, "-h"] for each in words])
    assert out.count("Usage: dfkd-bench ") == len(words)
    assert loaded == "[]"


# -- list and show ----------------------------------------------------------------------------------------------------


def test_list_shows_every_section_and_loads_nothing_heavy() -> None:
    out, loaded = snoop("list")
    assert loaded == "[]"
    for words in (*NAMES, "cpsc", "GBP", "real-kd (bound)", "digits16/cnn32-cnn16 (default)", "38.4 k", "wrn40_2",
                  "paper-tables", "gen_opt_state=persistent", "digits16-cnn32-s0", "99.50", "1x16x16"):  # fmt: skip
        assert words in out, words
    assert tuple(SECTIONS) == NAMES


@pytest.mark.parametrize("word", NAMES)
def test_list_shows_one_section(printed: Printed, word: str) -> None:
    out = printed("list", word, columns=80)
    assert out.split()[0] == word
    assert sum(line.strip() in NAMES for line in out.split("\n")) == 1
    assert all(len(line) <= 80 for line in out.split("\n"))


def test_tasks_are_listed_with_the_teachers_and_budgets_they_have(printed: Printed) -> None:
    own_teachers = writable_home()
    entry = 'dataset = "cifar10"\narch = "wrn40_2"\nseed = 0\nfile = "x"\nsha256 = "0"\ntop1 = 90.0\nrecipe = ""\n'
    (own_teachers / "registry.toml").write_text(f'[mine]\n{entry}origin = ""\n[other]\n{entry}origin = ""\n')
    out = printed("list", "tasks", columns=80)
    lines = [line.rstrip() for line in out.split("\n")]
    for name in TASKS:
        (k,) = (k for k, line in enumerate(lines) if line.startswith(f"{name} "))  # in one piece, at 80 columns too
        pair = name in ("cifar10/resnet20-resnet8", "cifar10/wrn16_2-wrn16_1", "cifar10/wrn40_1-wrn16_1")
        small = name.startswith(("digits16", "mnist", "fashion-mnist", "cifar10-16"))
        usual = ["102", "k", "256", "k", "1.28", "M"] if pair else ["512", "k", "4.1", "M", "20.5", "M"]
        assert lines[k].split()[-6:] == (["38.4", "k", "256", "k", "1.28", "M"] if small else usual)
        assert ([lines[k + 1], lines[k + 2]] == ["  mine", "  other"]) == name.startswith("cifar10/wrn40_2-")
        without = name.startswith(("svhn", "cifar100", "caltech101"))  # nobody has a teacher for these
        assert not (without and lines[k + 1].startswith(" "))


def test_models_are_listed_with_their_sizes(printed: Printed) -> None:
    out = printed("list", "models", columns=120)
    rows = {line.split()[0]: line.split() for line in out.split("\n") if line.split()}
    assert set(ARCHITECTURES) <= set(rows)
    assert rows["wrn40_2"][1:5] == ["2.24", "M", "328", "3x32x32"]
    assert rows["resnet34"][1:5] == ["21.3", "M", "1159", "3x32x32"]


FINE = '''
"""A plugin in a file of its own."""
raise SystemExit("imported")
class Config: width: int = setting(4, "how [wide]", unit="channels")
class Fine(Method):
    """Does [bold]nothing[/] well. Then more."""
    Config = Config
    privileges = Privileges(class_names=True)
'''
DYNAMIC = "Config = object\nclass Dynamic:\n    Config = make()\n    presets = make()\n"


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with packages that declare good, broken, clashing and dynamic methods."""
    root = tmp_path / "site"
    root.mkdir()
    files = {"plug_fine": FINE, "plug_broken": "def (", "plug_dynamic": DYNAMIC}
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    targets = {
        "fine": "plug_fine:Fine", "broken": "plug_broken:X", "dynamic": "plug_dynamic:Dynamic",
        "gone": "plug_gone:Gone", "noise": "plug_fine:Fine",
    }  # fmt: skip
    declare(root, "outsider", "3.1", registry.GROUP, targets)
    return root


def test_foreign_plugins_are_listed_and_never_imported(plugins: Path) -> None:
    out, loaded = snoop("list", "methods", path=plugins)
    assert loaded == "[]"
    lines = {line.split()[0]: line for line in out.split("\n") if line.split()}
    assert "outsider 3.1" in lines["fine"]
    assert "Does [bold]nothing[/] well" in lines["fine"]
    assert " N " in lines["fine"]
    assert "broken" in lines["broken"]
    assert "not valid Python" in lines["broken"]
    assert "the source of plug_gone:Gone cannot be found" in lines["gone"]
    assert "described in code only" in lines["dynamic"]
    assert "clash" in lines["noise"]
    assert "Class-conditional generator" in lines["cpsc"]
    out, loaded = snoop("list", "presets", path=plugins)
    assert loaded == "[]"
    assert "clash" in out


def test_show_says_everything_and_imports_no_method() -> None:
    out, loaded = snoop("show", "cpsc")
    assert loaded == "[]"
    for words in ("cpsc  dfkd-bench", "Pattern Recognition 143", "J_G = -L_KD", "back-propagates through the teacher",
                  "bn statistics", "official (default)", "cifar10/*", "ikd_generator=log_mse", "gen_opt_state",
                  "one of reset, persistent", "preset textbook: persistent", "preset official on cifar10/*: log_norm",
                  "fixed by track pinned", "base channels of the generator (channels)"):  # fmt: skip
        assert words in out, words


def test_show_a_file(printed: Printed, plugins: Path) -> None:
    out = printed("show", f"{plugins / 'plug_fine.py'}:Fine")
    assert "how [wide] (channels)" in out
    assert "Then more." in out
    assert "what the classes are called" in out


def test_static_cards_say_what_the_classes_say() -> None:
    for found in registry.entries().values():
        static = registry.static_card(found)
        assert static is not None, found.name
        loaded = registry.cards.card_of_class(registry.load(found))
        assert static.about.split() == loaded.about.split()
        assert static.doc.split() == loaded.doc.split()
        for field in ("paper", "presets", "default_preset", "privileges", "settings", "task_settings", "pinned"):
            assert getattr(static, field) == getattr(loaded, field), (found.name, field)


def test_docstrings_are_reflowed_but_formulas_are_not() -> None:
    assert list(paragraphs("one\ntwo\n\n    J = a\n    K = b\n\n\nthree")) == [
        "one two",
        "    J = a\n    K = b",
        "three",
    ]


# -- leaderboard ------------------------------------------------------------------------------------------------------


def test_leaderboard_over_a_thousand_records(tmp_path: Path) -> None:
    write_records(tmp_path, 1000)
    out, loaded = snoop("leaderboard", "--results", str(tmp_path), "--track", "recipe", "--budget", "quick")
    assert loaded == "['pandas', 'scipy']"
    assert "1000 records, 200 rows" in out
    assert "track recipe, budget quick" in out
    assert "track pinned" not in out
    board = pd.read_csv(tmp_path / "leaderboard.csv", keep_default_na=False)
    assert len(board) == 200  # the CSV holds everything, whatever is shown
    for _, row in board.iterrows():
        number = int(row["method"].removeprefix("method"))
        assert row["last_mean"] == pytest.approx(70.0 + number + 0.2)
        assert row["last_sd"] == pytest.approx(0.158114, abs=1e-6)  # of 0, 0.1, .. 0.4: sqrt(0.1 / 4)
        assert row["last_ci95"] == pytest.approx(2.776445 * 0.158114 / 5**0.5, abs=1e-5)  # t(0.975, 4)
        assert (row["n_complete"], row["seeds"]) == (5, "0,1,2,3,4")
    best = board[(board["method"] == "method19")]
    assert set(best["rank"]) == {1}
    assert list(best["track"]) == ["pinned"] * 6 + ["recipe"] * 4


def test_leaderboard_writes_csv_and_docs_where_told(
    printed: Printed, refused: Refused, monkeypatch: Any, tmp_path: Path
) -> None:
    write_records(tmp_path / "runs", 10)
    document = tmp_path / "B.md"
    document.write_text(f"top\n{BEGIN}\n{END}\n")
    words = ("leaderboard", "--results", tmp_path / "runs", "--csv", tmp_path / "x.csv", "--write-docs", document)
    printed(*words)
    assert (tmp_path / "x.csv").exists()
    assert not (tmp_path / "runs" / "leaderboard.csv").exists()
    assert "| 1 | method01 | preset0 | 5 | 71.20 ± 0.20 |" in document.read_text()
    monkeypatch.chdir(tmp_path)
    assert "cannot read BENCHMARKS.md" in refused("leaderboard", "--write-docs")


def test_leaderboard_says_when_a_filter_leaves_nothing(refused: Refused, tmp_path: Path) -> None:
    write_records(tmp_path, 2)
    assert "none of the 2 records" in refused("leaderboard", "--results", tmp_path, "--budget", "full")
