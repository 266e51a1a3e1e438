"""Comparison of our recipes with the authors' scripts, column by column.

`reference/recipes.csv` holds the settings of the scripts, `recipe_claims.csv` our method, preset and task that
reproduce a row, `recipe_columns.csv` our setting that corresponds to a column, `recipe_deviations.csv` the intended
differences. `reference/README.md` describes all four.

    python -m dfkd_bench.report.tables.recipes                 every difference, and the counts
    python -m dfkd_bench.report.tables.recipes NAME ...        learning rates of these methods in every budget
"""

from __future__ import annotations

import csv
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dfkd_bench import protocol
from dfkd_bench.data.base import Dataset
from dfkd_bench.errors import UsageError
from dfkd_bench.method import Flags, StudentRecipe
from dfkd_bench.plugins.registry import card, load
from dfkd_bench.plugins.registry import resolve as entry_of
from dfkd_bench.report import markdown
from dfkd_bench.runs.plan import preset_of
from dfkd_bench.runs.spec import make_spec, matches
from dfkd_bench.training.build import plan_run
from dfkd_bench.training.loop import Schedule

FOLDER = Path(__file__).parents[2] / "reference"
SCRIPTS, CLAIMS, COLUMNS, DEVIATIONS = (
    FOLDER / f"{name}.csv" for name in ("recipes", "recipe_claims", "recipe_columns", "recipe_deviations")
)
KEY = ("repository", "file", "command", "dataset")  # identify a row; some commands are documented for two datasets
ABOUT = (*KEY, "method", "commit", "teacher", "student", "note")  # all other columns are settings
REASONS = (
    "baseline of another paper",
    "the teacher in the student's place",
    "starts from images that are not public",
    "visualisation only",
    "another command is the claim",
)
ALL_METHODS = "*"  # in recipe_columns.csv: methods without a line of their own for the column
TOLERANCE = 1e-6  # relative

Row = Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Claim:
    """One row of the scripts, and our method, preset and task that reproduce it; without a method, the reason."""

    theirs: Row
    method: str
    preset: str
    task: str
    reason: str

    @property
    def script(self) -> str:
        """File name and command."""
        return f"{self.theirs['file'].split('; ')[0].rpartition('/')[2]} {self.theirs['command']}"


@dataclass(frozen=True)
class ResolvedRun:
    """Resolved values of a run; `recipe_columns.csv` names its parts, such as `settings.gen_lr`.

    run: epochs including warm-up, and epochs of warm-up. rate: the student's learning rate at the start of the first,
    the middle and the last epoch in which the student is trained.
    """

    settings: SimpleNamespace
    recipe: StudentRecipe
    flags: Flags
    schedule: Schedule
    dataset: Dataset
    run: SimpleNamespace
    rate: SimpleNamespace

    def value(self, key: str) -> Any:
        """The part `key`, or a product of parts (`a.b * c.d`); None if there is no part of that name."""
        try:
            parts = [attrgetter(part)(self) for part in key.split(" * ")]
        except AttributeError:
            return None
        return parts[0] if len(parts) == 1 else math.prod(parts)


@dataclass(frozen=True)
class Cell:
    """One column of a claimed row and our value. `number`: of the declared deviation, 0 if there is none."""

    column: str
    key: str
    theirs: str
    ours: Any
    equal: bool
    number: int = 0

    def __str__(self) -> str:
        return f"{self.column}: theirs {self.theirs}, ours {display(self.ours)} ({self.key})"


@dataclass(frozen=True)
class Deviation:
    """An intended difference: a column of all rows that match the globs (alternatives separated by `|`)."""

    method: str
    preset: str
    task: str
    column: str
    number: int  # of the deviation in the method's document

    def covers(self, claim: Claim, column: str) -> bool:
        """True if this declares the column of that row."""
        named = (claim.method, column) == (self.method, self.column)
        return named and matches(claim.preset, self.preset) and matches(claim.task, self.task)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@cache
def claims() -> tuple[Claim, ...]:
    """Every row of the scripts with its claim, in the order of the scripts.

    Raises `UsageError` if a row has no claim, if a claim has both or neither of method and reason, and if a claim is
    for a row that does not exist.
    """
    lines = {tuple(line[k] for k in KEY): line for line in read(CLAIMS)}
    result = []
    for row in read(SCRIPTS):
        key = tuple(row[k] for k in KEY)
        line = lines.pop(key, None)
        if line is None:
            raise UsageError(f"{CLAIMS.name} has no line for {' '.join(key)}: add one")
        if bool(line["method"]) == bool(line["reason"]):
            raise UsageError(f"{CLAIMS.name}: {' '.join(key)} needs either a method or a reason why there is none")
        if line["reason"] not in ("", *REASONS):
            raise UsageError(f"{CLAIMS.name}: unknown reason {line['reason']!r}: use one of {', '.join(REASONS)}")
        result.append(Claim(row, line["method"], line["preset"], line["task"], line["reason"]))
    if lines:
        raise UsageError(f"{CLAIMS.name}: {SCRIPTS.name} has no row {' '.join(next(iter(lines)))}")
    return tuple(result)


