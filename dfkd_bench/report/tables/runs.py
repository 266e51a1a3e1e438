"""The long table: one row per record, one column per number; `COLUMNS` documents the columns.

After `COLUMNS` come the numbers of other packages' metrics, `NAME.COLUMN`, and `NAME.code_sha256`, if a record has any.

import dfkd_bench
runs = dfkd_bench.load_results("runs")
runs[runs.status == "complete"].groupby("method")["last"].describe()
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.metrics import external
from dfkd_bench.metrics import registry as metrics
from dfkd_bench.metrics.base import CODE
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import BOUNDS
from dfkd_bench.report import markdown
from dfkd_bench.report.privileges import PRIVILEGES, as_text
from dfkd_bench.runs import records
from dfkd_bench.runs.settings import LATER_DEFAULTS, SETTINGS, TERMS
from dfkd_bench.utils.hashing import sha256

Kind = Literal["about", "measure", "cost"]


@dataclass(frozen=True)
class Column:
    """One column of the long table and where a record holds it."""

    name: str
    meaning: str
    unit: str
    at: tuple[str, ...]  # keys in the record; empty for a computed column
    kind: Kind
    clock: bool = False  # depends on the machine
    type: Literal["text", "whole", "flag", "number"] = "number"


def _about(name: str, at: str, meaning: str, type: Literal["text", "whole", "flag"] = "text") -> Column:
    return Column(name, meaning, "", tuple(at.split()), "about", type=type)


def _cost(name: str, at: str, meaning: str, unit: str = "", clock: bool = False) -> Column:
    return Column(name, meaning, unit, tuple(at.split()), "cost", clock)


def _measures() -> Iterator[Column]:
    for metric, one in metrics.columns():
        yield Column(one.name, one.meaning, one.unit, metric.path(one), "measure", one.clock)
        if one.name == "rel_teacher":
            meaning = "last over the mean last of bound `scratch` under the same terms"
            yield Column("rel_scratch", meaning, "ratio", (), "measure")


COLUMNS: tuple[Column, ...] = (
    _about("protocol", "spec protocol", "version of everything that changes numbers"),
    _about("task", "spec task", "dataset/teacher-student"),
    _about("method", "spec method", "the method's name"),
    _about("bound", "", "True for a bound, which is shown but never ranked", "flag"),
    _about("owner", "manifest plugin owner", "distribution that contains the method"),
    _about("version", "manifest plugin version", "version of that distribution"),
    _about("privileges", "", "what the method uses besides logits, separated by commas; `none`; empty if not known"),
    _about("preset", "spec preset", "named set of the method's settings"),
    _about("overrides", "", "settings changed with --set, as JSON"),
    _about("addons", "", "add-ons around the method, innermost first, separated by `+`; empty for none"),
    _about("track", "spec track", "pinned or recipe"),
    _about("budget", "spec budget", "smoke, quick, standard, full or seconds:N"),
    _about("seed", "spec seed", "the run's seed", "whole"),
    _about("device", "spec device", "kind of device: cpu or cuda"),
    _about("device_name", "manifest device", "the device's own name"),
    _about("precision", "spec precision", "fp32 or bf16"),
    _about("compile", "spec compile", "True if the steps were compiled", "flag"),
    _about("threads", "spec threads", "CPU threads", "whole"),
    *(_about(name, f"spec {name}", SETTINGS[name].help) for name in LATER_DEFAULTS),
    _about("teacher", "manifest teacher name", "the teacher's name"),
    _about("status", "result status", "complete, diverged (something became non-finite) or failed"),
    _about("error", "result error", "the error of a failed run"),
    *_measures(),
    _cost("seconds", "measurement seconds_total", "all phases together", "s", clock=True),
    _cost("seconds_synthesis", "measurement seconds synthesis", "making images", "s", clock=True),
    _cost("seconds_distillation", "measurement seconds distillation", "training the student", "s", clock=True),
    _cost("seconds_evaluation", "measurement seconds evaluation", "evaluating all snapshots", "s", clock=True),
    _cost("gpu_hours", "measurement gpu_hours", "hours on a GPU, 0 on CPU", "h", clock=True),
    _cost(
        "peak_memory_bytes", "measurement peak_memory_bytes", "GPU allocator, or process on CPU", "bytes", clock=True
    ),
    _cost("teacher_forwards", "result counts teacher_forwards", "images forward through the teacher", "images"),
    _cost("teacher_backwards", "result counts teacher_backwards", "images backward through the teacher", "images"),
    _cost("student_forwards", "result counts student_forwards", "images forward through the student", "images"),
    _cost("student_steps", "result counts student_steps", "student updates", "steps"),
    _cost("student_images", "result counts student_images", "images the student was trained on", "images"),
    _cost("images_synthesised", "result counts images_synthesised", "images made", "images"),
    _cost("images_stored", "result counts images_stored", "images held at the end", "images"),
    _cost("generator_parameters", "result generator_parameters", "parameters of the generators", "parameters"),
    _cost("restarts", "measurement restarts", "times the run was resumed", "times", clock=True),
    _about("alarms", "", "signs of collapse, separated by semicolons; empty for none"),
    _about("teacher_sha256", "spec teacher", "SHA-256 of the teacher's file"),
    _about("data_sha256", "spec data", "SHA-256 of the dataset"),
    _about("code_sha256", "spec code", "SHA-256 of the method's source; of it and of other plug-ins', as JSON"),
    _about("settings_sha256", "", "SHA-256 of the run's resolved settings, as JSON"),
    _about("harness", "manifest dfkd_bench", "version of dfkd-bench that made the run"),
    _about("commit", "manifest git_commit", "its git commit, with a + for local changes; empty outside a checkout"),
    _about("torch", "manifest packages torch", "version of torch"),
    _about("hash", "hash", "hash of the run's specification"),
    _about("path", "path", "the record's file"),
)
NAMES = tuple(c.name for c in COLUMNS)
TYPES: dict[str, Any] = {"text": object, "whole": "int64", "flag": "bool", "number": "float64"}
SAME_TERMS = ("protocol", "task", "data_sha256", *TERMS)


def load_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Every record below the folder `path` as a long table, one row per record; see `COLUMNS` and `foreign_columns`.

    Missing text is None, a missing number is NaN. Raises `UsageError` for a missing folder, `RunError` for a record
    that cannot be read.
    """
    return long_table(records.read_all(Path(path)))


