"""All renderings of a results folder, as bytes: what `leaderboard --all` writes and `verify` compares.

The same records give the same bytes, whatever the folder's path and the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfkd_bench.report.html import images
from dfkd_bench.report.html.build import page
from dfkd_bench.report.html.groups import groups
from dfkd_bench.report.latex import latex
from dfkd_bench.report.tables.across_tasks import across
from dfkd_bench.report.tables.gap import gaps, gaps_table
from dfkd_bench.report.tables.leaderboard import FILE, leaderboard
from dfkd_bench.report.tables.pairs import pairs
from dfkd_bench.report.tables.runs import some_results
from dfkd_bench.report.terminal import leaderboard as view
from dfkd_bench.utils.files import write_atomic


@dataclass(frozen=True)
class Tables:
    """The input of every rendering."""

    results: Path
    runs: pd.DataFrame
    board: pd.DataFrame


def load_tables(results: Path) -> Tables:
    """The tables of a results folder, with paths relative to it. Raises `UsageError` if there is no record."""
    runs = some_results(results)
    runs["path"] = [Path(path).relative_to(results).as_posix() for path in runs["path"]]
    return Tables(results, runs, leaderboard(runs))


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _document(tables: Tables) -> bytes:
    parts = [
        "# Leaderboard",
        "",
        view.markdown(tables.board),
        "## Beside published numbers",
        "",
        gaps_table(gaps(tables.board)),
    ]
    return "\n".join(parts).encode()


# file name -> description, function that gives its bytes
RENDERINGS: dict[str, tuple[str, Callable[[Tables], bytes]]] = {
    FILE: ("one row per method, task and track", lambda t: _csv(t.board)),
    "runs.csv": ("one row per run", lambda t: _csv(t.runs)),
    "pairs.csv": ("every comparison of two rows over their shared seeds", lambda t: _csv(pairs(t.runs))),
    "across.csv": ("means and ranks over tasks", lambda t: _csv(across(t.runs))),
    "gaps.csv": ("published numbers beside rows of the recipe track", lambda t: _csv(gaps(t.board))),
    "leaderboard.md": ("the tables in Markdown", _document),
    "leaderboard.tex": ("the tables in LaTeX, for booktabs", lambda t: latex(t.board).encode()),
    "index.html": (
        "the page: sortable, with curves, images and cards",
        lambda t: page(t.runs, t.board, t.results).encode(),
    ),
}


def render(results: Path, names: Iterable[str] = tuple(RENDERINGS)) -> dict[str, bytes]:
    """The bytes of the renderings `names` of the records below `results`. Raises `UsageError` if there is no record."""
    tables = load_tables(results)
    return {name: RENDERINGS[name][1](tables) for name in names}


def expected_renderings(results: Path) -> dict[str, bytes]:
    """The expected bytes of each rendering file that the results folder holds; for `verify`. Raises as `render`."""
    names = [name for name in RENDERINGS if (results / name).is_file()]
    return render(results, names) if names else {}


def write(results: Path, out: Path) -> list[Path]:
    """Write every rendering into the folder `out` and return the files written.

    Also writes `samples.png` beside the record whose images the page shows, if it is not there. Raises `UsageError` if
    there is no record, `RunError` if a file cannot be written.
    """
    tables = load_tables(results)
    sheets = [images.save_sheet(line, results) for group in groups(tables.runs, tables.board, results) if group.small
              for line in group.lines]  # fmt: skip
    written = [path for path in sheets if path]
    out.mkdir(parents=True, exist_ok=True)
    for name, (_, draw) in RENDERINGS.items():
        write_atomic(out / name, draw(tables))
        written.append(out / name)
    return written
