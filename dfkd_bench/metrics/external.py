"""Metrics of other packages, entry points of `dfkd_bench.metrics`: computed for every run after those of `recorded`.

Their numbers stand beside a record's `result`, which stays a pure function of the specification. By the metric's name:

    owner, version, code_sha256     of the package that brings it; null for code that could not be found
    columns                         meaning and unit of each number, by its name
    values                          the numbers, null for one that is missing
    why                             why there are none, in a line; empty where all is well
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
    """A metric that a package declares: the object and the digest of its code, or why there is no object."""

    entry: Entry
    code: str | None
    metric: Metric | None
    why: str = ""


def installed() -> Iterator[Installed]:
    """Every metric that another package declares, imported."""
    for entry in registry.entries(METRIC).values():
        code = None
        try:
            if trouble := name_clash(entry):
                raise UsageError(trouble)
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
    """Why a metric is not computed whatever it holds: another package has its name too. Empty where none has."""
    try:
        registry.resolve(entry.name, METRIC)
        registry.check_name(entry, [metric.key for metric in recorded.METRICS])
    except UsageError as error:
        return str(error)
    return ""


def compute_installed(view: View) -> dict[str, Any]:
    """A record's part `metrics`: what the installed metrics of other packages give for a run. Raises nothing."""
    found = {}
    for one in installed():
        columns = one.metric.columns if one.metric else ()
        values: dict[str, float] = {}
        why = one.why
        try:
            if one.metric:
                values, why = compute_one(one.metric, view)
        except RunError as error:
            why = str(error)
        found[one.entry.name] = {
            "owner": one.entry.owner,
            "version": one.entry.version,
            CODE: one.code,
            "columns": {column.name: {"meaning": column.meaning, "unit": column.unit} for column in columns},
            "values": {column.name: values.get(column.name) for column in columns},
            "why": why,
        }
    return found


def compute_one(metric: Metric, view: View) -> tuple[dict[str, float], str]:
    """The numbers that a metric of another package gives, by column, and which it does not give, in a line.

    It gets a copy of all it sees, which it may change, and global random streams are set before, so that one that draws
    from them gives the same numbers again. Raises `RunError` for whatever it raises.
    """
    from dfkd_bench.utils.seeding import seed_global

    seed_global(0, f"metric {metric.key}")
    try:
        part = metric.compute(copy.deepcopy(view))
        values = {column.name: metric.number(part, column) for column in metric.columns}
    except (Exception, SystemExit) as error:  # a plugin may raise anything, or try to leave
        raise RunError(" ".join(f"{type(error).__name__}: {error}".split())) from error
    numbers = {name: float(value) for name, value in values.items() if is_number(value)}
    lacking = [f"{name} ({type(values[name]).__name__})" for name in values if name not in numbers]
    return numbers, f"no finite number for {', '.join(lacking)}" if lacking else ""


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, Real) and math.isfinite(value)


def columns_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that metrics of other packages have in a record: `NAME.COLUMN`, and `NAME.code_sha256` for each.

    Raises `RunError` for a record that holds something else there.
    """
    try:
        return {
            f"{name}.{column}": value
            for name, found in record.get(KEY, {}).items()
            for column, value in {**found["values"], CODE: found[CODE]}.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        where = record.get("path", "a record")
        raise RunError(f"{where} holds metrics that are not as a run leaves them: {error}") from error
