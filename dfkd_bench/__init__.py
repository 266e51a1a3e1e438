"""dfkd-bench: a fair, repeatable benchmark of data-free knowledge distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfkd_bench._version import __version__

if TYPE_CHECKING:
    from dfkd_bench.api import run
    from dfkd_bench.report.tables.runs import load_results
    from dfkd_bench.runs.settings import Request
    from dfkd_bench.runs.spec import RunSpec

__all__ = ["Request", "RunSpec", "__version__", "load_results", "run"]

_HOMES = {"Request": "runs.settings", "RunSpec": "runs.spec", "load_results": "report.tables.runs", "run": "api"}


def __getattr__(name: str) -> Any:
    """Import the public names at first use, so that `import dfkd_bench` stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
