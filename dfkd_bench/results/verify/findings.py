"""What a verification found: one line each, naming the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Severity = Literal["problem", "note"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be (problem), or that could not be looked at here (note)."""

    severity: Severity
    file: str  # relative to the results folder
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def problem(file: str, what: str) -> Finding:
    """A finding that makes `verify` fail."""
    return Finding("problem", file, what)


def note(file: str, what: str) -> Finding:
    """A finding that does not."""
    return Finding("note", file, what)


@dataclass(frozen=True)
class Report:
    """The outcome of a verification."""

    findings: tuple[Finding, ...] = ()
    records: int = 0
    students: int = 0  # evaluated again
    exact: int = 0  # of these, how many gave the stored predictions bit for bit
    renderings: tuple[str, ...] = field(default=())  # files compared with what the records give

    @property
    def problems(self) -> list[Finding]:
        """What makes it fail."""
        return [f for f in self.findings if f.severity == "problem"]

    @property
    def notes(self) -> list[Finding]:
        """What could not be looked at."""
        return [f for f in self.findings if f.severity == "note"]

    def below(self, place: str) -> Report:
        """The same report with every file named from the outside of `place`."""
        return replace(self, findings=tuple(replace(f, file=f"{place}:{f.file}") for f in self.findings))


def differences(recorded: Any, computed: Any, relative: float, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two trees of dicts, lists and numbers differ: (dotted name, recorded, computed).

    Numbers may differ by `relative` of the larger one; null is the same as a number that is not finite.
    """
    if isinstance(recorded, dict) and isinstance(computed, dict):
        for key in dict.fromkeys([*recorded, *computed]):
            name = f"{at}.{key}" if at else str(key)
            if key not in recorded or key not in computed:
                yield name, recorded.get(key, "nothing"), computed.get(key, "nothing")
            else:
                yield from differences(recorded[key], computed[key], relative, name)
    elif isinstance(recorded, list | tuple) and isinstance(computed, list | tuple) and len(recorded) == len(computed):
        for k, (a, b) in enumerate(zip(recorded, computed, strict=True)):
            yield from differences(a, b, relative, f"{at}[{k}]")
    elif not same(recorded, computed, relative):
        yield at, recorded, computed


def same(a: Any, b: Any, relative: float, absolute: float = 0.0) -> bool:
    """Whether two leaves of a record agree."""
    a, b = (None if isinstance(x, float) and not math.isfinite(x) else x for x in (a, b))
    if is_number(a) and is_number(b):
        return math.isclose(a, b, rel_tol=relative, abs_tol=absolute)
    return type(a) is type(b) and bool(a == b)


def is_number(x: Any) -> bool:
    """Whether `x` is an int or a float, and no truth value."""
    return isinstance(x, int | float) and not isinstance(x, bool)


def as_text(value: Any) -> str:
    """A value as a message shows it: numbers in full, digests and long texts cut."""
    text = value if isinstance(value, str) else "null" if value is None else repr(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


def mismatch(name: str, recorded: Any, says: str, computed: Any) -> str:
    """The text of a finding about one number."""
    return f"{name} is {as_text(recorded)}, {says} {as_text(computed)}"
