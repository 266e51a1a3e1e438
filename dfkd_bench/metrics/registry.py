"""The metrics of every record, in the order of a record: one for each file of `recorded`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from dfkd_bench.metrics import recorded
from dfkd_bench.metrics.base import Column, Metric, may_lack
from dfkd_bench.runs.records import canonical


def load_metrics() -> tuple[Metric, ...]:
    """The `METRIC` of every file of `recorded`, sorted by place and key."""
    names = [module.name for module in pkgutil.iter_modules(recorded.__path__)]
    found: list[Metric] = [importlib.import_module(f"{recorded.__name__}.{name}").METRIC for name in names]
    return tuple(sorted(found, key=lambda metric: (metric.place[0], metric.key)))


METRICS = load_metrics()


def columns() -> Iterator[tuple[Metric, Column]]:
    """Every (metric, column), in the order of the columns of tables."""
    for metric in sorted(METRICS, key=lambda metric: metric.place[1]):
        yield from ((metric, column) for column in metric.columns)


def comparable(found: Mapping[str, Any], held: Mapping[str, Any], version: str | None) -> dict[str, Any]:
    """`found`, parts of a result, without the numbers that `held` lacks because they were added after its `version`.

    `version`: of dfkd_bench, as in a record's manifest; None if not known.
    """
    kept = dict(found)
    for metric in METRICS:
        key = metric.key
        if key in kept and key not in held and may_lack(metric.since, version):
            del kept[key]
        elif isinstance(kept.get(key), dict) and isinstance(held.get(key), dict):
            kept[key] = {
                name: value
                for name, value in kept[key].items()
                if name in held[key] or not may_lack(metric.later.get(name, ""), version)
            }
    return kept


def differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of the parts that are not equal, byte for byte, in two results.

    Numbers that one of the two versions of dfkd_bench did not measure are left out.
    """
    a, b = comparable(mine, theirs, None), comparable(theirs, mine, None)
    return [k for k in {**a, **b} if k not in a or k not in b or canonical({k: a[k]}) != canonical({k: b[k]})]
