"""The record a run leaves: one JSON with a schema number, and small files beside it. All else is drawn from records.

<results>/<protocol>/<task>/<method>/<track-budget-seed-hash>/
    record.json               spec, manifest, result (a pure function of the spec), measurement, and a seal over all;
                              metrics, where another package brought any
    curves.csv                one row per snapshot
    predictions.safetensors   per test image: student, teacher, label, confidence
    student.safetensors       the last checkpoint of the student
    samples.safetensors       synthetic images of the end of the run, in the teacher's input space
    generator.safetensors     the method's networks at the end, where it has any (named in `artifacts`, not in `result`)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.utils.files import CHECKPOINT as CHECKPOINT
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.hashing import sha256
from dfkd_bench.utils.parse import convert, read_json

SCHEMA = 2
FILE = "record.json"
PACE = "pace.json"  # of one with a budget of seconds: how many rounds it has, and why
GENERATOR = "generator.safetensors"
STATUSES = ("complete", "diverged", "failed")


class _Any(TypedDict):
    """What every record has, of whatever schema."""

    schema: int


class _Result(TypedDict):
    status: str


class _Record(_Any):
    """What the records of all schemas up to today's have; the parts hold more."""

    hash: str
    spec: dict[str, Any]
    manifest: dict[str, Any]
    result: _Result
    measurement: dict[str, Any]


_SPEC = {one.name for one in fields(RunSpec)}  # a later version may say more


def canonical(result: dict[str, Any]) -> str:
    """The text by which two results are compared, byte for byte."""
    return json.dumps(result, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Write a run's record, whole or not at all; numbers that are not finite become null."""
    path = folder / FILE
    whole = _finite({"schema": SCHEMA, **record})
    text = json.dumps({**whole, "seal": seal(whole)}, indent=1, allow_nan=False) + "\n"
    write_atomic(path, text.encode(), fault="record-rename")
    return path


def seal(record: dict[str, Any]) -> str:
    """SHA-256 over a record's content as its file holds it: what `verify` finds a flipped bit by."""
    content = {k: v for k, v in record.items() if k not in ("seal", "path")}
    return sha256(canonical(content))


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _finite(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(v) for v in node]
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return node


def read(path: Path) -> dict[str, Any]:
    """A record from its file or its folder. Raises `UsageError` if there is none, `RunError` if it cannot be read."""
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        raise UsageError(f"no record at {path}")
    try:
        record: dict[str, Any] = read_json(path)
        schema = convert(record, _Any)["schema"]
        if schema <= SCHEMA:
            convert(record, _Record)
            record = upgraded(record)
            RunSpec.from_json({key: value for key, value in record["spec"].items() if key in _SPEC})
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except (AttributeError, ValueError, RunError) as error:
        raise RunError(f"{path} is not a record of dfkd-bench: {error}") from error
    if schema > SCHEMA:
        raise RunError(f"{path} has schema {schema}, this version reads up to {SCHEMA}: update dfkd-bench")
    return {**record, "path": str(path)}


def upgraded(record: dict[str, Any]) -> dict[str, Any]:
    """A record of any older schema in the form of today's.

    1 -> 2: the specification names the settings that the run was made with, which stood in the manifest alone. Its hash
    and its code digest, over comments too, stay what they were, so that no run of today is taken for it.
    """
    if record["schema"] == 1:
        made_with = record.get("manifest", {}).get("settings", {}).get("method", {})  # a failed run has none
        record = {**record, "schema": 2, "spec": {**record["spec"], "settings": made_with}}
    return record


def find(root: Path) -> Iterator[Path]:
    """Record files below a results folder, in a fixed order. Raises `UsageError` if the folder is missing."""
    if not root.is_dir():
        raise UsageError(f"no results folder at {root}: run something first, or name one with --results")
    return iter(sorted(root.rglob(FILE)))


def read_all(root: Path) -> Iterator[dict[str, Any]]:
    """Every record below `root`."""
    return (read(path) for path in find(root))


def tasks_in(root: Path) -> set[str]:
    """The tasks of the records below `root`; none where there is no such folder."""
    return {record["spec"]["task"] for record in read_all(root)} if root.is_dir() else set()


def finished(root: Path, spec: RunSpec) -> dict[str, Any] | None:
    """The record of `spec` if its run came to an end (complete or diverged)."""
    path = root / spec.folder / FILE
    if not path.is_file():
        return None
    record = read(path)
    return record if record["result"]["status"] in ("complete", "diverged") else None
