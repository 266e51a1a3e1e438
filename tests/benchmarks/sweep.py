"""Vary settings of a method one at a time, the others at the values of its preset; a CSV and a figure.

    python tests/benchmarks/sweep.py --method NAME --vary key=a,b,c [--vary preset=a,b] \
        --seeds 0-1 --budget quick --results DIR --csv FILE --figure FILE.png

The method's own value belongs to every setting, named or not, and its runs are shared by all of them. Finished runs are
taken from DIR, interrupted ones go on. Values that hold commas are parted by semicolons: --vary "weights=[1,2];[3,4]".
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plotting import check_png

from dfkd_bench import registry
from dfkd_bench.errors import BenchError, RunError, UsageError, did_you_mean
from dfkd_bench.files import write_atomic
from dfkd_bench.plan import Planned, Request, make_plan, parse_seeds
from dfkd_bench.protocol import DEFAULT_TASK
from dfkd_bench.report.figures.layout import finish, new_figure, width_of
from dfkd_bench.report.figures.style import COLOURS, save, styled
from dfkd_bench.run import run
from dfkd_bench.spec import coerce

PRESET = "preset"
COLUMNS = (
    "setting", "value", "seed", "top1_last", "coverage", "label_consistency", "agreement", "own", "status", "run",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One value of one setting, and its runs, one per seed."""

    setting: str
    value: Any
    own: bool  # the value that the method has without this sweep
    runs: tuple[Planned, ...]


def parse_vary(words: Sequence[str]) -> dict[str, list[str]]:
    """`key=a,b` as {key: [a, b]}. Raises `UsageError` for anything else."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, _, text = word.partition("=")
        values = [value.strip() for value in text.split(";" if ";" in text else ",")]
        if not key or not all(values) or key in found:
            raise UsageError(f"--vary takes NAME=VALUE,VALUE,... once per name, got {word!r}")
        found[key] = values
    return found


def plan_sweep(request: Request, vary: dict[str, list[str]], results: Path) -> list[Point]:
    """Every point of the sweep, values in order. Raises `UsageError` for what cannot be run, before anything runs."""
    own_runs = tuple(make_plan(request, results))
    base = own_runs[0]
    card = registry.card(base.entry)
    settings = dict(base.spec.settings)
    known = {info.name: info for info in card.settings}
    points = []
    for name, words in vary.items():
        if name == PRESET:
            own, values = base.spec.preset, list(words)
        elif name in known:
            own, values = settings[name], [coerce(known[name], word, "--vary") for word in words]
        else:
            raise UsageError(f"--vary: method {base.spec.method} has no setting {name!r}{did_you_mean(name, [*known])}")
        for value in _ordered([*values, own]):
            changed = replace(request, preset=value) if name == PRESET else request
            if name != PRESET:
                changed = replace(request, overrides={**request.overrides, name: value})
            runs = own_runs if value == own else tuple(make_plan(changed, results))
            points.append(Point(name, value, value == own, runs))
    return points


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once; numbers by size, words as they come."""
    once = list({json.dumps(value): value for value in values}.values())
    return sorted(once) if all(type(value) in (int, float) for value in once) else once


def execute(points: Sequence[Point], results: Path) -> list[dict[str, Any]]:
    """Run what is missing; the rows of the CSV. A run that fails is a row without numbers."""
    rows, known = [], {}
    for point in points:
        for planned in point.runs:
            spec = planned.spec
            if spec.hash not in known:
                print(f"{point.setting}={shown(point.value)} seed {spec.seed}", flush=True)
                try:
                    known[spec.hash] = run(spec, results, method=planned.entry, teacher=planned.teacher).record[
                        "result"
                    ]
                except UsageError:
                    raise
                except RunError as error:
                    print(f"error: {error}", file=sys.stderr)
                    known[spec.hash] = {"status": "failed"}
            rows.append(row_of(point, spec.seed, spec.hash, known[spec.hash]))
    return rows


