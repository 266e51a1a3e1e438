"""The Slurm settings of a site and of single methods, from the table [slurm] of a TOML file.

[slurm]
partition = "gpu"
account = "vision"
timeout_min = 240
mem_gb = 16
gpus_per_node = 1          # default: 1 for device cuda, else 0
setup = ["module load cuda", "source env/bin/activate"]
max_parallel = 32          # default: --jobs
requeues = 20              # how often a run may reach its time limit; preemptions are not counted
sbatch = { reservation = "bench" }   # further options of sbatch

[slurm.methods.NAME]       # the same keys, for one method
timeout_min = 1440
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from msgspec import Meta

from dfkd_bench.engines.base import Work
from dfkd_bench.errors import UsageError, did_you_mean
from dfkd_bench.utils import parse

METHODS, CLUSTER = "methods", "cluster"
CLUSTERS = ("slurm", "local")  # of submitit; "local" is for tests without Slurm
Count, Number = Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=1)]
# key -> (type, description of the type)
KEYS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("partition", "account", "qos", "constraint"), (str, "a word")),
    **dict.fromkeys(("timeout_min", "max_parallel"), (Number, "a whole number")),
    **dict.fromkeys(("gpus_per_node", "requeues"), (Count, "a whole number")),
    "mem_gb": (float, "a number"), "setup": (list[str], "a list of shell lines"), "sbatch": (dict[str, Any], "a table"),
}  # fmt: skip
DEFAULTS = {"timeout_min": 240, "requeues": 20}


def check(config: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an unknown key or a value of the wrong type."""
    site = {key: value for key, value in config.items() if key not in (METHODS, CLUSTER)}
    parse.check(site, KEYS, "[slurm]", also=(METHODS, CLUSTER))
    if config.get(CLUSTER, CLUSTERS[0]) not in CLUSTERS:
        raise UsageError(f"[slurm]: cluster is one of {', '.join(CLUSTERS)}, got {config[CLUSTER]!r}")
    methods = config.get(METHODS, {})
    if not isinstance(methods, dict) or not all(isinstance(table, dict) for table in methods.values()):
        raise UsageError("[slurm]: methods takes a table for each method, as [slurm.methods.NAME]")
    for name, table in methods.items():
        parse.check(table, KEYS, f"[slurm.methods.{name}]")


def unknown_methods(config: Mapping[str, Any], planned: Iterable[str]) -> list[str]:
    """One line for each unknown method of the table, such as a misspelled one."""
    from dfkd_bench.plugins import registry

    known = sorted({*registry.entries(), *planned})
    names = [name for name in config.get(METHODS, {}) if name not in known]
    return [f"[slurm.methods.{name}]: there is no such method{did_you_mean(name, known)}" for name in names]


def settings_for(config: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The settings for `method`: defaults, replaced by those of the site, then by those of the method."""
    site = {key: value for key, value in config.items() if key in KEYS}
    return {**DEFAULTS, **site, **config.get(METHODS, {}).get(method, {})}


def parameters(settings: Mapping[str, Any], work: Work, jobs: int | None) -> dict[str, Any]:
    """The parameters of submitit's `AutoExecutor.update_parameters` for a run with these settings."""
    values = {
        "name": "dfkd-bench",
        "nodes": 1,
        "tasks_per_node": 1,
        "timeout_min": settings["timeout_min"],
        "cpus_per_task": work.spec.threads,
        "gpus_per_node": settings.get("gpus_per_node", int(work.spec.device == "cuda")),
        "mem_gb": settings.get("mem_gb"),
        "slurm_partition": settings.get("partition"),
        "slurm_account": settings.get("account"),
        "slurm_qos": settings.get("qos"),
        "slurm_constraint": settings.get("constraint"),
        "slurm_setup": settings.get("setup"),
        "local_setup": settings.get("setup"),
        "slurm_array_parallelism": settings.get("max_parallel", jobs),
        "slurm_additional_parameters": settings.get("sbatch"),
    }
    return {key: value for key, value in values.items() if value is not None}
