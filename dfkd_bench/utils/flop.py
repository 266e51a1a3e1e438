"""Count FLOP of torch operations: convolutions, matrix products and attention, forward and backward.

All counts of this package come from here, so that the FLOP of a network do not depend on the kernels that run it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
ATTENTION = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention",
             "fused_attention_overrideable")  # fmt: skip
Note = Callable[[Any, tuple[Any, ...], Mapping[str, Any], int], None]


class Arithmetic(TorchDispatchMode):
    """Calls `note(overload, arguments, keyword arguments, FLOP)` for each counted operation.

    torch's `FlopCounterMode` also tracks modules, which fails if a step calls `autograd.grad`, and does not count
    attention that runs as one kernel on a CPU.
    """

    def __init__(self, note: Note) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.note = note
        self.formulas = formulas()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and count an operation; a composite one (they occur in inference mode) is counted by its parts."""
        kwargs = kwargs or {}
        formula = self.formulas.get(getattr(func, "_overloadpacket", None))
        if formula is None and getattr(func, "namespace", None) == "aten":
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if formula is not None:
            self.note(func, tuple(args), kwargs, int(formula(*args, **kwargs, out_val=out)))
        return out


def flop_of(function: Callable[[], Any]) -> int:
    """FLOP of a call, 2 per multiply-add."""
    counts: list[int] = []
    with Arithmetic(lambda func, args, kwargs, flop: counts.append(flop)):
        function()
    return sum(counts)


@cache
def formulas() -> dict[Any, Callable[..., int]]:
    """Operation -> function of its arguments that gives the FLOP: torch's formulas, except for attention.

    For every attention kernel the matrix products of its definition are counted, two forward and four backward; what a
    kernel recomputes to save memory is not counted.
    """
    from torch.utils.flop_counter import flop_registry  # it imports triton, which no run needs

    table = dict(flop_registry)
    for kind in ATTENTION:
        table[getattr(aten, f"_scaled_dot_product_{kind}")] = attention
        table[getattr(aten, f"_scaled_dot_product_{kind}_backward")] = attention_backward
    table[aten._native_multi_head_attention] = multi_head
    table[aten._transformer_encoder_layer_fwd] = encoder_layer
    return table


def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """FLOP of scores and weighted values; arguments (B, heads, tokens, width)."""
    (*batch, tokens, width), others = query.shape, key.shape[-2]
    return 2 * prod(batch) * tokens * others * (width + value.shape[-1])


def attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """FLOP of the gradients of both products with respect to both factors."""
    return 2 * attention(query, key, value)


def multi_head(query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, *_: Any, **__: Any) -> int:
    """FLOP of `nn.MultiheadAttention` without gradients: four projections and attention; arguments (B, tokens, W)."""
    projections = 4 * width * (query.numel() + key.numel())
    return projections + attention(query, key, value)  # the heads split the width, so together they cost one full head


def encoder_layer(src: Tensor, width: int, heads: int, *args: Any, **_: Any) -> int:
    """FLOP of `nn.TransformerEncoderLayer` without gradients; `src` is (B, tokens, width)."""
    first, second = args[11], args[13]  # the weights of its two linear layers
    linear = 2 * src.numel() // width * (first.numel() + second.numel())
    return multi_head(src, src, src, width, heads) + int(linear)
