"""The rules by name, and the results of a check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dfkd_bench.errors import BenchError

# rule -> meaning, in the order of the checks
CLASS_RULES = {
    "import": "the class can be imported and is a subclass of Method",
    "frozen-config": "Config is a frozen dataclass: a run cannot change its own settings",
    "settings": "every field of Config is made with setting(default, one line of help), with a plain default",
    "presets": "presets, task_settings and search name existing settings, with values of their types",
    "pinned": "pinned maps settings of Config to what the pinned track fixes",
    "card": "docstring, paper, presets, privileges and settings are written literally: listing imports nothing",
    "flags": "flags and recipe hold valid values, and stay the same during a run",
}
RUN_RULES = {
    "setup": "the method is built from its settings, and setup succeeds",
    "privileges": "the method uses nothing of the teacher that its Privileges do not declare",
    "real-data": "no real data is reached: no dataset is loaded and no file of one is opened",
    "loop": "three rounds of the shared loop end without an error",
    "verb-order": "only the loop calls the six verbs, in the order and as often as the flags say",
    "synthesize": "synthesize returns a mapping of scalar, detached tensors",
    "sample": "sample(n) returns a Batch",
    "shapes": "a batch has exactly n images of the task's shape, and n labels, weights and latents if it has them",
    "dtype": "images are float32, labels int64",
    "device": "the tensors of a batch are on the run's device",
    "labels": "labels are classes of the task",
    "no-grad": "the tensors that sample returns do not require gradients",
    "batch-reuse": "a Batch object that is returned again still holds the same images and labels",
    "teacher-gradients": "no verb leaves a gradient on the teacher's weights or sets their requires_grad",
    "teacher-unchanged": "no verb changes the teacher's weights, buffers or mode, or leaves a hook on it",
    "student-unchanged": "no verb changes the student's weights or leaves a hook on it",
    "student-statistics": "the student's buffers change only in synthesize, and only with student_mode train",
    "global-rng": "no verb after setup draws from a global random stream; use context.stream",
    "distill-loss": "distill_loss returns a scalar with a gradient to the student",
    "registered": "objects are registered only in setup, and never replaced",
    "finite": "images, losses and the student stay finite",
}
PREVIEW_RULES = {
    "preview": "preview(n, stream) changes nothing, depends on its stream alone, and returns no training images"
}
LATER_RULES = {
    "same-seed": "two new instances with one seed make the same images, bit for bit",
    "other-seed": "another seed makes other images",
    "state-round-trip": "the registered state, loaded into a new instance, equals the saved state",
    "resume": "a run resumed from its checkpoint ends with the same bits as one that was not interrupted",
}
RULES = {**CLASS_RULES, **RUN_RULES, **PREVIEW_RULES, **LATER_RULES}


class Broken(Exception):  # noqa: N818  (a verdict, not an error)
    """Ends a run that cannot continue because of a broken rule, which is in the report already."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        super().__init__(f"the run stopped at rule {rule}")


@dataclass(frozen=True)
class RuleResult:
    """One rule: its name and meaning, True if it passed, and what was expected and seen, in one line each.

    `reached` is False if an earlier failure prevented the check; such a rule has not passed.
    """

    name: str
    meaning: str
    passed: bool
    expected: str
    seen: str
    reached: bool = True


def one_line(error: BaseException) -> str:
    """An exception as one line: errors of this package by their text, others with their type."""
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return text.strip().splitlines()[0]


class Report:
    """Collects the first failure of every rule, and the rules that were checked."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}  # rule -> (expected, seen)
        self._reached: set[str] = set()
        self.stopped = ""  # why later rules were not reached

    def fail(self, rule: str, seen: str, expected: str = "") -> None:
        """Store a failure of `rule`; only the first is kept. `expected`: by default the rule's meaning."""
        self._seen.setdefault(rule, (expected or RULES[rule], seen))

    def expect(self, rule: str, holds: bool, seen: str, expected: str = "") -> bool:
        """Store `seen` as a failure of `rule` unless it `holds`; returns `holds`."""
        if not holds:
            self.fail(rule, seen, expected)
        return holds

    def require(self, rule: str, holds: bool, seen: str, expected: str = "") -> None:
        """As `expect`, but raises `Broken` on failure, to end the run."""
        if not self.expect(rule, holds, seen, expected):
            raise Broken(rule)

    def reached(self, rules: Iterable[str]) -> None:
        """Mark `rules` as checked."""
        self._reached |= set(rules)

    @contextmanager
    def rule(self, name: str) -> Iterator[None]:
        """Check one rule: an exception inside is its failure, in one line.

        If the failure of another rule ends the block, this rule counts as not reached.
        """
        try:
            yield
        except Broken as broken:
            self.stopped = self.stopped or str(broken)
            if broken.rule != name:
                return
        except (Exception, SystemExit) as error:
            self.fail(name, one_line(error))
        self._reached.add(name)

    def failures(self) -> Iterator[tuple[str, str, str]]:
        """(rule, expected, seen) of each broken rule, in the order of the checks."""
        yield from ((rule, *expected_seen) for rule, expected_seen in self._seen.items())

    @property
    def first(self) -> tuple[str, str]:
        """(expected, seen) of the first failure of any rule; empty strings if there is none."""
        return next(iter(self._seen.values()), ("", ""))

    def results(self) -> list[RuleResult]:
        """All rules in order; a rule that was not reached has not passed."""
        return [self._result(name) for name in RULES]

    def _result(self, name: str) -> RuleResult:
        meaning, reached = RULES[name], name in self._reached
        if name in self._seen:
            return RuleResult(name, meaning, False, *self._seen[name])
        return RuleResult(
            name, meaning, reached, meaning, "as expected" if reached else f"not reached: {self.stopped}", reached
        )
