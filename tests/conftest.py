"""Shared by all tests: places of their own, helpers, the scripts of benchmarks/, one thread for torch.

No test reads or writes the folder that pytest was started in, or anything of the user's. What may lie beside the
checkout, `shared.py` says.

Processes that tests start have the two threads of the default, beside those of other tests: what waits in them sleeps.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import places  # before torch and all others: it sets the environment
import pytest
import torch
from commands import Command, Printed, Refused, dfkd

if TYPE_CHECKING:
    from forge import Forger

torch.set_num_threads(1)  # the number of threads changes bits; the networks here are too small to gain from more

LONG = ("test_tutorial", "test_ray", "test_slurm", "test_faults")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the full tier. The long files come first, with one worker: then no other waits at the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        if not (item.get_closest_marker("slow") or item.get_closest_marker("gpu")):
            item.add_marker(pytest.mark.full)


def pytest_unconfigure() -> None:
    """Nothing stays behind."""
    places.remove()


@pytest.fixture(scope="session", autouse=True)
def _apart() -> Iterator[None]:
    """What is made once for many tests is made in a place that they share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(places.SHARED_HERE)
        yield


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Each test works in a folder of its own and has a home of its own, both empty."""
    here, home = places.new()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("HOME", str(home))
        yield
    shutil.rmtree(here.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep of slow runs that every fault disturbs, done without disturbance; not to be changed."""
    from survive_faults import undisturbed

    root = tmp_path_factory.mktemp("whole")
    undisturbed(root)
    return root


@pytest.fixture(scope="session")
def real_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that real runs left; to be copied, never changed."""
    from forge import make_results

    return make_results(tmp_path_factory.mktemp("real") / "results")


@pytest.fixture
def forger(real_results: Path, tmp_path: Path) -> Forger:
    """A copy of that folder that may be spoilt."""
    from forge import Forger

    return Forger(real_results, tmp_path / "results")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Command:
    """Runs `dfkd-bench WORDS` in this process; gives exit status, output and errors."""
    return lambda *words, **options: dfkd(monkeypatch, capsys, *words, **options)


@pytest.fixture
def printed(command: Command) -> Printed:
    """Runs a command that must succeed and leave standard error empty: its output."""

    def call(*words: str | Path, columns: int = 120) -> str:
        status, out, err = command(*words, columns=columns)
        assert (status, err) == (0, "")
        return out

    return call


@pytest.fixture
def refused(command: Command) -> Refused:
    """Runs a command that must end with status 2 (or `status`), no output and one line on standard error: that line."""

    def call(*words: str | Path | float, status: int = 2, **options: Any) -> str:
        found, out, err = command(*words, **options)
        assert (found, out) == (status, ""), err
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        return err

    return call
