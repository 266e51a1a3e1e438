"""HTML pages of the leaderboard for tests: made from synthetic records, and parsed."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from factory import make_record, write_record
from rich.console import Console
from safetensors.numpy import save_file

from dfkd_bench.report.html.build import page
from dfkd_bench.report.html.groups import Group, groups
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import load_results, long_table
from dfkd_bench.report.terminal.leaderboard import show

HOSTILE = ("<script>alert(1)</script>", "a_b%&", '"><img src=x onerror=alert(2)>&amp;', "{{ 7 * 7 }}", "</script>")
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Seen(HTMLParser):
    """The elements of a page with their attributes, and the text of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, dict[str, str | None], str]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.raw.append((tag, dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            tag, attributes, text = self.raw[-1]
            self.raw[-1] = (tag, attributes, text + data)
        else:
            self.text.append(data)

    def data(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The shared words, and the groups with their rows as dicts."""
        found = [json.loads(text) for _, a, text in self.raw if a.get("type") == "application/json"]
        *tables, words = found
        for table in tables:
            table["rows"] = [dict(zip(words["row"], row, strict=True)) for row in table["rows"]]
            for row in table["rows"]:
                row["method"] = words["words"][row["method"]]
        return words, tables


def board_of(*found: dict[str, Any]) -> pd.DataFrame:
    """The leaderboard of some records."""
    return leaderboard(long_table(found))


def page_of(*found: dict[str, Any]) -> Seen:
    """The page of records without a results folder."""
    runs = long_table(found)
    return Seen(page(runs, leaderboard(runs), None))


def rows_of(*found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of records that form one group."""
    (table,) = page_of(*found).data()[1]
    rows: list[dict[str, Any]] = table["rows"]
    return rows


def page_at(root: Path) -> str:
    """The page of a results folder."""
    runs = load_results(root)
    return page(runs, leaderboard(runs), root)


def groups_at(root: Path) -> list[Group]:
    """The groups of rows that it shows."""
    runs = load_results(root)
    return groups(runs, leaderboard(runs), root)


def terminal(frame: pd.DataFrame, width: int) -> str:
    """The leaderboard as a terminal of so many columns shows it."""
    console = Console(width=width, file=io.StringIO(), record=True)
    show(console, frame)
    return console.export_text()


MEAN, STD = 0.3053, 0.3186  # of digits16


def write_run(root: Path, top1: dict[int, float] | None = None, *, labels: Any = None, **record: Any) -> Path:
    """Write a record with curves and ten grey images, of which image k has brightness k / 10; returns its folder."""
    folder = write_record(root, make_record(**record)).parent
    if top1 is not None:
        lines = [f"{x},{x * 64},{y}" for x, y in top1.items()]
        (folder / "curves.csv").write_text("\n".join(["round,student_images,top1", *lines]) + "\n")
    if labels is not None:
        bright = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) / 10
        tensors = {"images": np.broadcast_to((bright - MEAN) / STD, (10, 1, 16, 16)).astype(np.float32).copy()}
        if len(labels):
            tensors["labels"] = np.array(labels, dtype=np.int32)
        save_file(tensors, folder / "samples.safetensors")
    return folder
