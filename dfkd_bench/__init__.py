"""dfkd-bench: a fair, repeatable benchmark of data-free knowledge distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfkd_bench._version import __version__

if TYPE_CHECKING:
    from dfkd_bench.report.table import load_results

__all__ = ["__version__", "load_results"]


def __getattr__(name: str) -> Any:
    """`load_results`, imported when first asked for, so that `import dfkd_bench` waits for nothing."""
    if name == "load_results":
        from dfkd_bench.report.table import load_results

        return load_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
