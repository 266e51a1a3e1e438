"""A search for settings, as `tuning.csv` holds it, as a Markdown table: one row per method, what was tried and chosen.

Trial 0 is the preset untouched. Every trial is scored by agreement with the teacher on synthetic images, never on
test images; a trial whose images miss classes, or the labels where its method asks for them, is not eligible.
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
    "trial 0 is the preset untouched; trial 0, best: agreement with the teacher on synthetic images in %, mean over "
    "seeds, best among eligible trials"
)
LABELS = "labels"  # a column of tables that tell it
EXPLAINED_LABELS = (
    "labels: label agreement of the chosen trial, images that the teacher takes for the class they were made as, in %"
)


def trials_table(path: Path, version: str | None = None) -> str:
    """One Markdown table per protocol, task, track and budget of a `tuning.csv`, or those of one protocol.

    Raises `UsageError` where it is not one, or has nothing of that protocol.
    """
    trials = _read(path)
    if version is not None:
        trials = trials[trials["protocol"] == version]
        if trials.empty:
            raise UsageError(f"{path} has no trial of protocol {version}")
    text: list[str] = []
    told = "label_consistency" in trials
    headers = (*HEADERS[:-1], LABELS, HEADERS[-1]) if told else HEADERS
    for terms, group in trials.groupby(list(TERMS), sort=False):
        named = dict(zip(TERMS, map(str, terms), strict=True))
        seeds = ", ".join(map(str, sorted(group["seed"].unique())))
        about = f"{named['task']}, track {named['track']}, budget {named['budget']}, seed{'s' * (',' in seeds)} {seeds}"
        text += [markdown.plain(f"{about} · {protocol.titled(named['protocol'])}"), ""]
        text += [*markdown.table(headers, _rows(group, told), LEFT), ""]
    return "\n".join([*text, f"- {EXPLAINED}", *[f"- {EXPLAINED_LABELS}"] * told]) + "\n"


def _read(path: Path) -> pd.DataFrame:
    try:
        trials = pd.read_csv(path, dtype={"protocol": str, "settings": str, "eligible": str, "chosen": str})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # pandas' parser errors are among these
        raise UsageError(f"{path} is not a CSV of trials: {str(error).splitlines()[0]}") from error
    missing = [name for name in NEEDED if name not in trials]
    if missing or trials.empty:
        raise UsageError(f"{path} is not a CSV of trials: " + (f"no column {missing[0]}" if missing else "no row"))
    for name in ("eligible", "chosen"):
        trials[name] = trials[name].str.lower().isin(("true", "1", "yes"))
    for name in {"probe_agreement", "label_consistency"} & set(trials):
        trials[name] = pd.to_numeric(trials[name], errors="coerce")
    return trials


def _rows(group: pd.DataFrame, told: bool) -> Iterator[list[str]]:
    for (method, preset), part in group.groupby(["method", "preset"], sort=False):
        tried = part.groupby("trial").agg(
            score=("probe_agreement", lambda column: column.mean(skipna=False)),
            eligible=("eligible", "all"), chosen=("chosen", "any"), settings=("settings", "first"),
        )  # fmt: skip
        eligible = tried[tried["eligible"]]
        first = tried["score"].get(0, float("nan"))
        chosen = [_settings(settings) for settings in tried.loc[tried["chosen"], "settings"]]
        scores = [_percent(first), _percent(eligible["score"].max())]
        if told:
            labels = part.loc[part["chosen"], "label_consistency"].mean()
            scores.append("" if pd.isna(labels) else f"{labels:.1f}")
        yield [str(method), str(preset), str(len(tried)), str(len(eligible)), *scores, "; ".join(chosen) or "none"]


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
