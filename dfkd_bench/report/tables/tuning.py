"""A search for settings (`tuning.csv`) as a Markdown table: one row per method, with the trials and the best settings.

Trial 0 is the unchanged preset. Trials are scored by agreement with the teacher on synthetic images, never on test
images. A trial is not eligible if its images miss classes or, for methods that use labels, do not match the labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from dfkd_bench import protocol
from dfkd_bench.errors import UsageError
from dfkd_bench.report import markdown
from dfkd_bench.utils.text import assignments

TERMS = ("protocol", "task", "track", "budget")
NEEDED = (*TERMS, "seed", "method", "preset", "trial", "settings", "probe_agreement", "eligible", "chosen")
HEADERS = ("method", "preset", "trials", "eligible", "trial 0", "best", "chosen settings")
LEFT = ("method", "preset", "chosen settings")
EXPLAINED = (
    "trial 0 is the unchanged preset; trial 0, best: agreement with the teacher on synthetic images in %, mean over "
    "seeds; best: the best eligible trial"
)
LABELS = "labels"  # a column that is shown if `tuning.csv` has label agreement
EXPLAINED_LABELS = (
    "labels: label agreement of the chosen trial, images for which the teacher predicts their label, in %"
)


def trials_table(path: Path, version: str | None = None) -> str:
    """One Markdown table per protocol, task, track and budget of a `tuning.csv`, or only those of one protocol.

    Raises `UsageError` if the file is not a CSV of trials or has none of that protocol.
    """
    trials = _read(path)
    if version is not None:
        trials = trials[trials["protocol"] == version]
        if trials.empty:
            raise UsageError(f"{path} has no trial of protocol {version}")
    text: list[str] = []
    with_labels = "label_consistency" in trials
    headers = (*HEADERS[:-1], LABELS, HEADERS[-1]) if with_labels else HEADERS
    for terms, group in trials.groupby(list(TERMS), sort=False):
        named = dict(zip(TERMS, map(str, terms), strict=True))
        seeds = ", ".join(map(str, sorted(group["seed"].unique())))
        where = f"{named['task']}, track {named['track']}, budget {named['budget']}"
        heading = f"{where}, seed{'s' * (',' in seeds)} {seeds}"
        text += [markdown.plain(f"{heading} · {protocol.titled(named['protocol'])}"), ""]
        text += [*markdown.table(headers, _rows(group, with_labels), LEFT), ""]
    return "\n".join([*text, f"- {EXPLAINED}", *[f"- {EXPLAINED_LABELS}"] * with_labels]) + "\n"


def _read(path: Path) -> pd.DataFrame:
    try:
        trials = pd.read_csv(path, dtype={"protocol": str, "settings": str, "eligible": str, "chosen": str})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # includes the parser errors of pandas
        raise UsageError(f"{path} is not a CSV of trials: {str(error).splitlines()[0]}") from error
    missing = [name for name in NEEDED if name not in trials]
    if missing or trials.empty:
        raise UsageError(f"{path} is not a CSV of trials: " + (f"no column {missing[0]}" if missing else "no row"))
    for name in ("eligible", "chosen"):
        trials[name] = trials[name].str.lower().isin(("true", "1", "yes"))
    for name in {"probe_agreement", "label_consistency"} & set(trials):
        trials[name] = pd.to_numeric(trials[name], errors="coerce")
    return trials


def _rows(group: pd.DataFrame, with_labels: bool) -> Iterator[list[str]]:
    for (method, preset), part in group.groupby(["method", "preset"], sort=False):
        trials = part.groupby("trial").agg(
            score=("probe_agreement", lambda column: column.mean(skipna=False)),
            eligible=("eligible", "all"), chosen=("chosen", "any"), settings=("settings", "first"),
        )  # fmt: skip
        eligible = trials[trials["eligible"]]
        first = trials["score"].get(0, float("nan"))
        chosen = [_settings(settings) for settings in trials.loc[trials["chosen"], "settings"]]
        scores = [_percent(first), _percent(eligible["score"].max())]
        if with_labels:
            labels = part.loc[part["chosen"], "label_consistency"].mean()
            scores.append("" if pd.isna(labels) else f"{labels:.1f}")
        yield [str(method), str(preset), str(len(trials)), str(len(eligible)), *scores, "; ".join(chosen) or "none"]


def _percent(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"


def _settings(text: Any) -> str:
    try:
        values = json.loads(text)
    except (TypeError, ValueError):
        return str(text) if isinstance(text, str) else "the preset's"
    if not isinstance(values, dict):
        return str(text)
    return assignments(values) or "the preset's"
