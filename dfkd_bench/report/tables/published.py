"""Published accuracies from `reference/published.csv`, as data and as a Markdown table for one method.

They are shown beside our numbers for orientation only: they come from other teachers, budgets and generators, and most
are the best epoch on the test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.report import markdown
from dfkd_bench.utils.text import counted

FILE = Path(__file__).parents[2] / "reference" / "published.csv"
NUMBERS = ("teacher_top1", "student_supervised_top1", "top1", "std")
KINDS = ("own", "sweep-mean", "independent", "baseline")  # in the order of a table
CONDENSED = KINDS[-1]
MEAN = "mean-over-epochs"
SUPERSEDED, SECONDARY, REPEATED = (
    "superseded",
    "secondary source",
    "same number as",
)  # how notes begin, or what they hold
HEADERS = ("dataset", "pair", "teacher", "top-1 ± std (n)", "selection", "kind", "source", "note")
RIGHT = HEADERS[2:4]
CAUTION = (
    "These numbers come from other teachers, budgets and generators than ours, and mostly from the best epoch on the "
    "test set: they are not directly comparable with the tables of this benchmark."
)


def published() -> pd.DataFrame:
    """All published numbers, one row each; `reference/README.md` describes the columns.

    Numbers are float64 (NaN if the source gives none), `n_runs` is Int64, everything else text, empty if unknown.
    Methods and networks may be ones that the benchmark does not have. Raises `RunError` for two equal rows.
    """
    frame = _as_printed()
    frame[list(NUMBERS)] = frame[list(NUMBERS)].apply(pd.to_numeric)
    frame["n_runs"] = pd.to_numeric(frame["n_runs"]).astype("Int64")
    return frame


def published_table(method: str) -> str:
    """The published numbers of `method` as Markdown: its own first, those from papers of other methods as ranges.

    Numbers have the digits of their source. Superseded ones are left out. Raises `UsageError` for a method without a
    published number.
    """
    all_numbers = _as_printed()
    known = sorted(set(all_numbers["method"]))
    if method not in known:
        raise UsageError(f"no published number of {method!r}{did_you_mean(method, known)}")
    rows = all_numbers[all_numbers["method"] == method]
    superseded = rows["note"].str.startswith(SUPERSEDED)
    rows = rows[~superseded]
    lines = markdown.table(HEADERS, _rows(rows), left=[h for h in HEADERS if h not in RIGHT])
    left_out = int(superseded.sum())
    notes = [f"{left_out} superseded number{'s are' if left_out > 1 else ' is'} left out."] * bool(left_out)
    if (rows["kind"] == CONDENSED).any():
        notes.append(f"kind {CONDENSED}: published by authors of other methods.")
    return "\n".join([*lines, "", " ".join([*notes, CAUTION])]) + "\n"


def _as_printed() -> pd.DataFrame:
    """The file as text, so that 95.70 keeps its zero. Raises `RunError` for two equal rows."""
    frame = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    for row in frame[frame.duplicated()].to_dict("records"):
        name = f"{row['method']} on {row['dataset']} {_pair(row)}, {row['top1']}, {row['source']}"
        raise RunError(f"{FILE.name} has two rows that are equal in every column ({name}): remove one")
    return frame


def _rows(table: pd.DataFrame) -> Iterator[list[str]]:
    for kind in KINDS:
        part = table[table["kind"] == kind]
        if kind != CONDENSED:
            yield from (_single_row(row) for row in part.to_dict("records"))
            continue
        apart = part["selection"] == MEAN  # a mean over epochs is not comparable with the rest, so it has its own range
        for _, group in part.groupby(["dataset", "teacher", "student", apart], sort=False):
            rows = group.to_dict("records")
            yield _single_row(rows[0]) if len(rows) == 1 else _condensed_row(rows)


def _single_row(row: dict[Any, str]) -> list[str]:
    top1 = row["top1"] or "–"
    top1 += f" ± {row['std']}" * bool(row["std"]) + f" ({row['n_runs']})" * bool(row["n_runs"])
    return [
        row["dataset"],
        _pair(row),
        row["teacher_top1"],
        top1,
        row["selection"],
        row["kind"],
        row["source"],
        row["note"],
    ]


def _condensed_row(rows: Sequence[dict[Any, str]]) -> list[str]:
    first, sources = rows[0], len({row["source"] for row in rows})
    over = f"{len(rows)} numbers, {counted(sources, 'source')}"
    ranges = [_range([row[name] for row in rows]) for name in ("teacher_top1", "top1")]
    selection = ", ".join(dict.fromkeys(row["selection"] for row in rows))
    repeated = sum(REPEATED in row["note"] for row in rows)
    secondary = sum(row["note"].startswith(SECONDARY) for row in rows)
    notes = [f"{repeated} repeated from another source"] * bool(repeated)
    notes += [f"{secondary} from a {SECONDARY}"] * bool(secondary)
    return [first["dataset"], _pair(first), *ranges, selection, first["kind"], over, "; ".join(notes)]


def _pair(row: dict[Any, str]) -> str:
    return "-".join(filter(None, (row["teacher"], row["student"])))


def _range(values: Sequence[str]) -> str:
    """`30.15–66.07`: smallest and largest of the given numbers, as printed in the source."""
    given = sorted({float(v): v for v in values if v}.items())
    return "" if not given else given[0][1] if len(given) == 1 else f"{given[0][1]}–{given[-1][1]}"
