"""The plug-ins of a run's task (dataset and architectures from other packages), in a specification and in a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dfkd_bench.plugins import registry
from dfkd_bench.plugins.objects import Codes, kind_and_name


def plugin_entries(codes: Codes) -> list[dict[str, str]]:
    """Kind, name, owner, version and target of each plug-in, for a record's manifest."""
    entries = [registry.resolve(name, kind) for kind, name in (kind_and_name(word) for word, _ in codes)]
    return [
        {"kind": e.kind.word, "name": e.name, "owner": e.owner, "version": e.version, "target": e.target}
        for e in entries
    ]


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
