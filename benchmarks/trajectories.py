"""Columns of the curves of records over student images: one line per kind of run, with a band over its seeds.

    python benchmarks/trajectories.py --records DIR --columns loss/x,loss/y --csv FILE --figure FILE.png

A line is the mean of runs that differ only in their seed; the band goes from the lowest to the highest of them.
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
    """Curves of the selected records, with the name of the line in column `label`.

    Raises `UsageError` if there are none, or if no curve has one of `columns`.
    """
    runs = load_results(root)
    if methods:
        runs = runs[runs["method"].isin(methods)]
    if budget:
        runs = runs[runs["budget"] == budget]
    if runs.empty:
        raise UsageError(f"no records with curves below {root} that fit")
    named = labelled(runs, runs)
    for term in GROUP:  # a panel shows lines of several groups, so their names must be different
        values = named[term].str[:8] if term in DIGESTS else named[term]
        several = named.groupby("method")[term].transform("nunique") > 1
        named["label"] = named["label"].where(~several, named["label"] + " " + values)
    curves = curves_of(named)
    if curves.empty:
        raise UsageError(f"no records with curves below {root} that fit")
    for column in columns:
        if column not in curves:
            raise UsageError(f"no curve has a column {column!r}{did_you_mean(column, sorted(curves.columns))}")
    return curves


def long_of(curves: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One number per row: run, seed, student_images, column, value."""
    long = curves.melt(["label", "seed", AXIS], list(columns), "column", "value").dropna(subset=["value"])
    return long.rename(columns={"label": "run"})[["run", "seed", AXIS, "column", "value"]]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--columns", required=True, help="columns of curves.csv, comma-separated")
    parser.add_argument("--method", action="append", default=[], help="this method only; repeatable")
    parser.add_argument("--budget", help="this budget only")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    options = parser.parse_args(words)
    try:
        if options.figure.suffix.lower() != ".png" or not options.figure.parent.is_dir():
            raise UsageError(f"--figure must name a PNG file in an existing folder, got {options.figure}")
        columns = [name.strip() for name in options.columns.split(",") if name.strip()]
        curves = collect(options.records, columns, options.method, options.budget)
        figure = schedules(curves, columns, looks(curves["label"]))
        if figure is None:
            raise UsageError(f"no complete run has a number in {', '.join(columns)}")
        save(figure, options.figure)
        long = long_of(curves, columns)
        write_atomic(options.csv, long.to_csv(index=False, lineterminator="\n").encode())
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{long['run'].nunique()} lines in {len(columns)} panels: {options.csv}, {options.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
