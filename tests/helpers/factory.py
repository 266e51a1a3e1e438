"""Synthetic records: a realistic one, and variations of it, for tests of code that reads records."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from dfkd_bench.metrics.registry import columns
from dfkd_bench.protocol import PROTOCOL
from dfkd_bench.runs import records
from dfkd_bench.runs.spec import RunSpec

TEACHER = "e72e14fdad10c50d9d81f9dbfad23b4c45d3885339d2b1cfe8cf68ef2208ff92"

SPEC: dict[str, Any] = {
    "task": "digits16/cnn32-cnn16", "method": "alpha", "preset": "official", "overrides": {}, "track": "pinned",
    "budget": "quick", "seed": 0, "device": "cpu", "precision": "fp32", "compile": False, "threads": 2,
    "teacher": TEACHER, "data": "2d" * 32, "code": "5a" * 32, "settings": {"alpha": 5.0},
    "protocol": PROTOCOL,
}  # fmt: skip
OTHER_TERMS: list[dict[str, Any]] = [  # each makes numbers that are not to be compared with those of SPEC
    {"track": "recipe"}, {"protocol": "1.1"}, {"budget": "standard"}, {"device": "cuda"}, {"precision": "bf16"},
    {"task": "digits16/cnn32-cnn32"}, {"teacher": "ab" * 32}, {"data": "cd" * 32},
]  # fmt: skip
MANIFEST: dict[str, Any] = {
    "dfkd_bench": "0.1.0", "git_commit": "a" * 40, "git_dirty": False, "python": "3.11.7", "platform": "Linux x86_64",
    "plugin": {"owner": "somebody", "version": "1.2", "target": "somebody.alpha:Alpha", "privileges": ["gradients"]},
    "packages": {"torch": "2.11.0"}, "cuda": None, "device": "Some CPU", "threads": 2,
    "teacher": {"name": "digits16-cnn32-s0", "sha256": TEACHER, "top1": 99.5, "origin": "dfkd-bench teacher train"},
    "settings": {"method": {"alpha": 5.0}, "recipe": {"lr": 0.1}, "schedule": {"rounds": 80}},
}  # fmt: skip
RESULT: dict[str, Any] = {
    "status": "complete",
    "accuracy": {
        "last": 97.5, "oracle": 98.0, "oracle_snapshot": 8, "mean": 80.0, "variance": 400.0, "selected": 97.0,
        "selected_snapshot": 9,
    },
    "fidelity": {
        "agreement": 97.25, "kl": 0.11, "loyalty": 0.93, "loyalty_published": 0.83, "nll": 0.12, "ece": 0.02,
        "teacher_top1": 99.5, "teacher_nll": 0.018, "teacher_ece": 0.004,
    },
    "rel_teacher": 97.5 / 99.5,
    "samples": {
        "images": 512, "coverage": 1.0, "label_consistency": 99.0, "balance": 0.98, "diversity": 0.2,
        "duplicate_rate": 0.0, "entropy": 0.3,
    },
    "synthetic_kl": 0.05,
    "realism": {"frechet": 8.1, "precision": 0.53, "recall": 0.74, "density": 0.19, "coverage": 0.14},
    "convergence": {"student_images_to": {"50": 10240.0, "80": 20480.0, "90": 30720.0, "95": None}, "area": 80.0},
    "alarms": [],
    "counts": {
        "teacher_forwards": 112640, "teacher_backwards": 61440, "student_forwards": 112640, "student_steps": 400,
        "student_images": 51200, "images_synthesised": 112640, "images_stored": 0,
    },
    "generator_parameters": 147221,
    "digests": {"student": "0" * 64},
    "files": {"curves.csv": "0" * 64},
}  # fmt: skip
MEASUREMENT: dict[str, Any] = {
    "seconds": {"synthesis": 40.0, "distillation": 18.0, "evaluation": 2.0}, "seconds_total": 60.0,
    "seconds_to": {"50": 11.6, "80": 23.2, "90": 34.8, "95": None}, "snapshot_seconds": [5.8, 11.6], "gpu_hours": 0.0,
    "peak_memory_bytes": 1 << 30, "started": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T03:05:05+00:00",
    "restarts": 0,
}  # fmt: skip

for _metric, _column in columns():  # of a metric that came later: one half in every column
    _place: dict[str, Any] = {"result": RESULT, "measurement": MEASUREMENT}
    *_keys, _last = _metric.path(_column)
    for _key in _keys:
        _place = _place.setdefault(_key, {})
    _place.setdefault(_last, 0.5)


def make_record(
    *,
    last: float | None = None,
    status: str = "complete",
    privileges: tuple[str, ...] | None = ("gradients",),
    device_name: str = "Some CPU",
    result: dict[str, Any] | None = None,
    measurement: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A record as a run writes it. `spec` changes the specification, `result` and `measurement` the parts of this name.

    A failed record has no numbers, like a real one. With `privileges=None` the record does not state privileges.
    """
    unknown = set(spec) - set(SPEC)
    assert not unknown, unknown
    filled = {**copy.deepcopy(SPEC), **spec}
    about = copy.deepcopy(MANIFEST)
    about["device"] = device_name
    about["plugin"]["privileges"] = None if privileges is None else list(privileges)
    about["teacher"]["sha256"] = filled["teacher"]
    found: dict[str, Any] = {**copy.deepcopy(RESULT), "status": status, **(result or {})}
    if last is not None:
        found["accuracy"]["last"] = last
        found["rel_teacher"] = last / found["fidelity"]["teacher_top1"]
    measured = {**copy.deepcopy(MEASUREMENT), **(measurement or {})}
    if status == "failed":
        found, measured = {"status": "failed", "error": "ValueError: no"}, {"seconds_total": 1.0}
    return {
        "schema": records.SCHEMA, "spec": filled, "hash": RunSpec.from_json(filled).hash, "manifest": about,
        "result": found, "measurement": measured, "path": "somewhere/record.json",
    }  # fmt: skip


def seeds_of(method: str, *values: float, first: int = 0, **spec: Any) -> list[dict[str, Any]]:
    """Records of one method by their top-1, a seed each from `first` on."""
    return [make_record(method=method, last=v, seed=first + k, **spec) for k, v in enumerate(values)]


def bare_record(spec: RunSpec, **result: Any) -> dict[str, Any]:
    """A minimal record: a specification and a result."""
    return {"spec": spec.to_json(), "hash": spec.hash, "manifest": {}, "result": result, "measurement": {}}


def write_record(root: Path, record: dict[str, Any]) -> Path:
    """Write a record into the folder of its run."""
    folder = root / RunSpec.from_json(record["spec"]).folder
    folder.mkdir(parents=True)
    return records.write(folder, {k: v for k, v in record.items() if k not in ("path", "schema")})


def write_records(root: Path, n: int) -> list[dict[str, Any]]:
    """Write `n` records: up to 20 methods, with five seeds, two budgets and two tracks, then more presets.

    Accuracy increases with the method's number and a little with the seed, so means and ranks are known.
    """
    made = []
    for k in range(n):
        seed, rest = k % 5, k // 5
        method, rest = rest % 20, rest // 20
        record = make_record(
            method=f"method{method:02d}", seed=seed, budget=("quick", "standard")[rest % 2],
            track=("pinned", "recipe")[rest // 2 % 2], preset=f"preset{rest // 4}", last=70.0 + method + seed / 10,
        )  # fmt: skip
        write_record(root, record)
        made.append(record)
    return made
