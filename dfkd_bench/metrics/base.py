"""The declaration of a metric: how it is computed, its columns in the tables, and the tolerance of its numbers.

Declaring metrics imports neither torch nor numpy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from dfkd_bench.models.tapped import Tapped

CODE = "code_sha256"  # beside the columns of another package's metric: the digest of its code
END = 1000  # the default `place`: last


@dataclass(frozen=True)
class Column:
    """One number of a metric as a column of the long table and the leaderboard."""

    name: str
    meaning: str
    unit: str = ""
    at: str | None = None  # keys into the metric's part, separated by blanks; "": the part itself; None: the name
    clock: bool = False  # depends on the machine: the record has it in `measurement`, not in `result`


@dataclass(frozen=True)
class TieShares:
    """Shares of images with near ties, which rounding on another machine may resolve differently; 0 on the same one."""

    test: float = 0.0  # of the test images: two logits of student or teacher are nearly equal
    borders: float = 0.0  # of the test images: the confidence is near the border of two bins
    samples: float = 0.0  # of the synthetic images: two logits of the teacher are nearly equal
    balls: float = 0.0  # of the features: the distance to another feature is near that feature's radius
    classes: int = 1
    shown: int = 1  # number of synthetic images


@dataclass(frozen=True, eq=False)
class Curves:
    """Numbers of a run's snapshots, one value per snapshot, in order."""

    accuracies: Sequence[float]  # test top-1, percent
    agreements: Sequence[float | None]  # with the teacher on held-out synthetic images, percent; None without images
    student_images: Sequence[float]  # training images of the student up to the snapshot
    teacher_top1: float  # test top-1 of the teacher, percent


@dataclass(frozen=True, eq=False)
class View(Curves):
    """The data of a finished run that metrics get. A metric must not change it."""

    teacher: Tapped
    student: Tapped  # at the end of the run
    teacher_logits: Tensor  # (n, classes) fp32, on the test images
    student_logits: Tensor
    labels: Tensor  # (n,) int64
    images: Tensor  # (n, channels, height, width), the normalised test images
    synthetic: Tensor | None  # (m, channels, height, width), of the end of the run; None if the method has no preview
    synthetic_labels: Tensor | None  # (m,) int64: the method's labels of these images; None if there are none


Part = float | dict[str, Any] | None


@dataclass(frozen=True)
class Metric:
    """One metric: `compute` returns its part of the result: a number, a dict of numbers, or None if not defined.

    Raises `ValueError` for columns without a unique valid name.
    """

    key: str  # of its part in `result`; for another package's metric: the name of its entry point
    compute: Callable[[View], Part]
    columns: tuple[Column, ...] = ()
    # the input: "curves": only the fields of `Curves`; "student": all but the synthetic images; "samples": all
    source: Literal["curves", "student", "samples"] = "student"
    # the allowed difference caused by near ties, by the number's name in the part ("" for the part itself); for another
    # package's metric by the name of its column
    tolerance: Mapping[str, Callable[[TieShares], float]] = field(default_factory=dict)
    since: str = ""  # the first version of dfkd_bench whose records have it; "": all have it
    later: Mapping[str, str] = field(default_factory=dict)  # the same for single numbers that were added later
    place: tuple[int, int] = (END, END)  # sort key among the parts of a record, and among the columns of a table

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len({*names, CODE}) <= len(names) or not all(name.isidentifier() for name in names):
            raise ValueError(
                f"metric {self.key}: columns {', '.join(names)}; each needs a name of its own, of letters, digits and "
                f"_, that is not {CODE}"
            )

    def number(self, part: Any, column: Column) -> Any:
        """The number of `column` in `part`, the return value of `compute`; None if it is missing."""
        keys = column.at if column.at is not None else column.name if isinstance(part, Mapping) else ""
        for key in keys.split():
            part = part.get(key) if isinstance(part, Mapping) else None
        return part

    def path(self, column: Column) -> tuple[str, ...]:
        """The keys of a column's number in a record."""
        part = ("measurement",) if column.clock else ("result", self.key)
        return (*part, *(column.name if column.at is None else column.at).split())

    def slack(self, number: str, edges: TieShares) -> float:
        """The allowed difference of a number."""
        return self.tolerance[number](edges) if number in self.tolerance else 0.0


def may_lack(since: str, version: str | None) -> bool:
    """True if records of dfkd_bench `version` may lack a number that was added in version `since`.

    `version` None stands for any version. Records of version `since` may lack it too: they may be from before it.
    """
    return bool(since) and (version is None or version_numbers(version) <= version_numbers(since))


def version_numbers(version: str) -> list[int]:
    """`1.10.2` as [1, 10, 2], for comparison."""
    return [int(n) for n in re.findall(r"\d+", version)]