def some_results(results: Path) -> pd.DataFrame:
    """As `load_results`, but raises `UsageError` if there is no record."""
    runs = load_results(results)
    if runs.empty:
        raise UsageError(f"no records below {results}: run something first, or name a folder with --results")
    return runs


def by_outcome(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs sorted by status (complete, diverged, failed) and path; of equal hashes, the first one counts."""
    order = runs["status"].map({status: k for k, status in enumerate(records.STATUSES)})
    return runs.assign(_order=order).sort_values(["_order", "path"], kind="stable")


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries."""
    return [dict(zip(frame.columns, values, strict=True)) for values in frame.itertuples(index=False, name=None)]


def long_table(all_records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The long table of records that are already read, in their order. Raises `RunError` for an incomplete record."""
    cards = Cards()
    rows = [_row(record, cards) for record in all_records]
    foreign = dict.fromkeys(name for row in rows for name in row if name not in NAMES)
    ordered = sorted(foreign, key=lambda name: (name.rpartition(".")[0], name.endswith(f".{CODE}")))
    frame = pd.DataFrame([foreign | row for row in rows], columns=[*NAMES, *ordered], dtype=object)
    try:
        types = {c.name: TYPES[c.type] for c in COLUMNS} | dict.fromkeys(foreign_columns(frame), "float64")
        frame = frame.astype(types).copy()  # copy() merges the blocks; pandas warns if there are more than a hundred
    except (ValueError, TypeError) as error:
        raise RunError(f"a record contains something else than a number: {error}") from error
    scratch = frame[(frame["method"] == "scratch") & (frame["status"] == "complete") & (frame["overrides"] == "{}")]
    means = scratch.drop_duplicates("hash").groupby(list(SAME_TERMS))["last"].mean().to_dict()
    terms = zip(*(frame[name] for name in SAME_TERMS), strict=True)
    frame["rel_scratch"] = frame["last"] / [means.get(term, float("nan")) for term in terms]
    return frame


def _row(record: dict[str, Any], cards: Cards) -> dict[str, Any]:
    record = {**record, "spec": {**LATER_DEFAULTS, **record.get("spec", {})}}
    row = {c.name: _at(record, c.at) for c in COLUMNS if c.at}
    missing = [c.name for c in COLUMNS if row.get(c.name) is None and c.at[:1] == ("spec",)]
    if missing or row["status"] not in records.STATUSES:
        what = f"no {missing[0]}" if missing else f"status {row['status']!r}"
        raise RunError(f"{record.get('path', 'a record')} is not a complete record of a run: {what}")
    row["bound"] = row["method"] in BOUNDS
    row["overrides"] = json.dumps(_at(record, ("spec", "overrides")) or {}, sort_keys=True)
    if row["commit"] is not None and _at(record, ("manifest", "git_dirty")):
        row["commit"] += "+"
    addons = _at(record, ("spec", "addons")) or []
    row["addons"] = "+".join(addon["name"] for addon in addons)
    settings = _at(record, ("spec", "settings"))
    row["settings_sha256"] = digest_of([settings, *(a["settings"] for a in addons)] if addons else settings)
    plugins = _at(record, ("spec", "plugins")) or {}
    if addons or plugins:
        others = [*(addon["code"] for addon in addons), *([plugins] if plugins else [])]
        row["code_sha256"] = digest_of([row["code_sha256"], *others])
    row["privileges"] = _privileges(record, row, cards)
    alarms = _at(record, ("result", "alarms"))
    row["alarms"] = None if alarms is None else "; ".join(alarms)
    return row | external.columns_in(record)


def foreign_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of a long table with numbers of other packages' metrics."""
    return [name for name in frame.columns if "." in name and not name.endswith(f".{CODE}")]


def _privileges(record: dict[str, Any], row: dict[str, Any], cards: Cards) -> str | None:
    """The union of the privileges of method and add-ons; None if the method's card is not known."""
    declared = as_text(_at(record, ("manifest", "plugin", "privileges"))) or cards.privileges(
        row["method"], row["preset"]
    )
    more = [name for addon in _at(record, ("manifest", "addons")) or () for name in addon["privileges"] or ()]
    if declared is None or not more:
        return declared
    return as_text(name for name in PRIVILEGES if name in {*declared.split(","), *more})


def digest_of(settings: Any) -> str:
    """SHA-256 of settings as JSON with sorted keys."""
    return sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")))


def _at(node: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


class Cards:
    """Privileges of installed methods, for old records without them; nothing is imported."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str | None] = {}
        self._entries: dict[str, registry.Entry] | None = None

    def privileges(self, method: str, preset: str) -> str | None:
        """`as_text` of the method's card; None if it is not installed, declared twice, or not readable."""
        if (method, preset) not in self._known:
            if self._entries is None:
                self._entries = registry.entries()
            entry = self._entries.get(method)
            try:
                card = registry.static_card(entry) if entry and not entry.rivals else None
            except RunError:
                card = None
            self._known[method, preset] = as_text(card.privileges_of(preset)) if card else None
        return self._known[method, preset]


def columns_table() -> str:
    """`COLUMNS` as a Markdown table; `computed` if the record does not contain the value."""
    headers = ("column", "meaning", "unit", "in the record")
    rows = [[c.name, c.meaning, c.unit, " > ".join(c.at) or "computed"] for c in COLUMNS]
    return "\n".join(markdown.table(headers, rows, headers)) + "\n"
