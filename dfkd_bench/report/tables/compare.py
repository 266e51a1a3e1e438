"""Two methods against each other, wherever both have records under the same terms."""

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
    """One row of the leaderboard: its complete runs' test top-1 in % by seed, and what became of the others."""

    method: str
    words: tuple[str, ...]  # preset, changed settings
    bound: bool
    values: dict[int, float]
    mean: Interval
    n_diverged: int
    n_failed: int


@dataclass(frozen=True)
class Comparison:
    """a against b under one set of terms; the verdict is that of `p_holm`."""

    terms: dict[str, str]
    a: Side
    b: Side
    paired: Paired
    p_holm: float  # p corrected for all comparisons made together
    verdict: Verdict
    improvement: Interval  # probability that a run of a beats one of b
    images: McNemar | None  # over all shared seeds with predictions
    images_by_seed: dict[int, McNemar]


def compare(a: pd.DataFrame, b: pd.DataFrame) -> list[Comparison]:
    """Every group of comparable rows that both have, in the order of the leaderboard, p-values corrected together.

    `a` and `b` are rows of a `long_table`, as `chosen` gives them: of each one leaderboard row in any group. Raises
    `UsageError` where there are several or the same, or no group in common; `RunError` for predictions that do not fit.
    """
    of_a, of_b = (dict(iter(side.groupby(list(GROUP), sort=True))) for side in (a, b))
    shared = [key for key in of_a if key in of_b]
    if not shared:
        raise UsageError(_nothing_shared(a, b))
    found = [_compare_group(_one_row(of_a[key]), _one_row(of_b[key])) for key in shared]
    adjusted = holm([one.paired.p for one in found]).tolist()
    return [
        Comparison(**{**vars(one), "p_holm": p, "verdict": verdict(one.paired.mean, p)})
        for one, p in zip(found, adjusted, strict=True)
    ]


def _compare_group(a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    if _files(a) & _files(b):
        raise UsageError(f"both sides are the same runs, {label(a.iloc[0])}: name two that differ")
    x, y = _side(a), _side(b)
    first = a.iloc[0]
    found = paired(x.values, y.values, resolution(first["task"], [*a["path"], *b["path"]]))
    images, by_seed = mcnemar_tests(correct_by_seed(a), correct_by_seed(b))
    improvement = probability_of_improvement({0: [*x.values.values()]}, {0: [*y.values.values()]})
    terms = {name: str(first[name]) for name in GROUP}
    return Comparison(terms, x, y, found, found.p, found.verdict, improvement, images, by_seed)


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
    """The runs of one leaderboard row. Raises `UsageError` where they are of several, with words for each."""
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
    """The words that name a leaderboard row: `method:preset:key=value`, and what else of `FIELDS` is asked for."""
    return ":".join([row["method"], *_words(row), *(f"{word}={_short(row, word)}" for word in fields)])


def _words(row: pd.Series[Any]) -> tuple[str, ...]:
    changed = json.loads(row["overrides"]).items()
    return (row["preset"], *(f"{key}={_text(value)}" for key, value in changed))


def _short(row: pd.Series[Any], word: str) -> str:
    value = row[FIELDS[word]]
    return value[:8] if FIELDS[word].endswith("sha256") else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value if not hasattr(value, "item") else value.item())


# -- which runs a word means ------------------------------------------------------------------------------------------


def select_runs(word: str, runs: pd.DataFrame, where: Path) -> pd.DataFrame:
    """The runs that `word` names, each once: `method`, `method:preset`, `method:key=value`, or a record or folder.

    Words behind the method's name are joined by colons: a preset, changed settings, and `threads=N`, `compile=true`,
    `code=` or `settings=` with the beginning of their SHA-256. Where some rows have no changed setting but those
    named (none, where none is), those are meant. A path is read; all else is looked up in `runs`, which were found
    below `where`. Raises `UsageError` for what is not there.
    """
    methods = sorted(set(runs["method"]))
    named = [m for m in methods if word == m or word.startswith(f"{m}:")]
    if not named:
        if is_path(word):
            return _read(Path(word))
        raise UsageError(f"no record of a method {word.partition(':')[0]!r} below {where}{did_you_mean(word, methods)}")
    method = max(named, key=len)
    found = numbered_runs(runs[runs["method"] == method])
    words = _split(word[len(method) + 1 :])
    for part in words:
        kept = found[_fits(found, part)]
        if kept.empty:
            names = sorted({label(row) for _, row in found.drop_duplicates(list(SIDE)).iterrows()})
            raise UsageError(f"no record of {word!r} below {where}{did_you_mean(word, names)}")
        found = kept
    named_keys = {part.partition("=")[0] for part in words if "=" in part}
    exact = found["overrides"].map(lambda text: json.loads(text).keys() <= named_keys).astype(bool)
    return found[exact] if exact.any() else found


def _split(text: str) -> list[str]:
    """Words between colons; a value may hold colons, because a preset stands before the settings."""
    words: list[str] = []
    for part in filter(None, text.split(":")):
        if words and "=" in words[-1] and "=" not in part:
            words[-1] += f":{part}"
        else:
            words.append(part)
    return words


def is_path(word: str) -> bool:
    """Whether `word` is there as a file or folder."""
    return Path(word).exists()


def _read(path: Path) -> pd.DataFrame:
    found = list(records.read_all(path)) if path.is_dir() else [records.read(path)]
    if not found:
        raise UsageError(f"no records below {path}")
    return numbered_runs(long_table(found))


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
    """Why nothing can be compared: by what the two nearest groups differ."""

    def apart() -> Iterator[list[tuple[str, str, str]]]:
        for x in a[list(GROUP)].drop_duplicates().itertuples(index=False, name=None):
            for y in b[list(GROUP)].drop_duplicates().itertuples(index=False, name=None):
                yield [(n, str(u), str(v)) for n, u, v in zip(GROUP, x, y, strict=True) if u != v]

    differ = ", ".join(f"{name.removesuffix('_sha256')} {u[:40]} and {v[:40]}" for name, u, v in min(apart(), key=len))
    names = (label(side.iloc[0]).partition(":")[0] for side in (a, b))
    return f"{' and '.join(names)} have no records under the same terms; the nearest differ in {differ}"
