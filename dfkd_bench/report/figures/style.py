"""The style of all figures: sizes of a paper's columns, fonts, colours for colour-blind readers, file formats.

Math mode is off, because names come from plug-ins. No date or random number goes into a file, so that the same data
give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.figure import Figure

from dfkd_bench.errors import UsageError
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.text import one_line

COLUMN, PAGE = 3.5, 7.2  # width in inches: one column of a paper, both columns
SMALL, NORMAL, LARGE = 7.0, 7.5, 8.5  # font sizes in points at final size
# Okabe and Ito's palette without its yellow, which is hard to see on white (jfly.uni-koeln.de/color)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "*", "h", "d", "8")
STROKES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
GREY, FAINT, GRID = "0.35", "0.72", "0.91"
FORMATS = {"pdf": "vector, for LaTeX", "svg": "vector, for pages", "png": "pixels, 300 dpi"}
DPI = 300
RC: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": NORMAL, "text.parse_math": False, "text.usetex": False,
    "axes.titlesize": NORMAL, "axes.labelsize": NORMAL, "axes.titlelocation": "left", "axes.titlepad": 3.0,
    "axes.labelpad": 2.5, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "axes.grid": True, "axes.facecolor": "white", "grid.color": GRID, "grid.linewidth": 0.5,
    "axes.formatter.use_mathtext": False, "axes.formatter.useoffset": False, "axes.unicode_minus": True,
    "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5, "ytick.minor.size": 1.5, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4, "ytick.minor.width": 0.4, "xtick.major.pad": 2.0, "ytick.major.pad": 2.0,
    "legend.fontsize": SMALL, "legend.frameon": False, "legend.handlelength": 2.2, "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5, "legend.labelspacing": 0.35, "legend.borderpad": 0.0, "legend.borderaxespad": 0.0,
    "lines.linewidth": 1.2, "lines.markersize": 4.5, "lines.markeredgewidth": 0.7, "errorbar.capsize": 0.0,
    "figure.facecolor": "white", "figure.dpi": DPI, "savefig.facecolor": "white", "savefig.bbox": None,
    "pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "dfkd-bench", "path.simplify": True,
}  # fmt: skip
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
BOUND_STROKES: tuple[Any, ...] = ((0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 3)))
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of one competitor, in every figure of a call."""

    colour: str
    marker: str
    stroke: Any


Looks = Mapping[str, Look]


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label, in alphabetical order: colours repeat after 7 labels, colour and marker after 98."""
    result = {}
    for k, label in enumerate(sorted(set(labels))):
        marker = MARKERS[(k + k // len(MARKERS)) % len(MARKERS)]
        result[label] = Look(COLOURS[k % len(COLOURS)], marker, STROKES[k // len(COLOURS) % len(STROKES)])
    return result


@contextmanager
def style() -> Iterator[None]:
    """Context manager that sets the style, independent of the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)  # type: ignore[arg-type]  # the keys are known names
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorator: runs `draw` inside `style()`."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with style():
            return draw(*args, **kwargs)

    return drawn


@styled
def figure_bytes(figure: Figure, form: str) -> bytes:
    """The figure as bytes of a file in the format `form`; equal figures give equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format=form, dpi=DPI, metadata=METADATA[form])
    return file.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write the figure atomically, in the format of the suffix of `path`; returns `path`.

    Raises `UsageError` for a format not in `FORMATS`, `RunError` if the file cannot be written.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise UsageError(f"a figure is written as {', '.join(FORMATS)}, got {path.name!r}")
    write_atomic(path, figure_bytes(figure, form))
    return path


def clean(text: str, longest: int = 60) -> str:
    """A name on one line, without control characters; a long one is cut in the middle to `longest` characters."""
    plain = one_line(text)
    if len(plain) > longest:
        plain = f"{plain[: longest - longest // 3 - 1]}…{plain[-(longest // 3) :]}"
    return plain


def slug(text: str) -> str:
    """A name as part of a file name: characters other than letters, digits and `._-` become `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".") or "_"
