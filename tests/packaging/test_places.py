"""Where tests work: neither in the folder that pytest was started in, nor with anything of the user's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import places
import pytest
from factory import make_record, write_record
from shared import ROOT

from dfkd_bench.data.home import data_home, user_folder
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.teachers.registry import teachers, user_home

ALONE = f"{Path(__file__)}::test_a_test_is_alone"
AFFECTED = (
    f"{ROOT / 'tests' / 'runs' / 'test_suites.py'}::test_a_suite_runs_every_method_and_options_win",
    f"{ROOT / 'tests' / 'cli' / 'test_cli_listing.py'}::test_list_shows_every_section_and_loads_nothing_heavy",
)
LOOK = "import os, pathlib; print(os.getcwd(), pathlib.Path.home(), *sorted(n for n in os.environ if n[:4] == 'XDG_'))"


def test_a_test_is_alone() -> None:
    here, home = Path.cwd(), Path.home()
    for folder in (here, home):
        assert folder.is_relative_to(places.PLACES)
        assert list(folder.iterdir()) == []
    for folder in (user_folder(), user_home(), data_home()):
        assert folder.is_relative_to(home)
    assert all(teacher.home.is_relative_to(ROOT / "dfkd_bench") for teacher in teachers().values())
    started = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert started.stdout.split() == [str(here), str(home)]


@pytest.mark.parametrize("turn", ["first", "second"])
def test_what_one_test_leaves_no_other_finds(turn: str) -> None:
    for folder in (Path.cwd(), user_folder()):
        folder.mkdir(parents=True, exist_ok=True)
        assert not (folder / "left").exists()
        (folder / "left").touch()


def test_records_and_teachers_where_pytest_is_started_are_not_seen(tmp_path: Path) -> None:
    launch, home = tmp_path / "launch", tmp_path / "home"
    runs = launch / "runs"
    for item in make_plan(Request(("scratch",), device="cpu"), runs):
        record = make_record(**item.spec.to_json())
        assert write_record(runs, record).is_file()
        assert make_plan(Request(("scratch",), device="cpu"), runs)[0].state == "done"
    spoilt = [home / ".cache" / "dfkd-bench", tmp_path / "cache" / "dfkd-bench", tmp_path / "own"]
    for folder in spoilt:
        (folder / "teachers").mkdir(parents=True)
        (folder / "teachers" / "registry.toml").write_text("not a registry")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "DFKD_BENCH_"))} | {
        "HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache"), "DFKD_BENCH_HOME": str(tmp_path / "own"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "1", ALONE, *AFFECTED],
        cwd=launch, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
