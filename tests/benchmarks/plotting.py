"""What these scripts ask of the name of a figure's file."""

from __future__ import annotations

from pathlib import Path

from dfkd_bench.errors import UsageError


def check_png(path: Path) -> Path:
    """`path` itself. Raises `UsageError` unless it names a PNG file in a folder that is there."""
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise UsageError(f"--figure names a PNG file in a folder that exists, got {path}")
    return path
