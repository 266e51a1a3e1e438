"""A run file: what to run, as TOML or as the same table from Python."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.runs.spec import RunSpec

CONFIG = "run.toml"

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


def run_file(record: Mapping[str, Any]) -> str:
    """The run file of a record's run. A method in a file is named as it lies in the archive."""
    spec, about = RunSpec.from_json(record["spec"]), record["manifest"]
    lone = about["plugin"]["owner"] == "file"
    values = {
        "method": f"method/{about['plugin']['target']}" if lone else spec.method,
        "task": spec.task, "seeds": str(spec.seed), "preset": spec.preset, "track": spec.track, "budget": spec.budget,
        "teacher": about["teacher"]["name"], "device": spec.device, "precision": spec.precision,
        "compile": spec.compile, "threads": spec.threads,
    }  # fmt: skip
    lines = [f"# run {record['hash']}", *(f"{key} = {toml(value)}" for key, value in values.items())]
    if spec.overrides:
        lines += ["", "[set]", *(f"{toml(key)} = {toml(value)}" for key, value in spec.overrides)]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A value as TOML. Raises `RunError` for one that TOML cannot express."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    raise RunError(f"a run file cannot hold the setting {value!r}")
