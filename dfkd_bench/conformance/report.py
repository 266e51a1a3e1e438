"""The rules by name, and what was found of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dfkd_bench.errors import BenchError

# rule -> what it means, in the order in which rules are checked
CLASS_RULES = {
    "import": "the class can be imported and is a subclass of Method",
    "frozen-config": "Config is a frozen dataclass: a run cannot change its own settings",
    "settings": "every field of Config is made with setting(default, one line of help), plain values alone",
    "presets": "presets, task_settings and search name existing settings, with values of their types",
    "pinned": "pinned maps settings of Config to what the pinned track fixes",
    "card": "docstring, paper, presets, privileges and settings are written literally: listing imports nothing",
    "flags": "flags and recipe hold valid values, and stay the same during a run",
}
RUN_RULES = {
    "setup": "the method is built from its settings, and setup succeeds",
    "privileges": "nothing of the teacher is used that Privileges does not declare",
    "real-data": "no real data is reached: no dataset is loaded and no file of one is opened",
    "loop": "three rounds of the shared loop end without an error",
    "verb-order": "the loop alone calls the six verbs, in the order and as often as the flags say",
    "synthesize": "synthesize returns a mapping of scalar, detached tensors",
    "sample": "sample(n) returns a Batch",
    "shapes": "a batch has exactly n images of the task's shape, and n of whatever else it carries",
    "dtype": "images are float32, labels int64",
    "device": "what a batch carries lies on the run's device",
    "labels": "labels are classes of the task",
    "no-grad": "what sample returns carries no gradient",
    "batch-reuse": "a Batch returned once more still holds the same images and labels",
    "teacher-gradients": "no verb leaves a gradient on the teacher's weights, or makes them ask for one",
    "teacher-unchanged": "no verb changes the teacher's weights, buffers or mode, or leaves a hook on it",
    "student-unchanged": "no verb changes the student's weights or leaves a hook on it",
    "student-statistics": "the student's buffers move in synthesize alone, and only with student_mode train",
    "global-rng": "no verb after setup draws from a global random stream; use context.stream",
    "distill-loss": "distill_loss returns a scalar with a gradient to the student",
    "registered": "objects are registered in setup alone and never replaced",
    "finite": "images, losses and the student stay finite",
}
PREVIEW_RULES = {
    "preview": "preview(n, stream) changes nothing, follows its stream, and shows no image of the training batches"
}
LATER_RULES = {
    "same-seed": "two fresh instances with one seed make the same images, bit for bit",
    "other-seed": "another seed makes other images",
    "state-round-trip": "whatever is registered, loaded into a fresh instance, is what was saved",
    "resume": "a run resumed from its checkpoint ends in the same bits as one never interrupted",
}
RULES = {**CLASS_RULES, **RUN_RULES, **PREVIEW_RULES, **LATER_RULES}


class Broken(Exception):  # noqa: N818  (a verdict, not an error)
    """Ends a run that cannot go on, because of a rule whose failure is noted already."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        super().__init__(f"the run stopped at rule {rule}")


@dataclass(frozen=True)
class RuleResult:
    """One rule: its name, what it means, whether it holds, and what was expected and seen, in one line each.

    `reached` is False where an earlier failure left nothing to look at; such a rule has not passed.
    """

    name: str
    meaning: str
    passed: bool
    expected: str
    seen: str
    reached: bool = True


def one_line(error: BaseException) -> str:
    """An exception as one line: our own by their text, others with their type."""
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return text.strip().splitlines()[0]


class Report:
    """Collects the first failure of every rule, and which rules were looked at."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}  # rule -> what was expected and what was seen
        self._reached: set[str] = set()
        self.stopped = ""  # why later rules were not reached

    def fail(self, rule: str, seen: str, expected: str = "") -> None:
        """`rule` does not hold; the first observation is kept. `expected`: the rule's meaning unless said closer."""
        self._seen.setdefault(rule, (expected or RULES[rule], seen))

    def expect(self, rule: str, holds: bool, seen: str, expected: str = "") -> bool:
        """Note `seen` as a failure of `rule` unless it `holds`; returns `holds`."""
        if not holds:
            self.fail(rule, seen, expected)
        return holds

    def require(self, rule: str, holds: bool, seen: str, expected: str = "") -> None:
        """As `expect`, where nothing can follow a failure. Raises `Broken`."""
        if not self.expect(rule, holds, seen, expected):
            raise Broken(rule)

    def reached(self, rules: Iterable[str]) -> None:
        """Every one of `rules` has been looked at."""
        self._reached |= set(rules)

    @contextmanager
    def rule(self, name: str) -> Iterator[None]:
        """Check one rule; whatever is raised within is its failure, in one line.

        Where another rule's failure ends the block, this one has not been reached.
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
        """Each rule that does not hold, what was expected and what was seen, in the order in which they were found."""
        yield from ((rule, *said) for rule, said in self._seen.items())

    @property
    def first(self) -> tuple[str, str]:
        """What was expected and seen at the first failure of any rule; empty where there is none."""
        return next(iter(self._seen.values()), ("", ""))

    def results(self) -> list[RuleResult]:
        """All rules in order; those that were not reached count as failed."""
        return [self._result(name) for name in RULES]

    def _result(self, name: str) -> RuleResult:
        meaning, reached = RULES[name], name in self._reached
        if name in self._seen:
            return RuleResult(name, meaning, False, *self._seen[name])
        return RuleResult(
            name, meaning, reached, meaning, "as expected" if reached else f"not reached: {self.stopped}", reached
        )
