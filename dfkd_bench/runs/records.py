"""The record of a run: one JSON file with a schema number, and small files beside it. Tables and figures read records.

<results>/<protocol>/<task>/<method>/<track-budget-seed-hash>/
    record.json               spec, manifest, result (a pure function of the spec), measurement, seal (a digest of all);
                              metrics, if other packages add metrics
    curves.csv                one row per snapshot
    predictions.safetensors   per test image: student, teacher, label, confidence
    student.safetensors       the student at the end of the run
    samples.safetensors       synthetic images of the end of the run, in the teacher's input space
    generator.safetensors     the method's networks at the end, if it has any (listed in `artifacts`, not in `result`)
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
PACE = "pace.json"  # only with a budget of seconds: the `Length` of the run
GENERATOR = "generator.safetensors"
STATUSES = ("complete", "diverged", "failed")


class _Any(TypedDict):
    """What the records of every schema have."""

    schema: int


class _Result(TypedDict):
    status: str


class _Record(_Any):
    """What the records of all schemas up to `SCHEMA` have; the parts hold more."""

    hash: str
    spec: dict[str, Any]
    manifest: dict[str, Any]
    result: _Result
    measurement: dict[str, Any]


_SPEC = {one.name for one in fields(RunSpec)}  # later versions may write further fields


def canonical(result: dict[str, Any]) -> str:
    """The text by which two results are compared, byte for byte."""
    return json.dumps(result, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Write a run's record atomically; numbers that are not finite become null."""
    path = folder / FILE
    whole = _finite({"schema": SCHEMA, **record})
    text = json.dumps({**whole, "seal": seal(whole)}, indent=1, allow_nan=False) + "\n"
    write_atomic(path, text.encode(), fault="record-rename")
    return path


def seal(record: dict[str, Any]) -> str:
    """SHA-256 over the content of a record's file, by which `verify` detects a changed file."""
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
    """The record in a file or in a run's folder.

    Raises `UsageError` if there is no file, `RunError` if it cannot be read.
    """
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
    """A record of an older schema, converted to `SCHEMA`.

    1 -> 2: the method's settings, so far only in the manifest, become a field of the specification. The hash and the
    code digest (which covered comments too) stay as they are, so no new run has the same hash.
    """
    if record["schema"] == 1:
        settings = record.get("manifest", {}).get("settings", {}).get("method", {})  # a failed run has none
        record = {**record, "schema": 2, "spec": {**record["spec"], "settings": settings}}
    return record


def find(root: Path) -> Iterator[Path]:
    """Record files below a results folder, sorted. Raises `UsageError` if the folder is missing."""
    if not root.is_dir():
        raise UsageError(f"no results folder at {root}: run something first, or name one with --results")
    return iter(sorted(root.rglob(FILE)))


def read_all(root: Path) -> Iterator[dict[str, Any]]:
    """Every record below `root`."""
    return (read(path) for path in find(root))


def tasks_in(root: Path) -> set[str]:
    """The tasks of the records below `root`; empty if there is no such folder."""
    return {record["spec"]["task"] for record in read_all(root)} if root.is_dir() else set()


def finished(root: Path, spec: RunSpec) -> dict[str, Any] | None:
    """The record of `spec` if its run is complete or diverged, else None."""
    path = root / spec.folder / FILE
    if not path.is_file():
        return None
    record = read(path)
    return record if record["result"]["status"] in ("complete", "diverged") else None
