"""Comparison of two methods under all terms for which both have records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfkd_bench.errors import UsageError, did_you_mean
from dfkd_bench.report.tables.leaderboard import GROUP
from dfkd_bench.report.tables.pairs import SIDE, correct_by_seed, mcnemar_tests, numbered_runs
from dfkd_bench.report.tables.predictions import resolution
from dfkd_bench.report.tables.runs import long_table
from dfkd_bench.runs import records
from dfkd_bench.stats.intervals import Interval, mean_interval
from dfkd_bench.stats.mcnemar import McNemar
from dfkd_bench.stats.paired import Paired, Verdict, holm, paired, verdict
from dfkd_bench.stats.ranks import probability_of_improvement

FIELDS = {"compile": "compile", "threads": "threads", "code": "code_sha256", "settings": "settings_sha256"}


@dataclass(frozen=True)
class Side:
    """One row of the leaderboard in a comparison."""

    method: str
    words: tuple[str, ...]  # preset, changed settings
    bound: bool
    values: dict[int, float]  # seed -> test top-1 in %, complete runs
    mean: Interval
    n_diverged: int
    n_failed: int


@dataclass(frozen=True)
class Comparison:
    """Comparison of a with b under one set of terms; the verdict uses `p_holm`."""

    terms: dict[str, str]
    a: Side
    b: Side
    paired: Paired
    p_holm: float  # p after Holm's correction over all comparisons of the call
    verdict: Verdict
    improvement: Interval  # probability that a run of a is better than a run of b
    images: McNemar | None  # over all shared seeds with predictions
    images_by_seed: dict[int, McNemar]


def compare(a: pd.DataFrame, b: pd.DataFrame) -> list[Comparison]:
    """One comparison per group of comparable rows that both have, in the order of the leaderboard.

    `a` and `b` are rows of a `long_table`, from `select_runs`: one leaderboard row per group each. p-values are
    corrected over all groups. Raises `UsageError` if a side has several leaderboard rows in a group, if both sides are
    the same runs, or without a common group; `RunError` for predictions of different images.
    """
    of_a, of_b = (dict(iter(side.groupby(list(GROUP), sort=True))) for side in (a, b))
    shared = [key for key in of_a if key in of_b]
    if not shared:
        raise UsageError(_nothing_shared(a, b))
    comparisons = [_compare_group(_one_row(of_a[key]), _one_row(of_b[key])) for key in shared]
    adjusted = holm([one.paired.p for one in comparisons]).tolist()
    return [
        Comparison(**{**vars(one), "p_holm": p, "verdict": verdict(one.paired.mean, p)})
        for one, p in zip(comparisons, adjusted, strict=True)
    ]


def _compare_group(a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    if _files(a) & _files(b):
        raise UsageError(f"both sides are the same runs, {label(a.iloc[0])}: name two that differ")
    x, y = _side(a), _side(b)
    first = a.iloc[0]
    difference = paired(x.values, y.values, resolution(first["task"], [*a["path"], *b["path"]]))
    images, by_seed = mcnemar_tests(correct_by_seed(a), correct_by_seed(b))
    improvement = probability_of_improvement({0: [*x.values.values()]}, {0: [*y.values.values()]})
    terms = {name: str(first[name]) for name in GROUP}
    return Comparison(terms, x, y, difference, difference.p, difference.verdict, improvement, images, by_seed)


def _files(rows: pd.DataFrame) -> set[Path]:
    return {Path(path).resolve() for path in rows["path"]}


def _side(rows: pd.DataFrame) -> Side:
    complete = rows[(rows["status"] == "complete") & rows["last"].notna()].drop_duplicates("seed").sort_values("seed")
    values = {int(seed): float(last) for seed, last in zip(complete["seed"], complete["last"], strict=True)}
    first, status = rows.iloc[0], rows["status"]
    counts = int((status == "diverged").sum()), int((status == "failed").sum())
    return Side(
        first["method"], _words(first), bool(first["bound"]), values, mean_interval([*values.values()]), *counts
    )


def _one_row(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows`, if they are runs of one leaderboard row. Raises `UsageError` that lists the rows if there are several."""
    kinds = rows.drop_duplicates(list(SIDE))
    if len(kinds) == 1:
        return rows
    names = [label(row) for _, row in kinds.iterrows()]
    if len(set(names)) < len(names):
        differ = [word for word, name in FIELDS.items() if kinds[name].nunique() > 1]
        names = [label(row, differ) for _, row in kinds.iterrows()]
    where = ", ".join(str(rows.iloc[0][name]) for name in ("task", "track", "budget"))
    raise UsageError(
        f"{kinds.iloc[0]['method']} is {len(kinds)} rows of {where}: name one of {' | '.join(sorted(names))}"
    )


