"""The arithmetic of what torch runs: convolutions, matrix products and attention, forward and backward.

Every count of this package comes from here, so that a network has one number of FLOP, whichever kernels run it.
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
    """Calls `note` with each operation that is counted: its overload, arguments, named arguments and FLOP.

    torch's own `FlopCounterMode` also keeps track of modules, which fails where a step calls `autograd.grad`, and sees
    no attention that runs as one kernel on a CPU.
    """

    def __init__(self, note: Note) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.note = note
        self.formulas = formulas()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation itself, counted; one made of others (as they arrive in inference mode) as those."""
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
    found: list[int] = []
    with Arithmetic(lambda func, args, kwargs, flop: found.append(flop)):
        function()
    return sum(found)


@cache
def formulas() -> dict[Any, Callable[..., int]]:
    """FLOP from the arguments of each operation: torch's formulas, but for attention.

    All kernels of attention come to the matrix products that define it, two forward and four backward: what a kernel
    computes a second time to save memory is not counted.
    """
    from torch.utils.flop_counter import flop_registry  # it imports triton, which no run needs

    found = dict(flop_registry)
    for kind in ATTENTION:
        found[getattr(aten, f"_scaled_dot_product_{kind}")] = attention
        found[getattr(aten, f"_scaled_dot_product_{kind}_backward")] = attention_backward
    found[aten._native_multi_head_attention] = multi_head
    found[aten._transformer_encoder_layer_fwd] = encoder_layer
    return found


def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Scores and weighted values; (B, heads, tokens, width) each."""
    (*batch, tokens, width), others = query.shape, key.shape[-2]
    return 2 * prod(batch) * tokens * others * (width + value.shape[-1])


def attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """The gradients of both products in each factor."""
    return 2 * attention(query, key, value)


def multi_head(query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, *_: Any, **__: Any) -> int:
    """All of `nn.MultiheadAttention` where no gradient is wanted: four projections around attention; (B, tokens, W)."""
    projections = 4 * width * (query.numel() + key.numel())
    return projections + attention(query, key, value)  # heads share the width: their products add up to those of one


def encoder_layer(src: Tensor, width: int, heads: int, *args: Any, **_: Any) -> int:
    """All of `nn.TransformerEncoderLayer` where no gradient is wanted; (B, tokens, width)."""
    first, second = args[11], args[13]  # the weights of its two linear layers
    linear = 2 * src.numel() // width * (first.numel() + second.numel())
    return multi_head(src, src, src, width, heads) + int(linear)
