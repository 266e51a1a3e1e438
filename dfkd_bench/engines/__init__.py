"""Where the runs of a plan execute. An engine is chosen by name here and nowhere else; the rest is `base.Engine`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dfkd_bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from dfkd_bench.engines.base import Engine, EngineOptions

# name -> (module with `make(options) -> Engine`, the extra that installs what it needs, its one line in the help)
ENGINES: dict[str, tuple[str, str, str]] = {
    "local": ("dfkd_bench.engines.local", "", "worker processes on this machine"),
    "ray": ("dfkd_bench.engines.ray.engine", "ray", "a Ray cluster, or one started here"),
    "slurm": ("dfkd_bench.engines.slurm.engine", "slurm", "Slurm job arrays, through submitit"),
}
DEFAULT = "local"


def engine(name: str, options: EngineOptions) -> Engine:
    """The engine `name`. Raises `UsageError` for an unknown one and for one whose extra is not installed."""
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}{did_you_mean(name, list(ENGINES))}")
    module, extra, _ = ENGINES[name]
    try:
        made: Engine = import_module(module).make(options)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dfkd_bench"):
            raise
        raise UsageError(f"engine {name} needs the extra: pip install 'dfkd-bench[{extra}]'") from error
    return made
