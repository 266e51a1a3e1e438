"""The page as text: every group's table, curves and images, the privilege cards, and the library that sorts.

One file that needs nothing else. A policy inside it forbids every request and every script but its own two; data stand
in JSON elements and are shown as text, so that no name from a record or plugin can become part of the page.
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
from dfkd_bench.report.html.groups import SMALL, Group, digest, groups
from dfkd_bench.report.tables import time_budget

TABS = 7  # choices up to which they stand side by side; more become a list
MOST_CARDS = 100
MOST_POINTS = 40_000  # of all curves: about a megabyte
MOST_IMAGES = 900_000  # bytes of all pictures
LEAST_IMAGE = 3_000  # bytes: smaller pictures show nothing
LIBRARY = "dataTables.min.js"


@dataclass(frozen=True)
class View:
    """A group with all that stands in its panel. What is left out says so in `notes`."""

    group: Group
    data: str
    warnings: list[str]
    chart: curves.Chart | None
    pictures: list[tuple[str, images.Picture]]
    notes: list[str]


@dataclass(frozen=True)
class TaskView:
    """All groups of one task."""

    id: str
    name: str
    views: list[View]


def page(runs: pd.DataFrame, board: pd.DataFrame, results: Path | None) -> str:
    """The leaderboard as the text of one HTML file; the same records give the same bytes.

    `runs` is a `long_table`, `board` the `leaderboard` of it, or a part of that. `results` is the folder from which the
    records were read: curves and images beside them are drawn; where they are missing, the page says so.
    """
    found = groups(runs, board, results)
    words = payload.Words()
    views = list(_views(found, results, words))
    tasks: dict[str, list[View]] = {}
    for view in views:
        tasks.setdefault(view.group.task, []).append(view)
    environment = templates()
    environment.filters["zip"] = lambda left, right: list(zip(left, right, strict=True))
    style, script = (_file("templates", name) for name in ("page.css", "page.js"))
    library = _file("html", "vendor", LIBRARY)
    known = cards.cards(board)
    text = environment.get_template("page.html.j2").render(
        tasks=[TaskView(digest("t", name), name, part) for name, part in tasks.items()],
        tabs=TABS,
        timed=any(seconds_of(budget) is not None for budget in set(board["budget"])),
        cards=known if len(known) <= MOST_CARDS else [],
        methods=len(known),
        bounds=sum(card.bound for card in known),
        n=_counts(board),
        protocols=[titled(word) for word in sorted(set(board["protocol"]))],
        words=payload.as_json({"words": words.all, "row": payload.ROW, "marks": _marks(board)}),
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
    """A content security policy by the SHA-256 of what stands between the tags."""

    def allowed(texts: Sequence[str]) -> str:
        digests = (hashlib.sha256(text.encode()).digest() for text in texts)
        return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)

    rules = ("default-src 'none'", "img-src data:", f"style-src {allowed(styles)}", f"script-src {allowed(scripts)}",
             "base-uri 'none'", "form-action 'none'")  # fmt: skip
    return "; ".join(rules)


def _counts(board: pd.DataFrame) -> dict[str, int]:
    return {name: int(board[f"n_{name}"].sum()) for name in ("complete", "diverged", "failed", "alarmed", "repeated")}


def _marks(board: pd.DataFrame) -> dict[str, list[list[str]]]:
    """Mark, name and meaning of each privilege, by the leaderboard's text for them."""
    texts = {text if isinstance(text, str) else None for text in board["privileges"]}
    return {text or "": [list(use) for use in cards.in_words(text)] for text in sorted(texts, key=str)}


def _views(found: Sequence[Group], results: Path | None, words: payload.Words) -> Iterator[View]:
    room = _room(found, results)
    points = 0
    for group in found:
        notes, chart, pictures = [], None, []
        if results is None:
            notes.append("Curves and images are not drawn: the page was made from the tables alone.")
        elif not group.small:
            notes.append(f"Curves and images are left out here: they are drawn for up to {SMALL} rows.")
        else:
            read = [curves.read(line, results) for line in group.lines]
            points += sum(3 * len(curve.at) for curve in read if curve)
            chart = curves.chart(group, read) if points <= MOST_POINTS else None
            if chart is None:
                notes.append(
                    "The curves are left out: the page would grow too large." if points > MOST_POINTS
                    else "No curves: no file curves.csv lies beside every record of any row."
                )  # fmt: skip
            shown = ((line, images.picture(line, results, room)) for line in group.lines if room)
            pictures = [(line.name, picture) for line, picture in shown if picture]
            if not pictures:
                notes.append(
                    "No images: no file samples.safetensors of a known task lies beside these records." if room
                    else "The images are left out: the page would grow too large."
                )  # fmt: skip
        warnings = time_budget.notes([line.row for line in group.lines])
        yield View(group, payload.as_json(payload.table(group, words)), warnings, chart, pictures, notes)


def _room(found: Sequence[Group], results: Path | None) -> int:
    """Bytes that each picture may have, so that all fit; 0 where they would show nothing."""
    if results is None:
        return 0
    wanted = sum(images.has_images(line, results) for group in found if group.small for line in group.lines)
    each = MOST_IMAGES // max(1, wanted)
    return 0 if each < LEAST_IMAGE else min(images.MOST, each)
