"""The HTML page: tables, curves and images of every group, privilege cards, and the table library, in one file.

A content security policy forbids all requests and all scripts except its own two. Data are stored in JSON elements and
shown as text, so that no name from a record or plug-in is interpreted as HTML.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from dfkd_bench.protocol import seconds_of, titled
from dfkd_bench.report.html import cards, curves, images, payload, templates
from dfkd_bench.report.html.groups import MAX_ROWS, Group, digest, groups
from dfkd_bench.report.tables import time_budget

TABS = 7  # up to this number of choices there are tabs, above it a list
MAX_CARDS = 100
MAX_POINTS = 40_000  # of all curves together: about 1 MB
MAX_IMAGE_BYTES = 900_000  # of all pictures together
MIN_PICTURE_BYTES = 3_000  # smaller pictures are not recognisable
LIBRARY = "dataTables.min.js"


@dataclass(frozen=True)
class View:
    """A group and the content of its panel; `notes` name what is left out."""

    group: Group
    data: str
    warnings: list[str]
    chart: curves.Chart | None
    pictures: list[tuple[str, images.Picture]]
    notes: list[str]


@dataclass(frozen=True)
class TaskView:
    """The groups of one task."""

    id: str
    name: str
    views: list[View]


def page(runs: pd.DataFrame, board: pd.DataFrame, results: Path | None) -> str:
    """The leaderboard as the text of one HTML file; the same records give the same bytes.

    `runs` is a `long_table`, `board` its `leaderboard` or some rows of it. `results` is the folder of the records, from
    which curves and images are read; if they are missing, a note on the page says so.
    """
    all_groups = groups(runs, board, results)
    strings = payload.StringTable()
    views = list(_views(all_groups, results, strings))
    tasks: dict[str, list[View]] = {}
    for view in views:
        tasks.setdefault(view.group.task, []).append(view)
    environment = templates()
    environment.filters["zip"] = lambda left, right: list(zip(left, right, strict=True))
    style, script = (_file("templates", name) for name in ("page.css", "page.js"))
    library = _file("html", "vendor", LIBRARY)
    all_cards = cards.cards(board)
    text = environment.get_template("page.html.j2").render(
        tasks=[TaskView(digest("t", name), name, part) for name, part in tasks.items()],
        tabs=TABS,
        timed=any(seconds_of(budget) is not None for budget in set(board["budget"])),
        cards=all_cards if len(all_cards) <= MAX_CARDS else [],
        methods=len(all_cards),
        bounds=sum(card.bound for card in all_cards),
        n=_counts(board),
        protocols=[titled(word) for word in sorted(set(board["protocol"]))],
        words=payload.as_json({"words": strings.all, "row": payload.ROW, "marks": _marks(board)}),
        style=style,
        script=script,
        library=library,
        licence=_file("html", "vendor", "LICENSE.txt"),
        policy=_policy((script, library), (style,)),
    )
    return text + "\n" * (not text.endswith("\n"))


def _file(*parts: str) -> str:
    return resources.files("dfkd_bench.report").joinpath(*parts).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A content security policy that allows these scripts and styles by their SHA-256."""

    def allowed(texts: Sequence[str]) -> str:
        digests = (hashlib.sha256(text.encode()).digest() for text in texts)
        return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)

    rules = ("default-src 'none'", "img-src data:", f"style-src {allowed(styles)}", f"script-src {allowed(scripts)}",
             "base-uri 'none'", "form-action 'none'")  # fmt: skip
    return "; ".join(rules)


def _counts(board: pd.DataFrame) -> dict[str, int]:
    return {name: int(board[f"n_{name}"].sum()) for name in ("complete", "diverged", "failed", "alarmed", "repeated")}


def _marks(board: pd.DataFrame) -> dict[str, list[list[str]]]:
    """Mark, name and meaning of each privilege, by the text of the leaderboard's column `privileges`."""
    texts = {text if isinstance(text, str) else None for text in board["privileges"]}
    return {text or "": [list(use) for use in cards.described_privileges(text)] for text in sorted(texts, key=str)}


def _views(all_groups: Sequence[Group], results: Path | None, strings: payload.StringTable) -> Iterator[View]:
    max_bytes = _bytes_per_picture(all_groups, results)
    n_points = 0
    for group in all_groups:
        notes, chart, pictures = [], None, []
        if results is None:
            notes.append("No curves and images: the page was made without the folder of the records.")
        elif not group.small:
            notes.append(f"Curves and images are left out: they are drawn for up to {MAX_ROWS} rows.")
        else:
            points_of_lines = [curves.read(line, results) for line in group.lines]
            n_points += sum(3 * len(curve.at) for curve in points_of_lines if curve)
            chart = curves.chart(group, points_of_lines) if n_points <= MAX_POINTS else None
            if chart is None:
                notes.append(
                    "The curves are left out: the page would be too large." if n_points > MAX_POINTS
                    else "No curves: no row has a file curves.csv beside each of its records."
                )  # fmt: skip
            shown = ((line, images.picture(line, results, max_bytes)) for line in group.lines if max_bytes)
            pictures = [(line.name, picture) for line, picture in shown if picture]
            if not pictures:
                notes.append(
                    "No images: no file samples.safetensors of a known task is beside these records." if max_bytes
                    else "The images are left out: the page would be too large."
                )  # fmt: skip
        warnings = time_budget.notes([line.row for line in group.lines])
        yield View(group, payload.as_json(payload.table(group, strings)), warnings, chart, pictures, notes)


def _bytes_per_picture(all_groups: Sequence[Group], results: Path | None) -> int:
    """Maximum bytes per picture such that all fit; 0 if the pictures would be too small."""
    if results is None:
        return 0
    count = sum(images.has_images(line, results) for group in all_groups if group.small for line in group.lines)
    each = MAX_IMAGE_BYTES // max(1, count)
    return 0 if each < MIN_PICTURE_BYTES else min(images.MAX_BYTES, each)
