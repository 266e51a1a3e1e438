"""Columns of the curves of records against student images: a line per kind of run, a band over its seeds.

    python tests/benchmarks/trajectories.py --records DIR --columns loss/x,loss/y --csv FILE --figure FILE.png

Runs that differ in their seed alone share a line, which is their mean; the band goes from the lowest to the highest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from dfkd_bench import records
from dfkd_bench.errors import BenchError, UsageError, did_you_mean
from dfkd_bench.files import write_atomic
from dfkd_bench.report.plotting import GREY, check_png, line_style, new_figure, save, width_of

TERMS = (
    "preset", "overrides", "task", "track", "budget", "device", "precision", "threads", "protocol", "code", "teacher",
    "data", "compile",
)  # fmt: skip
DIGESTS = ("code", "teacher", "data")
AXIS = "student_images"


def collect(root: Path, columns: Sequence[str], methods: Sequence[str], budget: str | None) -> pd.DataFrame:
    """Long table: run, seed, student_images, column, value. Raises `UsageError` where no curve has a column."""
    parts, seen = [], set()
    specs: list[dict[str, Any]] = []
    for record in records.read_all(root):
        spec, file = record["spec"], Path(record["path"]).parent / "curves.csv"
        wanted = (not methods or spec["method"] in methods) and budget in (None, spec["budget"])
        if not wanted or record["result"]["status"] == "failed" or not file.is_file():
            continue
        curve = pd.read_csv(file)
        seen |= set(curve.columns)
        for column in columns:
            if column in curve:
                long = curve[[AXIS, column]].set_axis([AXIS, "value"], axis=1)
                parts.append(long.assign(run=len(specs), seed=spec["seed"], column=column))
        specs.append({**spec, "overrides": json.dumps(spec["overrides"], sort_keys=True)})
    if not specs:
        raise UsageError(f"no records with curves below {root} that fit")
    for column in columns:
        if column not in seen:
            raise UsageError(f"no curve has a column {column!r}{did_you_mean(column, sorted(seen))}")
    found = pd.concat(parts, ignore_index=True)
    labels = labels_of(specs)
    return found.assign(run=[labels[number] for number in found["run"]])[["run", "seed", AXIS, "column", "value"]]


def labels_of(specs: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each run, the same for runs that differ in their seed alone: its method, and what else tells it."""
    made = []
    for spec in specs:
        namesakes = [other for other in specs if other["method"] == spec["method"]]
        words = [spec["method"]]
        for term in TERMS:
            if len({str(other[term]) for other in namesakes}) > 1:
                if term == "overrides":
                    words += [f"{key}={value}" for key, value in json.loads(spec[term]).items()]
                else:
                    words.append(str(spec[term])[:8] if term in DIGESTS else str(spec[term]))
        made.append(" ".join(words))
    return made


def draw(found: pd.DataFrame) -> Any:
    """A panel per column."""
    columns, runs = list(found["column"].unique()), list(found["run"].unique())
    wide = 0.4 + 0.056 * max(map(len, runs))  # inches of an entry of the legend
    across = max(1, int(width_of(len(columns)) / wide))
    figure, axes = new_figure(len(columns), share_y=False, beneath=0.14 * -(-len(runs) // across))
    for axis, column in zip(axes, columns, strict=True):
        for number, run in enumerate(runs):
            part = found[(found["column"] == column) & (found["run"] == run)]
            over = part.groupby(AXIS)["value"].agg(["mean", "min", "max"])
            if over.empty:
                continue
            style = line_style(number)
            axis.fill_between(over.index, over["min"], over["max"], color=style["color"], alpha=0.18, linewidth=0)
            axis.plot(over.index, over["mean"], linewidth=1.3, label=run, **style)
        axis.set_title(column, fontsize=7.5, parse_math=False)
        axis.set_xlabel("student images", fontsize=7.5)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x else "0")
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    lines = {str(line.get_label()): line for axis in axes for line in axis.get_lines()}
    legend = figure.legend(
        list(lines.values()), list(lines), loc="outside lower center", ncols=across,
        fontsize=6.5, frameon=False,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set(color=GREY, parse_math=False)
    return figure


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
        check_png(given.figure)
        columns = [name.strip() for name in given.columns.split(",") if name.strip()]
        found = collect(given.records, columns, given.method, given.budget)
        write_atomic(given.csv, found.to_csv(index=False, lineterminator="\n").encode())
        save(draw(found), given.figure)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{found['run'].nunique()} lines in {len(columns)} panels: {given.csv}, {given.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
