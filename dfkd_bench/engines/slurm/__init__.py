"""Runs as jobs of Slurm."""

from dfkd_bench.engines.base import EngineKind

KIND = EngineKind(
    "slurm", "Slurm job arrays, through submitit", f"{__name__}.engine", workers="queue", extra="slurm",
    takes=("config",),
)  # fmt: skip
