"""Our recipes beside the scripts that they come from, column by column.

`reference/recipes.csv` holds what the authors' scripts set, `recipe_claims.csv` which method, preset and task of ours
claims to do what a row says, `recipe_columns.csv` which setting of ours a column is, `recipe_deviations.csv` what
differs on purpose. `reference/README.md` describes all four.

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
KEY = ("repository", "file", "command", "dataset")  # names a row: some commands are documented for two datasets
ABOUT = (*KEY, "method", "commit", "teacher", "student", "note")  # what a row is; all other columns are settings
REASONS = (
    "baseline of another paper",
    "the teacher in the student's place",
    "starts from images that are not public",
    "visualisation only",
    "another command is the claim",
)
EVERY = "*"  # of recipe_columns.csv: methods that do not say otherwise
TOLERANCE = 1e-6  # relative

Row = Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Claim:
    """One row of the scripts, and what of ours does the same; without a method, why nothing does."""

    theirs: Row
    method: str
    preset: str
    task: str
    reason: str

    @property
    def script(self) -> str:
        """The command in a few words."""
        return f"{self.theirs['file'].split('; ')[0].rpartition('/')[2]} {self.theirs['command']}"


@dataclass(frozen=True)
class Resolved:
    """What a run comes to; `recipe_columns.csv` names its parts, such as `settings.gen_lr`.

    run: epochs with warm-up, and epochs of warm-up. rate: the student's, at the start of the first, the middle and the
    last epoch in which it is trained.
    """

    settings: SimpleNamespace
    recipe: StudentRecipe
    flags: Flags
    schedule: Schedule
    dataset: Dataset
    run: SimpleNamespace
    rate: SimpleNamespace

    def value(self, key: str) -> Any:
        """The part `key`, or a product of parts (`a.b * c.d`); None where there is none of that name."""
        try:
            parts = [attrgetter(part)(self) for part in key.split(" * ")]
        except AttributeError:
            return None
        return parts[0] if len(parts) == 1 else math.prod(parts)


@dataclass(frozen=True)
class Cell:
    """One column of a claimed row beside a part of ours. `number` is that of the declared deviation, 0 for none."""

    column: str
    key: str
    theirs: str
    ours: Any
    equal: bool
    number: int = 0

    def __str__(self) -> str:
        return f"{self.column}: {self.theirs} there, {said(self.ours)} here ({self.key})"


@dataclass(frozen=True)
class Deviation:
    """What differs on purpose: a column of the rows that the globs choose (several with `|` between)."""

    method: str
    preset: str
    task: str
    column: str
    number: int  # of the deviation in the method's document

    def covers(self, claim: Claim, column: str) -> bool:
        """Whether this declares the column of that row."""
        named = (claim.method, column) == (self.method, self.column)
        return named and matches(claim.preset, self.preset) and matches(claim.task, self.task)


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@cache
def claims() -> tuple[Claim, ...]:
    """Every row of the scripts with its claim, in the order of the scripts.

    Raises `UsageError` where a row stands in neither list or in both, or a line in ours is of no row.
    """
    ours = {tuple(line[k] for k in KEY): line for line in read(CLAIMS)}
    found = []
    for row in read(SCRIPTS):
        key = tuple(row[k] for k in KEY)
        line = ours.pop(key, None)
        if line is None:
            raise UsageError(f"{CLAIMS.name} does not say what of ours is {' '.join(key)}")
        if bool(line["method"]) == bool(line["reason"]):
            raise UsageError(f"{CLAIMS.name}: {' '.join(key)} needs a method, or a reason why there is none")
        if line["reason"] not in ("", *REASONS):
            raise UsageError(f"{CLAIMS.name}: {line['reason']!r} is none of the reasons: {', '.join(REASONS)}")
        found.append(Claim(row, line["method"], line["preset"], line["task"], line["reason"]))
    if ours:
        raise UsageError(f"{CLAIMS.name}: {SCRIPTS.name} has no row {' '.join(next(iter(ours)))}")
    return tuple(found)


@cache
def deviations() -> tuple[Deviation, ...]:
    """Every declared difference."""
    return tuple(
        Deviation(d["method"], d["preset"], d["task"], d["column"], int(d["number"])) for d in read(DEVIATIONS)
    )


@cache
def columns(method: str) -> Mapping[str, tuple[tuple[str, Mapping[str, str]], ...]]:
    """Column -> parts of ours that it is, each with the words that stand for our values; none: for readers alone."""
    lines = read(COLUMNS)
    own = [line for line in lines if line["method"] == method]
    known = {line["column"] for line in own}
    found: dict[str, tuple[tuple[str, Mapping[str, str]], ...]] = {}
    for line in [*own, *(line for line in lines if line["method"] == EVERY and line["column"] not in known)]:
        words = dict(word.rpartition("=")[::2] for word in line["words"].split(" | ") if word)
        found[line["column"]] = (*found.get(line["column"], ()), *([(line["ours"], words)] if line["ours"] else []))
    return found


def resolved(method: str, preset: str | None, task: str, budget: str = "full") -> Resolved:
    """A run of the recipe track. Raises `UsageError` for a method, preset or task that there is not."""
    entry, chosen = entry_of(method), protocol.task(task)
    about = card(entry)
    preset = preset_of(about, preset, method)
    spec = make_spec(method, about, chosen, preset=preset, track="recipe", budget=budget)
    settings = spec.settings
    kind = load(entry)
    built = kind(kind.Config(**dict(settings)))
    flags, published = built.flags, built.recipe
    recipe, plan = plan_run(spec, chosen, flags, published)
    warmup = plan.warmup_rounds / plan.rounds_per_epoch
    steps = plan.rounds_per_epoch * plan.student_steps

    def rate(epoch: int) -> float:
        return recipe.rate(epoch * steps, plan.total_steps, plan.student_steps)

    return Resolved(
        SimpleNamespace(**dict(settings)), recipe, flags, plan, chosen.dataset,
        SimpleNamespace(epochs=plan.rounds / plan.rounds_per_epoch + warmup, warmup_epochs=warmup),
        SimpleNamespace(first=rate(0), middle=rate(plan.epochs // 2), last=rate(plan.epochs - 1)),
    )  # fmt: skip


@cache
def cells(claim: Claim) -> tuple[Cell, ...]:
    """Every compared column of a claimed row that the script sets. Raises `UsageError` where ours is not there."""
    ours = resolved(claim.method, claim.preset, claim.task)
    known, found = columns(claim.method), []
    for column, theirs in claim.theirs.items():
        if column in ABOUT or not theirs:
            continue
        if column not in known:
            raise UsageError(f"{COLUMNS.name} does not say what of {claim.method} is {column}")
        for key, words in known[column]:
            value = ours.value(key)
            equal = same(words.get(theirs, theirs), value)
            number = next((d.number for d in deviations() if d.covers(claim, column)), 0)
            found.append(Cell(column, key, theirs, value, equal, number))
    return tuple(found)


def same(theirs: str, ours: Any) -> bool:
    """Whether a value as text is ours: numbers to 1e-6, several of them with spaces between."""
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


def said(value: Any) -> str:
    """A value of ours as a table shows it."""
    if isinstance(value, tuple):
        return " ".join(map(said, value))
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)


# -- what differs -----------------------------------------------------------------------------------------------------


def differences(claim: Claim) -> list[Cell]:
    """Columns of a claimed row that differ and that no deviation covers. Raises `UsageError` as `cells` does."""
    return [cell for cell in cells(claim) if not cell.equal and not cell.number]


def stale() -> list[Deviation]:
    """Declared differences that cover no claimed row, or one that does not differ."""

    def differs(declared: Deviation) -> bool:
        rows = [c for c in claims() if c.method and declared.covers(c, declared.column)]
        return bool(rows) and all(any(x.column == declared.column and not x.equal for x in cells(c)) for c in rows)

    return [declared for declared in deviations() if not differs(declared)]


def summary() -> str:
    """Every difference that is not declared, then counts."""
    lines, equal, declared, wrong = [], 0, Counter[str](), 0
    claimed = [claim for claim in claims() if claim.method]
    for claim in claimed:
        try:
            found = [str(cell) for cell in differences(claim)]
            numbers = {f"{claim.method} {x.number}" for x in cells(claim) if not x.equal and x.number}
        except UsageError as error:
            found, numbers = [str(error)], set()
        declared.update(numbers)
        equal += not (found or numbers)
        wrong += bool(found)
        where = f"{claim.method}:{claim.preset} on {claim.task}, {claim.theirs['repository']} {claim.script}"
        lines += [f"{where}", *(f"    {line}" for line in found)] if found else []
    reasons = Counter(claim.reason for claim in claims() if claim.reason)
    total = len(claims())
    lines.append(f"{total} rows of scripts: {len(claimed)} claimed, {total - len(claimed)} not")
    lines.append(f"claimed: {equal} equal, {len(claimed) - equal - wrong} as declared, {wrong} that differ undeclared")
    lines += [f"declared, deviation {name}: {n} rows" for name, n in sorted(declared.items())]
    lines += [f"not claimed, {reason}: {n}" for reason, n in reasons.most_common()]
    return "\n".join([*lines, *(f"declared and equal: {d}" for d in stale())])


# -- documents --------------------------------------------------------------------------------------------------------


def recipes_table(method: str) -> str:
    """The claimed rows of `method` as Markdown, one table per repository; above it what all its rows have in common.

    A cell with one value is equal; `1024 / 768` is theirs and ours, with the number of the deviation that declares it.
    Raises `UsageError` for a method of which there is no script.
    """
    mine = [claim for claim in claims() if claim.theirs["method"] == method]
    rows = [claim for claim in mine if claim.method]
    if not rows:
        raise UsageError(f"no script of {method!r} is claimed")
    lines: list[str] = []
    for repository in dict.fromkeys(claim.theirs["repository"] for claim in rows):
        lines += [*_of_repository([c for c in rows if c.theirs["repository"] == repository]), ""]
    unread = [c for c in rows[0].theirs if columns(method).get(c) == () and any(claim.theirs[c] for claim in rows)]
    says = [f"Not compared, since no setting says it: {', '.join(unread)}."] if unread else []
    left = Counter(claim.reason for claim in mine if claim.reason)
    says += [f"Not claimed: {', '.join(f'{n} ({reason})' for reason, n in left.most_common())}."] if left else []
    return "\n".join([*lines, markdown.plain(" ".join(says))]).strip() + "\n"


def _of_repository(rows: Sequence[Claim]) -> Iterator[str]:
    shown: list[dict[str, str]] = [{} for _ in rows]
    for claim, line in zip(rows, shown, strict=True):
        for cell in cells(claim):
            if cell.column not in line or not cell.equal:  # a column may be several parts of ours
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
    return theirs if cell.equal else f"{theirs} / {said(cell.ours)}" + f" ({cell.number})" * bool(cell.number)


def _short(theirs: str) -> str:
    try:
        return said(float(theirs))
    except ValueError:
        return theirs


# -- rates ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """The student's learning rate over a run: at its first and last step, and at how many steps it is the lowest."""

    steps: int
    first: float
    last: float
    at_floor: int


def rates(run: Resolved) -> Rates:
    """Learning rates of a run."""
    total = run.schedule.total_steps

    def rate(step: int) -> float:
        return run.recipe.rate(step, total, run.schedule.student_steps)

    at_floor = 0
    while at_floor < total and rate(total - 1 - at_floor) <= run.recipe.floor * (1 + 1e-9):  # schedules only fall
        at_floor += 1
    return Rates(total, rate(0), rate(total - 1), at_floor)


def rates_table(methods: Sequence[str]) -> Iterator[str]:
    """Rates of every budget on the default task, line by line."""
    for method in methods:
        for budget in protocol.BUDGETS:
            r = rates(resolved(method, None, protocol.DEFAULT_TASK, budget))
            yield (
                f"{method}, {protocol.DEFAULT_TASK}, recipe {budget}: {r.steps} student steps, rate {r.first:g} to "
                f"{r.last:g}, {r.at_floor} at the floor"
            )


def main(words: Sequence[str]) -> None:
    """Print the differences and counts, or the rates of the methods named."""
    print("\n".join(rates_table(words)) if words else summary())


if __name__ == "__main__":
    main(sys.argv[1:])
