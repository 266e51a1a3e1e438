"""Findings of a verification: one line each, with the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Severity = Literal["problem", "note"]


@dataclass(frozen=True)
class Finding:
    """Something wrong (problem), or something that could not be checked on this machine (note)."""

    severity: Severity
    file: str  # relative to the results folder
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def problem(file: str, what: str) -> Finding:
    """A finding that makes `verify` fail."""
    return Finding("problem", file, what)


def note(file: str, what: str) -> Finding:
    """A finding that does not make `verify` fail."""
    return Finding("note", file, what)


@dataclass(frozen=True)
class Report:
    """The result of a verification."""

    findings: tuple[Finding, ...] = ()
    records: int = 0
    students: int = 0  # evaluated again
    exact: int = 0  # of these, students whose predictions equal the stored ones bit for bit
    renderings: tuple[str, ...] = field(default=())  # files compared with newly made ones

    @property
    def problems(self) -> list[Finding]:
        """Findings that make `verify` fail."""
        return [f for f in self.findings if f.severity == "problem"]

    @property
    def notes(self) -> list[Finding]:
        """Things that could not be checked."""
        return [f for f in self.findings if f.severity == "note"]

    def below(self, place: str) -> Report:
        """The same report with `place:` before every file name."""
        return replace(self, findings=tuple(replace(f, file=f"{place}:{f.file}") for f in self.findings))


def differences(recorded: Any, computed: Any, relative: float, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Differences of two trees of dicts, lists and numbers: (dotted name, recorded, computed).

    Numbers may differ by `relative` of the larger one; null equals a number that is not finite.
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
    """True if two values of a record are equal within the tolerances."""
    a, b = (None if isinstance(x, float) and not math.isfinite(x) else x for x in (a, b))
    if is_number(a) and is_number(b):
        return math.isclose(a, b, rel_tol=relative, abs_tol=absolute)
    return type(a) is type(b) and bool(a == b)


def is_number(x: Any) -> bool:
    """True for an int or a float, but not for a bool."""
    return isinstance(x, int | float) and not isinstance(x, bool)


def as_text(value: Any) -> str:
    """A value for a message; long texts are cut."""
    text = value if isinstance(value, str) else "null" if value is None else repr(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


def mismatch(name: str, recorded: Any, source: str, computed: Any) -> str:
    """The message for a recorded value that differs from the computed one; `source`: what gives the computed one."""
    return f"{name} is {as_text(recorded)}, {source} {as_text(computed)}"
