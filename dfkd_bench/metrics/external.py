"""Metrics of other packages (entry points of `dfkd_bench.metrics`), computed for every run after those of `recorded`.

Their numbers are outside a record's `result`, which stays a pure function of the specification. By the metric's name:

    owner, version, code_sha256     package and code digest; the digest is null if the code was not found
    columns                         meaning and unit of each number, by its name
    values                          the numbers; null for a missing one
    why                             the reason of missing numbers, in one line; empty if there are none
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from dfkd_bench.errors import BenchError, RunError, UsageError
from dfkd_bench.metrics import registry as recorded
from dfkd_bench.metrics.base import CODE, Metric, View
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import METRIC, Entry

KEY = "metrics"  # of a record


@dataclass(frozen=True)
class Installed:
    """A metric declared by another package: the digest of its code and the object, or why it cannot be loaded."""

    entry: Entry
    code: str | None
    metric: Metric | None
    why: str = ""


def installed() -> Iterator[Installed]:
    """Imports and yields every metric declared by another package."""
    for entry in registry.entries(METRIC).values():
        code = None
        try:
            if clash := name_clash(entry):
                raise UsageError(clash)
            code = registry.code_digest(entry)
            metric = registry.load_object(entry, Metric)
            if metric.key != entry.name:
                raise RunError(f"{entry.who} has the key {metric.key!r}: a metric is declared under its key")
            if not metric.columns:
                raise RunError(f"{entry.who} has no columns")
        except BenchError as error:
            yield Installed(entry, code, None, str(error))
        else:
            yield Installed(entry, code, metric)


def name_clash(entry: Entry) -> str:
    """The error if another metric has the same name, else "". Such a metric is not computed."""
    try:
        registry.resolve(entry.name, METRIC)
        registry.check_name(entry, [metric.key for metric in recorded.METRICS])
    except UsageError as error:
        return str(error)
    return ""


def compute_installed(view: View) -> dict[str, Any]:
    """A record's part `metrics`: the numbers of all metrics of other packages for a run. Raises nothing."""
    parts = {}
    for one in installed():
        columns = one.metric.columns if one.metric else ()
        values: dict[str, float] = {}
        why = one.why
        try:
            if one.metric:
                values, why = compute_one(one.metric, view)
        except RunError as error:
            why = str(error)
        parts[one.entry.name] = {
            "owner": one.entry.owner,
            "version": one.entry.version,
            CODE: one.code,
            "columns": {column.name: {"meaning": column.meaning, "unit": column.unit} for column in columns},
            "values": {column.name: values.get(column.name) for column in columns},
            "why": why,
        }
    return parts


def compute_one(metric: Metric, view: View) -> tuple[dict[str, float], str]:
    """The finite numbers of another package's metric, by column, and one line about the missing ones ("" if none).

    The metric gets a copy of `view`, so it cannot change the original, and the global random streams are seeded before,
    so its numbers are reproducible. Raises `RunError` if the metric raises.
    """
    from dfkd_bench.utils.seeding import seed_global

    seed_global(0, f"metric {metric.key}")
    try:
        part = metric.compute(copy.deepcopy(view))
        values = {column.name: metric.number(part, column) for column in metric.columns}
    except (Exception, SystemExit) as error:  # a plug-in may raise anything, or call sys.exit
        raise RunError(" ".join(f"{type(error).__name__}: {error}".split())) from error
    numbers = {name: float(value) for name, value in values.items() if is_number(value)}
    lacking = [f"{name} ({type(values[name]).__name__})" for name in values if name not in numbers]
    return numbers, f"no finite number for {', '.join(lacking)}" if lacking else ""


def is_number(value: Any) -> bool:
    """True for a finite real number."""
    return isinstance(value, Real) and math.isfinite(value)


def columns_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of other packages' metrics in a record, as `NAME.COLUMN`, with a `NAME.code_sha256` for each metric.

    Raises `RunError` if the part has another form.
    """
    try:
        return {
            f"{name}.{column}": value
            for name, part in record.get(KEY, {}).items()
            for column, value in {**part["values"], CODE: part[CODE]}.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        where = record.get("path", "a record")
        raise RunError(f"{where} has metrics in a wrong form: {error}") from error