def label(row: pd.Series[Any], fields: Sequence[str] = ()) -> str:
    """The name of a leaderboard row: `method:preset:key=value`, and `key=value` for each of `FIELDS` in `fields`."""
    return ":".join([row["method"], *_words(row), *(f"{word}={_short(row, word)}" for word in fields)])


def _words(row: pd.Series[Any]) -> tuple[str, ...]:
    changed = json.loads(row["overrides"]).items()
    return (row["preset"], *(f"{key}={_text(value)}" for key, value in changed))


def _short(row: pd.Series[Any], word: str) -> str:
    value = row[FIELDS[word]]
    return value[:8] if FIELDS[word].endswith("sha256") else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value if not hasattr(value, "item") else value.item())


# -- selection of runs by name ----------------------------------------------------------------------------------------


def select_runs(word: str, runs: pd.DataFrame, where: Path) -> pd.DataFrame:
    """The runs that `word` names, each once: `method`, `method:preset`, `method:key=value`, or a record or folder.

    After the method's name, joined by colons, may follow a preset, changed settings, and `threads=N`, `compile=true`,
    `code=` or `settings=` with the first digits of the SHA-256. If some of these rows have no changed settings other
    than the named ones, only those are returned. A path is read; a name is searched in `runs`, the records below
    `where`. Raises `UsageError` if nothing matches.
    """
    methods = sorted(set(runs["method"]))
    named = [m for m in methods if word == m or word.startswith(f"{m}:")]
    if not named:
        if is_path(word):
            return _read(Path(word))
        raise UsageError(f"no record of a method {word.partition(':')[0]!r} below {where}{did_you_mean(word, methods)}")
    method = max(named, key=len)
    matching = numbered_runs(runs[runs["method"] == method])
    words = _split(word[len(method) + 1 :])
    for part in words:
        remaining = matching[_fits(matching, part)]
        if remaining.empty:
            names = sorted({label(row) for _, row in matching.drop_duplicates(list(SIDE)).iterrows()})
            raise UsageError(f"no record of {word!r} below {where}{did_you_mean(word, names)}")
        matching = remaining
    named_keys = {part.partition("=")[0] for part in words if "=" in part}
    exact = matching["overrides"].map(lambda text: json.loads(text).keys() <= named_keys).astype(bool)
    return matching[exact] if exact.any() else matching


def _split(text: str) -> list[str]:
    """The parts between colons. A value may contain colons, because a preset always precedes the settings."""
    words: list[str] = []
    for part in filter(None, text.split(":")):
        if words and "=" in words[-1] and "=" not in part:
            words[-1] += f":{part}"
        else:
            words.append(part)
    return words


def is_path(word: str) -> bool:
    """True if `word` is an existing file or folder."""
    return Path(word).exists()


def _read(path: Path) -> pd.DataFrame:
    all_records = list(records.read_all(path)) if path.is_dir() else [records.read(path)]
    if not all_records:
        raise UsageError(f"no records below {path}")
    return numbered_runs(long_table(all_records))


def _fits(rows: pd.DataFrame, part: str) -> pd.Series[bool]:
    key, equals, value = part.partition("=")
    if not equals:
        return rows["preset"] == part
    changed = rows["overrides"].map(json.loads)
    if key in FIELDS and not changed.map(lambda settings: key in settings).any():
        texts = rows[FIELDS[key]].map(_text)
        return texts.str.startswith(value) if FIELDS[key].endswith("sha256") else texts == value
    return changed.map(lambda settings: key in settings and _equal(settings[key], value)).astype(bool)


def _equal(value: Any, text: str) -> bool:
    if _text(value) == text:
        return True
    try:
        return not isinstance(value, str) and bool(value == json.loads(text.lower()))
    except ValueError:
        return False


def _nothing_shared(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """The message if there is no common group: the terms in which the two most similar groups differ."""

    def apart() -> Iterator[list[tuple[str, str, str]]]:
        for x in a[list(GROUP)].drop_duplicates().itertuples(index=False, name=None):
            for y in b[list(GROUP)].drop_duplicates().itertuples(index=False, name=None):
                yield [(n, str(u), str(v)) for n, u, v in zip(GROUP, x, y, strict=True) if u != v]

    differ = ", ".join(f"{name.removesuffix('_sha256')} {u[:40]} and {v[:40]}" for name, u, v in min(apart(), key=len))
    names = (label(side.iloc[0]).partition(":")[0] for side in (a, b))
    return f"{' and '.join(names)} have no records under the same terms; the nearest differ in {differ}"
