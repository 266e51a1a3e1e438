"""The rules by name, and what was found of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dfkd_bench.errors import BenchError

# rule -> what is expected, in the order in which rules are checked
CLASS_RULES = {
    "import": "the class can be imported and is a subclass of Method",
    "config": "Config is a frozen dataclass; every field is made with setting(default, one line of help)",
    "presets": "presets, task_settings and search name existing settings, with values of their types",
    "pinned": "pinned maps settings of Config to what the pinned track fixes",
    "card": "docstring, paper, presets, privileges and settings are written literally: listing imports nothing",
    "flags": "flags and recipe hold valid values, and stay the same during a run",
}
RUN_RULES = {
    "setup": "the method is built from its settings, and setup succeeds",
    "privileges": "nothing of the teacher is used that Privileges does not declare",
    "real-data": "no dataset is loaded and no file of one is opened",
    "loop": "the shared loop runs three rounds, each verb as often as the flags say",
    "synthesize": "synthesize returns a mapping of scalar, finite, detached tensors",
    "sample": "sample(n) returns a Batch of exactly n finite floating-point images on the run's device",
    "labels": "labels are int64, one for each image, and in range; weights and latents have n rows",
    "no-grad": "what sample returns carries no gradient",
    "batch-reuse": "a Batch returned once more still holds the same images and labels",
    "teacher-unchanged": "no verb changes the teacher's weights, buffers or mode, or leaves gradients or hooks on it",
    "student-unchanged": "no verb changes the student's weights or leaves hooks on it",
    "student-statistics": "the student's buffers move in synthesize alone, and only with student_mode train",
    "randomness": "no verb after setup draws from a global random stream; use context.stream",
    "distill-loss": "distill_loss returns a finite scalar with a gradient to the student",
    "registered": "objects are registered in setup alone and never replaced",
    "finite": "losses and student are finite after three rounds",
}
LATER_RULES = {
    "preview": "preview(n, stream) changes nothing, follows its stream, and shows no image of the training batches",
    "repeatable": "two fresh instances with one seed make the same images, bit for bit",
    "seed": "another seed makes other images",
    "resume": "a run resumed from its checkpoint ends in the same bits as one never interrupted",
}
RULES = {**CLASS_RULES, **RUN_RULES, **LATER_RULES}


@dataclass(frozen=True)
class RuleResult:
    """One rule: its name, whether it holds, what was expected and what was seen (one line each)."""

    name: str
    passed: bool
    expected: str
    seen: str


def one_line(error: BaseException) -> str:
    """An exception as one line: our own by their text, others with their type."""
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return text.strip().splitlines()[0]


class Report:
    """Collects the first failure of every rule, and which rules were looked at."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}
        self._reached: set[str] = set()
        self.stopped = ""  # why later rules were not reached

    def fail(self, rule: str, seen: str) -> None:
        """`rule` does not hold; the first observation is kept."""
        self._seen.setdefault(rule, seen)

    def expect(self, rule: str, holds: bool, seen: str) -> bool:
        """Note `seen` as a failure of `rule` unless it `holds`; returns `holds`."""
        if not holds:
            self.fail(rule, seen)
        return holds

    def reached(self, rules: dict[str, str]) -> None:
        """Every one of `rules` has been looked at."""
        self._reached |= set(rules)

    @contextmanager
    def rule(self, name: str) -> Iterator[None]:
        """Check one rule; whatever is raised within is its failure, in one line."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self.fail(name, one_line(error))
        self._reached.add(name)

    def failures(self) -> Iterator[tuple[str, str]]:
        """Each rule that does not hold with what was seen, in the order in which they were found."""
        yield from self._seen.items()

    @property
    def first(self) -> str:
        """The first failure of any rule, empty where there is none."""
        return next(iter(self._seen.values()), "")

    def results(self) -> list[RuleResult]:
        """All rules in order; those that were not reached count as failed."""
        missing = f"not reached: {self.stopped}"
        return [
            RuleResult(name, name in self._reached and name not in self._seen, expected,
                       self._seen.get(name, "as expected" if name in self._reached else missing))
            for name, expected in RULES.items()
        ]  # fmt: skip
