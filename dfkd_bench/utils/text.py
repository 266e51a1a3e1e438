"""Format names, numbers and errors as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def counted(n: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{n} {what}{'s' * (n != 1)}"


def assignments(values: Mapping[str, Any]) -> str:
    """`alpha=1, beta=x`, as after `--set`."""
    return ", ".join(f"{key}={value}" for key, value in values.items())


def one_line(text: str) -> str:
    """`text` as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def error_line(error: BaseException) -> str:
    """Type and first line of an error, such as `KeyError: 'x'`."""
    return one_line(f"{type(error).__name__}: {error}".splitlines()[0])


def method_label(spec: Mapping[str, Any]) -> str:
    """A run's method with its add-ons: `alpha with a+b`; `spec` is a specification as JSON, or part of one."""
    addons = "+".join(addon["name"] for addon in spec.get("addons", ()))
    return f"{spec.get('method')} with {addons}" if addons else str(spec.get("method"))
