"""What an engine adds to each run: a plan of runs that do nothing, through the whole of it.

    python benchmarks/engine_overhead.py --engine local --runs 1000 --jobs 2
    python benchmarks/engine_overhead.py --engine ray --runs 1000 --jobs 2
    python benchmarks/engine_overhead.py --engine slurm --runs 20 --engine-config site.toml

A run that does nothing is one whose record is there already: it is planned as missing, sent to a worker, and the worker
finds the record and says so. So everything is paid for but the training: driver, queue, transport, the method's digest,
the look for a record. Workers' starts are told apart, by the time to the first report.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from dfkd_bench.cli.run_with_engine import read_config
from dfkd_bench.engines import engine
from dfkd_bench.engines.base import EngineOptions, Report, Work
from dfkd_bench.engines.scheduler import SchedulerOptions, run_plan
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import PlannedRun


def plan_of(runs: int, results: Path) -> list[PlannedRun]:
    """A plan of `runs` runs whose records come into being after it was made."""
    request = Request(("noise",), seeds=tuple(range(runs)), budget="smoke", threads=1, device="cpu")
    planned = make_plan(request, results)
    for item in planned:
        folder = results / item.spec.folder
        folder.mkdir(parents=True)
        bare = {"spec": item.spec.to_json(), "hash": item.spec.hash, "manifest": {}, "measurement": {}}
        records.write(folder, {**bare, "result": {"status": "complete"}})
    return [replace(item, state="missing") for item in planned]


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--address")
    parser.add_argument("--engine-config", type=Path)
    options = parser.parse_args()
    config = read_config(options.engine_config, options.engine) if options.engine_config else {}
    ended: list[float] = []

    def told(work: Work, report: Report) -> None:
        assert report.outcome == "skipped", (work.spec.seed, report)
        ended.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        planned = plan_of(options.runs, results)
        where = engine(options.engine, EngineOptions(options.jobs, options.address, config, results))
        begun = time.monotonic()
        try:
            summary = run_plan(planned, results, where, SchedulerOptions(), told)
        finally:
            where.close()
        over = time.monotonic()
    if len(summary.skipped) != options.runs:
        print(f"FAILED: {len(summary.skipped)} of {options.runs} came back")
        return 1
    first, last = ended[0] - begun, ended[-1] - begun
    print(f"{options.engine}, {options.runs} runs, {options.jobs} at the same time")
    print(f"  {(over - begun) / options.runs:.4f} s per run, all told")
    print(f"  {first:.1f} s to the first report, then {(last - first) / max(1, options.runs - 1):.4f} s per run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
