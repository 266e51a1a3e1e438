"""A run file: what to run, as TOML or as the same table from Python."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfkd_bench.errors import UsageError, did_you_mean

RUN_FILE_KEYS: dict[str, type[Any]] = {
    "method": list, "task": list, "seeds": str, "preset": str, "track": str, "budget": str, "teacher": str,
    "device": str, "precision": str, "compile": bool, "threads": int, "set": dict, "with": list,
}  # fmt: skip


def read_run_file(path: Path) -> dict[str, Any]:
    """The fields of a `Request` from a TOML run file. Raises `UsageError` as `fields_of` does."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read run file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    return fields_of(table, str(path))


def fields_of(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a `Request` from the table of a run file. Raises `UsageError` for unknown keys and wrong types.

    Keys: method and task (a name or a list), seeds ("0-4", a number or a list), preset, track, budget, teacher,
    device, precision, compile, threads, with (add-ons), and a table `set` of settings, an add-on's as name.key.
    """
    fields: dict[str, Any] = {}
    for key, value in table.items():
        if key not in RUN_FILE_KEYS:
            raise UsageError(f"{where}: unknown key {key!r}{did_you_mean(key, list(RUN_FILE_KEYS))}")
        kind: Any = RUN_FILE_KEYS[key]
        if kind is list and isinstance(value, str | tuple):
            value = [value] if isinstance(value, str) else list(value)
        if key == "seeds" and type(value) is int:
            value = str(value)
        if key == "seeds" and isinstance(value, list | tuple | range):
            value = ",".join(map(str, value))
        if type(value) is not kind or (kind is list and not all(isinstance(v, str) for v in value)):
            raise UsageError(
                f"{where}: {key} takes {kind.__name__.replace('list', 'a name or a list of names')}, got {value!r}"
            )
        name = {"method": "methods", "task": "tasks", "set": "overrides", "with": "addons"}.get(key, key)
        if key == "set":  # ema.decay = 0.9 is a table of its own to TOML
            value = {k: v for key, part in value.items() for k, v in flat(key, part).items()}
        fields[name] = parse_seeds(value) if key == "seeds" else tuple(value) if kind is list else value
    return fields


def flat(key: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": 1}}` under `key` as `{"key.a.b": 1}`."""
    if not isinstance(value, dict):
        return {key: value}
    return {k: v for name, part in value.items() for k, v in flat(f"{key}.{name}", part).items()}


def parse_seeds(text: str) -> tuple[int, ...]:
    """`3`, `0-4` or `0,2,5-7` as seeds. Raises `UsageError` for anything else."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise UsageError(f"seeds are whole numbers from 0 on, such as 0, 0-4 or 0,2,5; got {text!r}")
    return tuple(dict.fromkeys(seeds))
