"""dfkd-bench: a fair, repeatable benchmark of data-free knowledge distillation."""

from dfkd_bench._version import __version__

__all__ = ["__version__"]
