"""What commands know of an engine comes from its module: help, checks, list, and the hours of a plan."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from commands import Command

from dfkd_bench import engines
from dfkd_bench.cli.options import engine_options
from dfkd_bench.engines.base import EngineKind, EngineOptions
from dfkd_bench.errors import UsageError
from dfkd_bench.profiling.estimate.makespan import WallTime, WorkerSetup, wall_time
from dfkd_bench.profiling.estimate.startup import StartupTimes
from dfkd_bench.profiling.estimate.table import csv_text, workers_sheet

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineKind]:
    """An engine more: its module, and its name in the list."""
    module = ModuleType("dfkd_bench.engines.cloud")
    kind = EngineKind("cloud", "rented machines", module.__name__, "queue", takes=("address", "config"), overhead=0.5)
    module.KIND = kind  # type: ignore[attr-defined]
    module.make = lambda options: options  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(engines, "BUILT_IN", (*engines.BUILT_IN, "cloud"))
    engines.engines.cache_clear()
    yield kind
    engines.engines.cache_clear()


def test_every_engine_is_called_as_its_module_and_says_what_is_true() -> None:
    assert engines.BUILT_IN[:3] == ("local", "ray", "slurm")
    for name, kind in engines.engines().items():
        assert kind.name == name
        assert not kind.extra or kind.extra in EXTRAS
        assert set(kind.takes) <= set(engines.OPTIONS)
        assert kind.module == f"dfkd_bench.engines.{name}" + ".engine" * bool(kind.extra)
        assert importlib.util.find_spec(kind.module)


def test_one_more_is_known_everywhere(cloud: EngineKind, monkeypatch: Any, command: Command) -> None:
    options = EngineOptions(address="a", config={"b": 1})
    made: Any = engines.engine("cloud", options)
    assert made == options
    with pytest.raises(UsageError, match=r"^engine local takes no --address: it is for ray and cloud$"):
        engines.engine("local", options)
    monkeypatch.setenv("COLUMNS", "200")
    said = click.command(engine_options(lambda **options: None)).get_help(click.Context(click.Command("run")))
    names = ", ".join(["local (default with --jobs)", *engines.BUILT_IN[1:]])
    assert f"Engine that executes the runs: {names}." in " ".join(said.split())
    assert "Address of an existing cluster, for --engine ray or cloud." in " ".join(said.split())
    assert "TOML file with a table for --engine slurm or cloud." in " ".join(said.split())
    _, out, _ = command("list", "engines")
    (line,) = [line for line in out.splitlines() if line.startswith("cloud")]
    assert line.split() == ["cloud", "-", "--address,", "--engine-config", "rented", "machines"]
    _, _, err = command("run", "-m", "noise", "--budget", "smoke", "--engine", "clod")
    assert err == "error: unknown engine 'clod'; did you mean 'cloud'?\n"
    site = WorkerSetup(StartupTimes(2.0, 3.0, {}), queue=60.0)
    found = wall_time(cloud, [10.0], 1, site)
    assert found == WallTime(2 + 60 + 3 + 10 + 0.5, 13.5)
    sheet = workers_sheet([(1, {name: WallTime(3600.0, 7200.0) for name in engines.engines()})], site, 3.0)
    head, row = (line.split(",") for line in csv_text(sheet).splitlines())
    cells = dict(zip(head, row, strict=True))
    assert (cells["cloud_hours"], cells["cloud_cost"]) == ("1.000000", "6.0000")
    assert "0.5 s (cloud) a run; slurm, cloud: a process" in sheet.notes[0]
    assert sheet.notes[-1].endswith("workers are paid to the end, slurm, cloud's only while their jobs run")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("locl", EngineOptions(), "unknown engine 'locl'; did you mean 'local'?"),
        ("local", EngineOptions(address="auto"), "engine local takes no --address: it is for ray"),
        ("slurm", EngineOptions(address="auto"), "engine slurm takes no --address: it is for ray"),
        ("local", EngineOptions(config={"a": 1}), "engine local takes no --engine-config: it is for slurm"),
        ("ray", EngineOptions(config={"a": 1}), "engine ray takes no --engine-config: it is for slurm"),
    ],
)
def test_engines_refuse_what_they_do_not_know(name: str, options: EngineOptions, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        engines.engine(name, options)
    assert str(caught.value) == says


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "dfkd_bench.engines.slurm.engine", raising=False)
    with pytest.raises(UsageError, match=r"engine slurm needs the extra: pip install 'dfkd-bench\[slurm\]'"):
        engines.engine("slurm", EngineOptions())
