"""Requests as text: reading TOML run files, and writing a run as a run file or a command line."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_bench.runs.settings import SETTINGS, Request, request_fields
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.utils.parse import read_toml, toml

if TYPE_CHECKING:
    from dfkd_bench.runs.planned import PlannedRun

CONFIG = "run.toml"


def read_run_file(path: Path) -> dict[str, Any]:
    """The fields of a `Request` from a TOML run file. Raises `UsageError` as `fields_of` does."""
    return request_fields(read_toml(path, "run file"), str(path))


def request_of(spec: RunSpec, method: str, teacher: str | None, addons: tuple[str, ...]) -> Request:
    """The request for this run alone. `method`, `teacher` and `addons` are the words for the command line."""
    same = {name: getattr(spec, name) for name in SETTINGS if hasattr(spec, name)}
    words = {"methods": (method,), "tasks": (spec.task,), "seeds": (spec.seed,), "teacher": teacher, "addons": addons}
    return Request(**{**same, **words, "overrides": dict(spec.overrides)})


def command_of(planned: PlannedRun, results: Path) -> str:
    """The command line of this run alone."""
    addons = tuple(entry.word for entry in planned.addons)
    request = request_of(planned.spec, planned.method.word, planned.teacher.name, addons)
    return shlex.join(["dfkd-bench", "run", *words_of(request), "--results", str(results)])


def words_of(request: Request) -> list[str]:
    """The options of `dfkd-bench run` that make this request."""
    words: list[str] = []
    for one in SETTINGS.values():
        flag, value = f"--{one.key}", one.written(getattr(request, one.name))
        if isinstance(value, dict):
            for key, each in value.items():  # a file setting is `path#sha256`: only the path is written
                text = each if isinstance(each, str) else json.dumps(each)
                words += [flag, f"{key}={re.sub('#[0-9a-f]{64}$', '', text)}"]
        elif isinstance(value, bool):
            words += [flag] * value
        elif value is not None:
            words += [word for each in (value if isinstance(value, tuple) else (value,)) for word in (flag, str(each))]
    return words


def run_file(record: Mapping[str, Any]) -> str:
    """The run file of a record's run. A method from a file gets the path that it has in the archive."""
    about = record["manifest"]
    spec, plugin = RunSpec.from_json(record["spec"]), about["plugin"]
    method = f"method/{plugin['target']}" if plugin["owner"] == "file" else spec.method
    request = request_of(spec, method, about["teacher"]["name"], tuple(addon.name for addon in spec.addons))
    lines, tables = [f"# run {record['hash']}"], list[str]()
    for one in SETTINGS.values():
        value = one.written(getattr(request, one.name))
        if isinstance(value, dict) and value:
            tables += ["", f"[{one.key}]", *(f"{toml(key)} = {toml(each)}" for key, each in value.items())]
        elif value not in (None, (), {}):
            lines.append(f"{one.key} = {toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"