@cache
def deviations() -> tuple[Deviation, ...]:
    """All declared differences."""
    return tuple(
        Deviation(d["method"], d["preset"], d["task"], d["column"], int(d["number"])) for d in read(DEVIATIONS)
    )


@cache
def columns(method: str) -> Mapping[str, tuple[tuple[str, Mapping[str, str]], ...]]:
    """Column -> the parts of `ResolvedRun` that it corresponds to, each with a map from their words to our values.

    A column without parts is not compared.
    """
    all_lines = read(COLUMNS)
    own = [line for line in all_lines if line["method"] == method]
    known = {line["column"] for line in own}
    result: dict[str, tuple[tuple[str, Mapping[str, str]], ...]] = {}
    for line in [*own, *(line for line in all_lines if line["method"] == ALL_METHODS and line["column"] not in known)]:
        words = dict(word.rpartition("=")[::2] for word in line["words"].split(" | ") if word)
        result[line["column"]] = (*result.get(line["column"], ()), *([(line["ours"], words)] if line["ours"] else []))
    return result


def resolve_run(method: str, preset: str | None, task: str, budget: str = "full") -> ResolvedRun:
    """A run of the recipe track. Raises `UsageError` for an unknown method, preset or task."""
    entry, selected_task = entry_of(method), protocol.task(task)
    method_card = card(entry)
    preset = preset_of(method_card, preset, method)
    spec = make_spec(method, method_card, selected_task, preset=preset, track="recipe", budget=budget)
    settings = spec.settings
    kind = load(entry)
    instance = kind(kind.Config(**dict(settings)))
    flags, published = instance.flags, instance.recipe
    recipe, plan = plan_run(spec, selected_task, flags, published)
    warmup = plan.warmup_rounds / plan.rounds_per_epoch
    steps = plan.rounds_per_epoch * plan.student_steps

    def rate(epoch: int) -> float:
        return recipe.rate(epoch * steps, plan.total_steps, plan.student_steps)

    return ResolvedRun(
        SimpleNamespace(**dict(settings)), recipe, flags, plan, selected_task.dataset,
        SimpleNamespace(epochs=plan.rounds / plan.rounds_per_epoch + warmup, warmup_epochs=warmup),
        SimpleNamespace(first=rate(0), middle=rate(plan.epochs // 2), last=rate(plan.epochs - 1)),
    )  # fmt: skip


@cache
def cells(claim: Claim) -> tuple[Cell, ...]:
    """Every compared column of a claimed row that the script sets.

    Raises `UsageError` for an unknown method, preset, task or column.
    """
    ours = resolve_run(claim.method, claim.preset, claim.task)
    known_columns, result = columns(claim.method), []
    for column, theirs in claim.theirs.items():
        if column in ABOUT or not theirs:
            continue
        if column not in known_columns:
            raise UsageError(f"{COLUMNS.name} has no line for column {column} of {claim.method}: add one")
        for key, words in known_columns[column]:
            value = ours.value(key)
            equal = same(words.get(theirs, theirs), value)
            number = next((d.number for d in deviations() if d.covers(claim, column)), 0)
            result.append(Cell(column, key, theirs, value, equal, number))
    return tuple(result)


def same(theirs: str, ours: Any) -> bool:
    """True if the text equals our value; numbers are compared to a relative 1e-6, a tuple is separated by spaces."""
    if isinstance(ours, bool) or not isinstance(ours, int | float | tuple):
        return theirs == str(ours)
    numbers = ours if isinstance(ours, tuple) else (ours,)
    try:
        values = [float(word) for word in theirs.split()]
    except ValueError:
        return False
    return len(values) == len(numbers) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12) for a, b in zip(values, numbers, strict=True)
    )


def display(value: Any) -> str:
    """Our value as text of a table."""
    if isinstance(value, tuple):
        return " ".join(map(display, value))
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)


# -- differences ------------------------------------------------------------------------------------------------------


def differences(claim: Claim) -> list[Cell]:
    """Columns of a claimed row that differ without a declared deviation. Raises `UsageError` as `cells` does."""
    return [cell for cell in cells(claim) if not cell.equal and not cell.number]


def stale() -> list[Deviation]:
    """Declared differences that cover no claimed row, or a row that does not differ."""

    def differs(declared: Deviation) -> bool:
        rows = [c for c in claims() if c.method and declared.covers(c, declared.column)]
        return bool(rows) and all(any(x.column == declared.column and not x.equal for x in cells(c)) for c in rows)

    return [declared for declared in deviations() if not differs(declared)]


