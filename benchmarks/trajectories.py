"""Columns of the curves of records against student images: a line per kind of run, a band over its seeds.

    python benchmarks/trajectories.py --records DIR --columns loss/x,loss/y --csv FILE --figure FILE.png

Runs that differ in their seed alone share a line, which is their mean; the band goes from the lowest to the highest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dfkd_bench.errors import BenchError, UsageError, did_you_mean
from dfkd_bench.report.figures.data import curves_of, labelled
from dfkd_bench.report.figures.schedules import schedules
from dfkd_bench.report.figures.style import looks, save
from dfkd_bench.report.tables.leaderboard import DIGESTS, GROUP
from dfkd_bench.report.tables.runs import load_results
from dfkd_bench.utils.files import write_atomic

AXIS = "student_images"


def collect(root: Path, columns: Sequence[str], methods: Sequence[str], budget: str | None) -> pd.DataFrame:
    """Curves of the records that fit, their column `label` the name of the line.

    Raises `UsageError` where no curve has a column.
    """
    runs = load_results(root)
    if methods:
        runs = runs[runs["method"].isin(methods)]
    if budget:
        runs = runs[runs["budget"] == budget]
    if runs.empty:
        raise UsageError(f"no records with curves below {root} that fit")
    named = labelled(runs, runs)
    for term in GROUP:  # lines of several groups share a panel here, so their names tell them apart
        values = named[term].str[:8] if term in DIGESTS else named[term]
        told = named.groupby("method")[term].transform("nunique") > 1
        named["label"] = named["label"].where(~told, named["label"] + " " + values)
    found = curves_of(named)
    if found.empty:
        raise UsageError(f"no records with curves below {root} that fit")
    for column in columns:
        if column not in found:
            raise UsageError(f"no curve has a column {column!r}{did_you_mean(column, sorted(found.columns))}")
    return found


def long_of(found: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One number per row: run, seed, student_images, column, value."""
    long = found.melt(["label", "seed", AXIS], list(columns), "column", "value").dropna(subset=["value"])
    return long.rename(columns={"label": "run"})[["run", "seed", AXIS, "column", "value"]]


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--columns", required=True, help="names of columns of curves.csv, commas between")
    parser.add_argument("--method", action="append", default=[], help="this method only; repeatable")
    parser.add_argument("--budget", help="this budget only")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    given = parser.parse_args(words)
    try:
        if given.figure.suffix.lower() != ".png" or not given.figure.parent.is_dir():
            raise UsageError(f"--figure names a PNG file in a folder that exists, got {given.figure}")
        columns = [name.strip() for name in given.columns.split(",") if name.strip()]
        found = collect(given.records, columns, given.method, given.budget)
        figure = schedules(found, columns, looks(found["label"]))
        if figure is None:
            raise UsageError(f"no complete run has a number in {', '.join(columns)}")
        save(figure, given.figure)
        long = long_of(found, columns)
        write_atomic(given.csv, long.to_csv(index=False, lineterminator="\n").encode())
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{long['run'].nunique()} lines in {len(columns)} panels: {given.csv}, {given.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
