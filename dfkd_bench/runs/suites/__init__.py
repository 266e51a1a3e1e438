"""Suites: named requests, one run file each; the comment in the first line of the file describes the suite.

Listing suites does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_bench.errors import UsageError, did_you_mean
from dfkd_bench.runs.runfile import read_run_file

HOME = Path(__file__).parent


@dataclass(frozen=True)
class Suite:
    """One suite; `fields` are those of a `Request`."""

    name: str
    about: str
    fields: dict[str, Any]


def suites() -> dict[str, Suite]:
    """Every suite by name, the shortest first."""
    found = [read(path) for path in HOME.glob("*.toml")]
    return {
        one.name: one for one in sorted(found, key=lambda s: (len(s.fields["seeds"]), len(s.fields["tasks"]), s.name))
    }


def suite(name: str) -> Suite:
    """The suite called `name`; raises `UsageError` for an unknown one."""
    known = suites()
    if name not in known:
        raise UsageError(f"unknown suite {name!r}{did_you_mean(name, list(known))}")
    return known[name]


def read(path: Path) -> Suite:
    """The suite in a run file."""
    about = path.read_text().partition("\n")[0].removeprefix("#").strip()
    return Suite(path.stem, about, read_run_file(path))
