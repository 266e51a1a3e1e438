"""Writes every progress event of a run as one line of JSON to `events.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.runs.progress import Callback, Logger

if TYPE_CHECKING:
    from dfkd_bench.runs.spec import RunSpec


@contextmanager
def opened(folder: Path, spec: RunSpec) -> Iterator[Callback]:
    """The callback; it appends to the file, so a resumed run keeps the lines of before."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "events.jsonl", "a", encoding="utf-8") as file:
        yield lambda event: print(json.dumps(asdict(event)), file=file, flush=True)


LOGGER = Logger("jsonl", "every step of a run as a line of JSON, in events.jsonl", opened)
