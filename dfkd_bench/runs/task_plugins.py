"""The plug-ins of a run's task (dataset and architectures from other packages), in a specification and in a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dfkd_bench import protocol
from dfkd_bench.data.base import Dataset
from dfkd_bench.data.find import dataset
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import DATASET
from dfkd_bench.plugins.objects import Codes, kind_and_name

SHOWN = ("classes", "image_shape", "mean", "std")  # facts of a dataset that are needed to display images of a run


def plugin_entries(codes: Codes) -> list[dict[str, Any]]:
    """Kind, name, owner, version and target of each plug-in, and the facts of a dataset, for a record's manifest."""
    entries = []
    for kind, name in (kind_and_name(word) for word, _ in codes):
        entry = registry.resolve(name, kind)
        about: dict[str, Any] = {"kind": kind.word, "name": name, "owner": entry.owner, "version": entry.version}
        about["target"] = entry.target
        if kind == DATASET:
            about["facts"] = shown(dataset(name))
        entries.append(about)
    return entries


def shown(facts: Dataset) -> dict[str, Any]:
    """The facts `SHOWN` of a dataset, as JSON values."""
    values = {key: getattr(facts, key) for key in SHOWN}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def kept_facts(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The stored facts of a record's dataset; None if the dataset is not from another package."""
    plugins = (record.get("manifest") or {}).get("plugins", ())
    return next((p.get("facts") for p in plugins if p["kind"] == DATASET.word), None)


def dataset_of(record: Mapping[str, Any]) -> Dataset:
    """The dataset of a record's run, with the normalisation of its teacher.

    A dataset of another package need not be installed: the record has the facts `SHOWN`. Raises `UsageError` for an
    unknown dataset.
    """
    name, stored = protocol.split_task_name(record["spec"]["task"])[0], kept_facts(record)
    facts = dataset(name) if stored is None else Dataset(
        name=name, classes=stored["classes"], image_shape=tuple(stored["image_shape"]), mean=tuple(stored["mean"]),
        std=tuple(stored["std"]),
    )  # fmt: skip
    own = (record.get("manifest") or {}).get("teacher") or {}
    return replace(facts, mean=tuple(own["mean"]), std=tuple(own["std"])) if own.get("mean") else facts


def missing_plugins(record: Mapping[str, Any]) -> Iterator[str]:
    """One line for each plug-in of a record's run that is not installed here, or has other code. Raises `RunError`."""
    manifest = record.get("manifest") or {}
    owners = {f"{p['kind']}:{p['name']}": f" of {p['owner']} {p['version']}" for p in manifest.get("plugins", ())}
    for word, code in record["spec"].get("plugins", {}).items():
        kind, name = kind_and_name(word)
        entry = registry.entries(kind).get(name)
        who = f"{kind.word} {name!r}{owners.get(word, '')}"
        if entry is None:
            yield f"{who} is not installed here"
        elif registry.code_digest(entry) != code:
            yield f"the code of {who} is not that of the run: here is {entry.owner} {entry.version}"
