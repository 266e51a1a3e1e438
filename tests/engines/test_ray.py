"""Runs on real Ray clusters of this machine: what comes out is what the inline path gives, whatever happens on the way.

The faults are those of `survive_on_clusters.py`, whose functions say what is wrong after each.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("ray") is None:  # `ray_nodes` is to import it, with its settings in place
    pytest.skip("needs the extra: pip install 'dfkd-bench[ray]'", allow_module_level=True)

import survive_on_clusters as faults
from kill_and_resume import differences
from ray_nodes import cluster
from smoke_runs import plan, plan_one, start
from survive_faults import FAULTY, SLOW, Scene

from dfkd_bench.engines import engine
from dfkd_bench.engines.base import EngineOptions
from dfkd_bench.engines.scheduler import SchedulerOptions, run_plan, works_of
from dfkd_bench.errors import UsageError

pytestmark = pytest.mark.timeout(900)  # where others want the same cores, a cluster's nodes take minutes to start


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of noise, done in this process."""
    root = tmp_path_factory.mktemp("inline")
    for item in plan(root, "noise", seeds=(0, 1)):
        start(item, root)
    return root


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes of one core each."""
    with cluster(2) as (made, _):
        yield made.address


def check(name: str, whole: Path, results: Path, **more: Any) -> None:
    results.mkdir()
    wrong = getattr(faults, name)(Scene(whole, results), **more)
    if wrong and wrong[0].startswith("skipped"):
        pytest.skip(wrong[0])
    assert wrong == []


def test_runs_on_two_nodes_are_those_of_the_inline_path(
    whole: Path, inline: Path, two_nodes: str, tmp_path: Path
) -> None:
    planned, told = plan(tmp_path, SLOW, "noise", seeds=(0, 1)), []
    where = engine("ray", EngineOptions(address=two_nodes))
    try:
        run_plan(planned, tmp_path, where, faults.EVERY_ROUND, lambda work, report: told.append(report.outcome))
    finally:
        where.close()
    assert told == ["done"] * 4
    for item in planned:
        there = inline if item.spec.method == "noise" else whole
        assert differences(tmp_path / item.spec.folder, there / item.spec.folder) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".driver")] == []


def test_a_killed_worker_costs_one_retry_from_the_last_checkpoint(whole: Path, two_nodes: str, tmp_path: Path) -> None:
    check("ray_worker_killed", whole, tmp_path / "results", address=two_nodes)


def test_what_a_node_lacks_is_said_before_anything_runs(two_nodes: str, tmp_path: Path) -> None:
    where = engine("ray", EngineOptions(address=two_nodes))
    mine = tmp_path / "mine.py"
    mine.write_text(Path(FAULTY).read_text())
    try:
        planned = plan(tmp_path, f"{mine}:Slow", "noise")
        assert where.refuse(works_of(planned, tmp_path, SchedulerOptions())) == []
        mine.write_text(mine.read_text().replace("0.01 * self", "0.02 * self"))
        (line,) = where.refuse(works_of(planned, tmp_path, SchedulerOptions()))
        assert line.startswith(f"method {mine}:Slow is another version on ")
        mine.unlink()
        with pytest.raises(UsageError, match=f"^no such file: {mine} on "):
            run_plan(planned, tmp_path, where, faults.EVERY_ROUND)
        (line,) = where.refuse(works_of(plan(tmp_path, "noise", threads=3), tmp_path, SchedulerOptions()))
        assert line == "no node of the Ray cluster has 3 cores, which a run takes"
    finally:
        where.close()
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.slow
def test_limits_end_a_run_and_not_the_sweep(whole: Path, two_nodes: str, tmp_path: Path) -> None:
    check("ray_limits", whole, tmp_path / "results", address=two_nodes)


def test_a_node_that_goes_away_costs_one_retry(whole: Path, tmp_path: Path) -> None:
    check("ray_node_removed", whole, tmp_path / "results")


@pytest.mark.slow
def test_nodes_that_do_not_see_the_results_send_them(whole: Path, tmp_path: Path) -> None:
    check("ray_not_shared", whole, tmp_path / "results")


@pytest.mark.slow
def test_without_an_address_a_cluster_is_started_and_ended(
    inline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    item = plan_one(tmp_path, "noise")
    where = engine("ray", EngineOptions(jobs=1))
    try:
        run_plan([item], tmp_path, where, faults.EVERY_ROUND)
        assert ray.cluster_resources()["CPU"] == 1.0
    finally:
        where.close()
    assert not ray.is_initialized()
    assert differences(tmp_path / item.spec.folder, inline / item.spec.folder) == []
