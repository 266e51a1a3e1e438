"""Running from Python: what `dfkd_bench.run` takes, gives and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plugin_file import write_method

import dfkd_bench
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.runs import records
from dfkd_bench.runs.spec import RunSpec

TABLE = {"method": ["noise"], "seeds": [0, 1], "budget": "smoke", "device": "cpu", "threads": 1}


def results_of(found: list[dict[str, Any]]) -> list[str]:
    return [records.canonical(record["result"]) for record in found]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return dfkd_bench.run(TABLE, tmp_path_factory.mktemp("here"))


def test_a_table_a_request_and_a_file_are_the_same_plan(here: list[dict[str, Any]], tmp_path: Path) -> None:
    assert [record["spec"]["seed"] for record in here] == [0, 1]
    assert all(record["result"]["status"] == "complete" for record in here)
    results = Path(here[0]["path"]).parents[4]
    request = dfkd_bench.Request(("noise",), seeds=(0, 1), budget="smoke", device="cpu", threads=1)
    (tmp_path / "study.toml").write_text(
        'method = "noise"\nseeds = "0-1"\nbudget = "smoke"\ndevice = "cpu"\nthreads = 1\n'
    )
    for spec in (request, tmp_path / "study.toml", str(tmp_path / "study.toml")):
        steps = list[Any]()
        assert dfkd_bench.run(spec, results, callback=steps.append) == here  # finished already: nothing runs
        assert steps == []


def test_one_specification_is_one_run_and_gives_the_same_bytes(here: list[dict[str, Any]], tmp_path: Path) -> None:
    steps = list[Any]()
    (record,) = dfkd_bench.run(RunSpec.from_json(here[1]["spec"]), tmp_path, callback=steps.append)
    assert records.canonical(record["result"]) == results_of(here)[1]
    assert {step.phase for step in steps} >= {"evaluation"}


def test_workers_give_the_same_bytes(here: list[dict[str, Any]], tmp_path: Path) -> None:
    found = dfkd_bench.run(TABLE, tmp_path, jobs=2)
    assert results_of(found) == results_of(here)


@pytest.mark.long
@pytest.mark.parametrize("how", [{}, {"jobs": 1}], ids=["here", "engine"])
def test_a_failed_run_is_told_at_the_end_and_tried_again_only_where_asked(how: dict[str, Any], tmp_path: Path) -> None:
    broken = write_method(tmp_path / "mine.py", sample="raise ValueError('no images today')")
    table = {**TABLE, "method": [broken, "noise"], "seeds": 0}
    results = tmp_path / "runs"
    with pytest.raises(RunError, match=r"1 of 2 runs failed; the others are recorded:\n.*no images today") as error:
        dfkd_bench.run(table, results, **how)
    assert str(error.value).count("\n") == 1
    left = list(records.find(results))
    assert len(left) == 2
    (failed,) = [path for path in left if records.read(path)["result"]["status"] == "failed"]
    before = failed.stat().st_mtime_ns
    with pytest.raises(RunError, match=r"it failed before: .*no images today"):
        dfkd_bench.run(table, results, **how)
    assert failed.stat().st_mtime_ns == before
    with pytest.raises(RunError, match=r"runs failed(?!.*failed before)"):
        dfkd_bench.run(table, results, retry_failed=True, **how)
    assert failed.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("spec", "how", "says"),
    [
        ({}, {}, "the table has no method"),
        ({"method": "noise", "sed": 1}, {}, "the table: unknown key 'sed'; did you mean 'seeds'"),
        ({"method": "noise", "budget": 3}, {}, "the table: budget takes str"),
        ("nowhere.toml", {}, "cannot read run file nowhere.toml"),
        (TABLE, {"run_timeout": 3.0}, "need an engine"),
        (TABLE, {"engine": "slum"}, "unknown engine 'slum'; did you mean 'slurm'"),
        (TABLE, {"jobs": 0}, "whole number from 1 on"),
        (TABLE, {"jobs": 2, "callback": print}, "callback works only for runs in this process"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(spec: Any, how: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        dfkd_bench.run(spec, tmp_path / "runs", **how)
    assert not (tmp_path / "runs").exists()
