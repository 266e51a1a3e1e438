"""Use torch's optimisers without importing torch's compiler.

torch excludes its optimisers from compilation, and for that imports `torch._dynamo` (with sympy and, if installed,
triton) when the first optimiser is built or steps: 150 MB and up to two seconds per run. This module avoids the import
in runs that compile nothing. It changes no result.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

OPTIMISERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
SHIELD = "__dynamo_disable"  # attribute in which `torch._compile` stores the non-compiled form of a function
GUARD = "_use_grad"  # name in torch's code of the wrapper around an optimiser's step


def avoid_compiler_import() -> None:
    """Let optimisers of this process run without torch's wrappers until `torch._dynamo` is imported.

    This uses private names of torch; if another version differs, the compiler is imported as usual.
    """
    if "torch._dynamo" in sys.modules:
        return
    for function in _shielded():
        vars(function).setdefault(SHIELD, function)
    for kind in OPTIMISERS:
        step = vars(kind).get("step")
        if inspect.isfunction(step) and step.__code__.co_name == GUARD:
            setattr(kind, "step", _plain(step))  # noqa: B010


def allow_compiler() -> None:
    """Restore torch's wrappers; call it before anything is compiled in this process."""
    for function in _shielded():
        if vars(function).get(SHIELD) is function:
            delattr(function, SHIELD)


def _plain(guarded: Callable[..., Any]) -> Callable[..., Any]:
    """An optimiser step without torch's wrapper as long as the compiler is not imported."""
    bare: Callable[..., Any] = inspect.unwrap(guarded)

    @functools.wraps(bare)
    def step(self: torch.optim.Optimizer, *arguments: Any, **named: Any) -> Any:
        if self.defaults.get("differentiable") or "torch._dynamo" in sys.modules:
            return guarded(self, *arguments, **named)
        with torch.no_grad():
            return bare(self, *arguments, **named)

    return step


def _shielded() -> Iterator[Callable[..., Any]]:
    """The wrapped functions: methods of optimisers and functions of their modules."""
    owners: list[Any] = [torch.optim.Optimizer, *(sys.modules[kind.__module__] for kind in OPTIMISERS)]
    for owner in owners:
        for value in vars(owner).values():
            inner = getattr(value, "__wrapped__", None)
            if inspect.isfunction(value) and inspect.isfunction(inner):
                yield inner