def row_of(point: Point, seed: int, run_hash: str, result: dict[str, Any]) -> dict[str, Any]:
    """One line of the CSV; numbers that a run does not have are None."""
    quality = result.get("samples") or {}
    return {
        "setting": point.setting, "value": shown(point.value), "seed": seed,
        "top1_last": result.get("accuracy", {}).get("last"), "coverage": quality.get("coverage"),
        "label_consistency": quality.get("label_consistency"),
        "agreement": result.get("fidelity", {}).get("agreement"), "own": point.own, "status": result["status"],
        "run": run_hash,
    }  # fmt: skip


def shown(value: Any) -> str:
    """A value as figure and CSV write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """The CSV; numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@styled
def draw(rows: Sequence[dict[str, Any]], title: str) -> Any:
    """A panel per setting: a point per seed, a line through the means, the method's own value marked."""
    names = list(dict.fromkeys(row["setting"] for row in rows))
    across = 2 if len(names) == 4 else min(len(names), 3)
    figure, axes = new_figure(len(names), across, width_of(len(names)), 2.4 if len(names) == 1 else 2.0, share_y=True)
    for axis, name in zip(axes, names, strict=True):
        part = [row for row in rows if row["setting"] == name]
        values = list(dict.fromkeys(row["value"] for row in part))
        means = []
        for place, value in enumerate(values):
            scores = [row["top1_last"] for row in part if row["value"] == value and row["top1_last"] is not None]
            axis.plot(
                [place] * len(scores), scores, "o", color=COLOURS[0], alpha=0.45, markersize=3.2, markeredgewidth=0
            )
            means.append(statistics.mean(scores) if scores else float("nan"))
            if any(row["own"] for row in part if row["value"] == value):
                axis.axvspan(place - 0.3, place + 0.3, color="0.93", zorder=0, linewidth=0)
                axis.plot([place], [means[-1]], "D", color=COLOURS[1], markersize=5, zorder=4)
        number = all(_is_number(value) for value in values)
        stroke: dict[str, Any] = (
            {"linestyle": "-"} if number else {"linestyle": "none", "marker": "_", "markersize": 12}
        )
        axis.plot(range(len(values)), means, color=COLOURS[0], linewidth=1.3, zorder=3, **stroke)
        axis.set_xticks(range(len(values)), values, rotation=0 if max(map(len, values)) < 7 else 30)
        axis.set_xlim(-0.5, len(values) - 0.5)
        axis.grid(visible=False, axis="x")
        axis.set_xlabel(name, parse_math=False)
    axes[0].set_ylabel("top-1, last checkpoint, %")
    return finish(figure, title, ["Dots: seeds; line or bar: their mean; grey, diamond: the method's own value."])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", required=True)
    parser.add_argument("--vary", action="append", required=True, metavar="NAME=VALUE,VALUE")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="the same in all runs")
    parser.add_argument("--preset")
    parser.add_argument("--task", default=DEFAULT_TASK)
    parser.add_argument("--track", default="pinned")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--seeds", default="0-1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("runs"))
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    given = parser.parse_args(words)
    try:
        check_png(given.figure)
        fixed = dict(word.split("=", 1) for word in given.set if "=" in word)
        if len(fixed) != len(given.set):
            raise UsageError("--set takes NAME=VALUE, once per name")
        vary = parse_vary(given.vary)
        if both := set(fixed) & set(vary):
            raise UsageError(f"{both.pop()} is both varied and set")
        request = Request(
            (given.method,), (given.task,), parse_seeds(given.seeds), given.preset, given.track, given.budget,
            "auto", threads=given.threads, overrides=fixed,
        )  # fmt: skip
        points = plan_sweep(request, vary, given.results)
        rows = execute(points, given.results)
        write_atomic(given.csv, csv_text(rows).encode())
        spec = points[0].runs[0].spec
        seeds = f"{len(request.seeds)} seed{'s' * (len(request.seeds) > 1)}"
        title = (
            f"{spec.method} on {spec.task}, {spec.track}/{spec.budget}\n{seeds}, line: mean, diamond: the preset's own"
        )
        save(draw(rows, title), given.figure)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{len(rows)} rows: {given.csv}, {given.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