def summary() -> str:
    """All undeclared differences, then counts."""
    lines, equal, declared, wrong = [], 0, Counter[str](), 0
    claimed = [claim for claim in claims() if claim.method]
    for claim in claimed:
        try:
            undeclared = [str(cell) for cell in differences(claim)]
            numbers = {f"{claim.method} {x.number}" for x in cells(claim) if not x.equal and x.number}
        except UsageError as error:
            undeclared, numbers = [str(error)], set()
        declared.update(numbers)
        equal += not (undeclared or numbers)
        wrong += bool(undeclared)
        where = f"{claim.method}:{claim.preset} on {claim.task}, {claim.theirs['repository']} {claim.script}"
        lines += [f"{where}", *(f"    {line}" for line in undeclared)] if undeclared else []
    reasons = Counter(claim.reason for claim in claims() if claim.reason)
    total = len(claims())
    lines.append(f"{total} rows of scripts: {len(claimed)} claimed, {total - len(claimed)} not")
    lines.append(f"claimed: {equal} equal, {len(claimed) - equal - wrong} as declared, {wrong} that differ undeclared")
    lines += [f"declared, deviation {name}: {n} rows" for name, n in sorted(declared.items())]
    lines += [f"not claimed, {reason}: {n}" for reason, n in reasons.most_common()]
    return "\n".join([*lines, *(f"declared and equal: {d}" for d in stale())])


# -- documents --------------------------------------------------------------------------------------------------------


def recipes_table(method: str) -> str:
    """The claimed rows of `method` as Markdown: one table per repository, after the values common to its rows.

    A cell with one value means equal; `1024 / 768` is their value and ours, with the number of the declared deviation.
    Raises `UsageError` for a method without a claimed script.
    """
    claims_of_method = [claim for claim in claims() if claim.theirs["method"] == method]
    rows = [claim for claim in claims_of_method if claim.method]
    if not rows:
        raise UsageError(f"no script of {method!r} is claimed")
    lines: list[str] = []
    for repository in dict.fromkeys(claim.theirs["repository"] for claim in rows):
        lines += [*_of_repository([c for c in rows if c.theirs["repository"] == repository]), ""]
    skipped = [c for c in rows[0].theirs if columns(method).get(c) == () and any(claim.theirs[c] for claim in rows)]
    notes = [f"Not compared, since no setting corresponds: {', '.join(skipped)}."] if skipped else []
    left = Counter(claim.reason for claim in claims_of_method if claim.reason)
    notes += [f"Not claimed: {', '.join(f'{n} ({reason})' for reason, n in left.most_common())}."] if left else []
    return "\n".join([*lines, markdown.plain(" ".join(notes))]).strip() + "\n"


def _of_repository(rows: Sequence[Claim]) -> Iterator[str]:
    shown: list[dict[str, str]] = [{} for _ in rows]
    for claim, line in zip(rows, shown, strict=True):
        for cell in cells(claim):
            if cell.column not in line or not cell.equal:  # a column may correspond to several of our values
                line[cell.column] = _shown(cell)
    names = [c for c in rows[0].theirs if any(c in line for line in shown)]
    varying = [c for c in names if len({line.get(c) for line in shown}) > 1]
    common = "; ".join(f"{c} {shown[0][c]}" for c in names if c not in varying)
    first = rows[0].theirs
    yield markdown.plain(f"{first['repository']} at {first['commit'][:7]}. In every row: {common}.")
    yield ""
    text = ("task", "preset", "script")
    body = (
        [claim.task, claim.preset, claim.script, *(line.get(c, "") for c in varying)]
        for claim, line in zip(rows, shown, strict=True)
    )
    yield from markdown.table([*text, *varying], body, left=text)


def _shown(cell: Cell) -> str:
    theirs = _short(cell.theirs)
    return theirs if cell.equal else f"{theirs} / {display(cell.ours)}" + f" ({cell.number})" * bool(cell.number)


def _short(theirs: str) -> str:
    try:
        return display(float(theirs))
    except ValueError:
        return theirs


# -- learning rates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """The student's learning rate at the first and last step, and the number of steps at its minimum."""

    steps: int
    first: float
    last: float
    at_floor: int


def rates(run: ResolvedRun) -> Rates:
    """The learning rates of a run."""
    total = run.schedule.total_steps

    def rate(step: int) -> float:
        return run.recipe.rate(step, total, run.schedule.student_steps)

    at_floor = 0
    while at_floor < total and rate(total - 1 - at_floor) <= run.recipe.floor * (1 + 1e-9):  # schedules only fall
        at_floor += 1
    return Rates(total, rate(0), rate(total - 1), at_floor)


def rates_table(methods: Sequence[str]) -> Iterator[str]:
    """One line per method and budget, on the default task."""
    for method in methods:
        for budget in protocol.BUDGETS:
            r = rates(resolve_run(method, None, protocol.DEFAULT_TASK, budget))
            yield (
                f"{method}, {protocol.DEFAULT_TASK}, recipe {budget}: {r.steps} student steps, rate {r.first:g} to "
                f"{r.last:g}, {r.at_floor} at the floor"
            )


def main(words: Sequence[str]) -> None:
    """Print the differences and counts, or the learning rates of the named methods."""
    print("\n".join(rates_table(words)) if words else summary())


if __name__ == "__main__":
    main(sys.argv[1:])
