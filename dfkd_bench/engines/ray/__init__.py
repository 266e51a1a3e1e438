"""Runs on a Ray cluster."""

from dfkd_bench.engines.base import EngineKind

KIND = EngineKind(
    "ray", "a Ray cluster, or one started here", f"{__name__}.engine", workers="cluster", extra="ray",
    takes=("address",), overhead=0.060,
)  # fmt: skip
