"""Engines execute the runs of a plan. This file has the only list of engines."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from dfkd_bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from dfkd_bench.engines.base import Engine, EngineKind, EngineOptions

BUILT_IN = ("local", "ray", "slurm")  # modules of this folder; the name of each one's `KIND` is the module's name
DEFAULT = "local"
OPTIONS = {"address": "--address", "config": "--engine-config"}  # options that only some engines accept


@cache
def engines() -> dict[str, EngineKind]:
    """Every engine by name, without importing what the engine needs."""
    return {name: import_module(f"{__name__}.{name}").KIND for name in BUILT_IN}


def engines_with(option: str) -> list[str]:
    """Names of the engines that accept one of `OPTIONS`."""
    return [name for name, kind in engines().items() if option in kind.takes]


def engine(name: str, options: EngineOptions) -> Engine:
    """The engine `name`.

    Raises `UsageError` if it is unknown, does not accept an option, or its extra is not installed.
    """
    if name not in engines():
        raise UsageError(f"unknown engine {name!r}{did_you_mean(name, list(engines()))}")
    kind = engines()[name]
    for option, word in OPTIONS.items():
        if getattr(options, option) and option not in kind.takes:
            raise UsageError(f"engine {name} takes no {word}: it is for {' and '.join(engines_with(option))}")
    try:
        made: Engine = import_module(kind.module).make(options)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dfkd_bench"):
            raise
        raise UsageError(f"engine {name} needs the extra: pip install 'dfkd-bench[{kind.extra}]'") from error
    return made
