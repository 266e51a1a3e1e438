"""What a metric is: a part of a run's result, its columns in the tables, and how its numbers are compared.

Plain data: declaring and reading metrics imports neither torch nor numpy.
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
END = 1000  # after all that say where they stand


@dataclass(frozen=True)
class Column:
    """One number of a metric as a column of the long table and the leaderboard."""

    name: str
    meaning: str
    unit: str = ""
    at: str | None = None  # keys into the metric's part, blanks between, "" for the part itself; None: the name
    clock: bool = False  # depends on the machine; the runner leaves it in the record's `measurement`, not in `result`


@dataclass(frozen=True)
class TieShares:
    """How many images may count otherwise on a machine of another arithmetic: shares; all 0 on one of the same."""

    test: float = 0.0  # of the test images: student or teacher has two classes nearly alike
    borders: float = 0.0  # of the test images: a confidence is at the border of two bins
    samples: float = 0.0  # of the synthetic images: the teacher has two classes nearly alike
    balls: float = 0.0  # of the features: in or out of another's ball of neighbours
    classes: int = 1
    shown: int = 1  # synthetic images


@dataclass(frozen=True, eq=False)
class Curves:
    """What the snapshots of a run show, a value for each in their order."""

    accuracies: Sequence[float]  # test top-1, percent
    agreements: Sequence[float | None]  # with the teacher on held-out synthetic images, percent; None without images
    student_images: Sequence[float]  # images that the student was trained on until then
    teacher_top1: float  # percent


@dataclass(frozen=True, eq=False)
class View(Curves):
    """What a metric sees of a finished run. Computing changes nothing of it."""

    teacher: Tapped
    student: Tapped  # of the last checkpoint
    teacher_logits: Tensor  # (n, classes) fp32, on the test images
    student_logits: Tensor
    labels: Tensor  # (n,) int64
    images: Tensor  # (n, channels, height, width), the test images as networks take them
    synthetic: Tensor | None  # (m, channels, height, width), of the end of the run; None where the method shows none
    synthetic_labels: Tensor | None  # (m,) int64: the classes that they were made as; None where there are none


Part = float | dict[str, Any] | None


@dataclass(frozen=True)
class Metric:
    """One metric: `compute` gives its part of the result, a number, a dict of numbers, or None where there is none.

    Raises `ValueError` for columns that have no names of their own.
    """

    key: str  # of its part in `result`; of another package's metric: the name of its entry point
    compute: Callable[[View], Part]
    columns: tuple[Column, ...] = ()
    # what it is computed from: of a `View` the fields of `Curves` alone, all but the synthetic images, or those too
    source: Literal["curves", "student", "samples"] = "student"
    # by how much a number may differ for images on an edge, by its name in the part, "" for the part itself; of
    # another package's metric by the name of its column
    tolerance: Mapping[str, Callable[[TieShares], float]] = field(default_factory=dict)
    since: str = ""  # version of dfkd_bench whose records began to have it; "": all have it
    later: Mapping[str, str] = field(default_factory=dict)  # the same of single numbers that came after the others
    place: tuple[int, int] = (END, END)  # among the parts of a record, among the columns of a table

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len({*names, CODE}) <= len(names) or not all(name.isidentifier() for name in names):
            raise ValueError(
                f"metric {self.key}: columns {', '.join(names)}; each needs a name of its own, of letters, digits and "
                f"_, that is not {CODE}"
            )

    def number(self, part: Any, column: Column) -> Any:
        """A column's number in what `compute` gave, None where there is none; of one number alone it is the number."""
        keys = column.at if column.at is not None else column.name if isinstance(part, Mapping) else ""
        for key in keys.split():
            part = part.get(key) if isinstance(part, Mapping) else None
        return part

    def path(self, column: Column) -> tuple[str, ...]:
        """Keys of a column's number in a record."""
        part = ("measurement",) if column.clock else ("result", self.key)
        return (*part, *(column.name if column.at is None else column.at).split())

    def slack(self, number: str, edges: TieShares) -> float:
        """By how much a number may differ."""
        return self.tolerance[number](edges) if number in self.tolerance else 0.0


def may_lack(since: str, version: str | None) -> bool:
    """Whether records of dfkd_bench `version` may lack what came with version `since`; None: of any version.

    Records of `since` itself may lack it too: they may have been made before it came.
    """
    return bool(since) and (version is None or version_numbers(version) <= version_numbers(since))


def version_numbers(version: str) -> list[int]:
    """The numbers of a version in their order."""
    return [int(n) for n in re.findall(r"\d+", version)]
