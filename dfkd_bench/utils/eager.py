"""Optimisers without torch's compiler: a run that compiles nothing does not load it.

torch keeps its optimisers out of its own compiler, and to do so imports all of `torch._dynamo` (with sympy and, where
it is installed, triton) when the first is built or steps: 150 MB and up to two seconds of every run. Nothing here
changes a result.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

OPTIMISERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
SHIELD = "__dynamo_disable"  # where `torch._compile` keeps the shielded form of a function
GUARD = "_use_grad"  # the name, in torch's own code, of what is around an optimiser's step


def avoid_compiler_import() -> None:
    """Let optimisers of this process go unshielded until `torch._dynamo` is there.

    It rests on details of torch: where another version differs, the compiler is imported as before.
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
    """Shield them again, before anything is compiled in this process."""
    for function in _shielded():
        if vars(function).get(SHIELD) is function:
            delattr(function, SHIELD)


def _plain(guarded: Callable[..., Any]) -> Callable[..., Any]:
    """A step that does without the compiler as long as it is not loaded."""
    bare: Callable[..., Any] = inspect.unwrap(guarded)

    @functools.wraps(bare)
    def step(self: torch.optim.Optimizer, *arguments: Any, **named: Any) -> Any:
        if self.defaults.get("differentiable") or "torch._dynamo" in sys.modules:
            return guarded(self, *arguments, **named)
        with torch.no_grad():
            return bare(self, *arguments, **named)

    return step


def _shielded() -> Iterator[Callable[..., Any]]:
    """What lies under the wrappers of optimisers' methods and of the functions that they are made of."""
    homes: list[Any] = [torch.optim.Optimizer, *(sys.modules[kind.__module__] for kind in OPTIMISERS)]
    for home in homes:
        for value in vars(home).values():
            inner = getattr(value, "__wrapped__", None)
            if inspect.isfunction(value) and inspect.isfunction(inner):
                yield inner
