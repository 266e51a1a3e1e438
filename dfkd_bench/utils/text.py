"""Names and numbers of things, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def counted(n: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{n} {what}{'s' * (n != 1)}"


def named(spec: Mapping[str, Any]) -> str:
    """A run's method with its add-ons: `alpha with a+b`; `spec` is a specification as JSON, or part of one."""
    around = "+".join(addon["name"] for addon in spec.get("addons", ()))
    return f"{spec.get('method')} with {around}" if around else str(spec.get("method"))
