"""Arithmetic counted by hand: the same number for attention whichever kernel runs it, on any device, in any mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from dfkd_bench.utils.flop import Arithmetic, attention_backward, flop_of, formulas

N, TOKENS, WIDTH, HEADS, WIDE = 3, 5, 16, 2, 32
ATTENTION = 2 * TOKENS * TOKENS * WIDTH  # multiply-adds of one image, as all below
MULTI_HEAD = TOKENS * 4 * WIDTH * WIDTH + ATTENTION
MODES = {
    "no_grad": torch.no_grad, "grad": torch.enable_grad, "inference": torch.inference_mode,
}  # fmt: skip
PARTS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "attention": (lambda: nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), MULTI_HEAD),
    "attention without weights": (lambda: Plain(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)), MULTI_HEAD),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, WIDE, batch_first=True),
        MULTI_HEAD + 2 * TOKENS * WIDTH * WIDE,
    ),
}


class Plain(nn.Module):
    """Self-attention of which nobody asks the weights, as torchvision's transformers call it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return out


def call(layer: nn.Module, x: Tensor) -> Any:
    return layer(x, x, x)[0] if isinstance(layer, nn.MultiheadAttention) else layer(x)


@contextmanager
def on(device: str) -> Iterator[None]:
    """Where numbers are computed, or not."""
    with torch.device("meta") if device == "meta" else nullcontext():
        yield


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", PARTS)
def test_a_forward_of_attention(name: str, frozen: bool, mode: str, device: str) -> None:
    build, macs = PARTS[name]
    with on(device), MODES[mode]():
        layer = build().eval().requires_grad_(not frozen)
        x = torch.zeros(N, TOKENS, WIDTH)
        assert flop_of(lambda: call(layer, x)) == 2 * N * macs


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", PARTS)
def test_a_backward_of_attention(name: str, frozen: bool, device: str) -> None:
    build, macs = PARTS[name]
    by_hand = 2 * macs + ATTENTION if frozen else 3 * macs  # both factors of attention's products have a gradient
    with on(device):
        layer = build().train().requires_grad_(not frozen)
        x = torch.zeros(N, TOKENS, WIDTH, requires_grad=True)
        assert flop_of(lambda: call(layer, x).sum().backward()) == 2 * N * by_hand


@pytest.mark.parametrize("kernel", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_every_kernel_comes_to_the_same(kernel: SDPBackend) -> None:
    q = torch.randn(N, HEADS, 4, 8, requires_grad=True)
    k, v = (torch.randn(N, HEADS, 6, 8, requires_grad=True) for _ in range(2))
    forward = 2 * N * HEADS * 4 * 6 * (8 + 8)
    with sdpa_kernel(kernel):
        assert flop_of(lambda: sdpa(q, k, v)) == forward
        assert flop_of(lambda: sdpa(q, k, v, scale=0.5).sum().backward()) == 3 * forward


def test_every_kernel_of_attention_is_known() -> None:
    """A kernel that a later torch adds has to be given its formula."""
    names = {n for n in dir(torch.ops.aten) if n.startswith("_scaled_dot_product")} | {
        schema.name.removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::_scaled_dot_product")
    }
    known = {packet.__name__ for packet in formulas() if hasattr(packet, "__name__")}
    made_of_others = {"_scaled_dot_product_attention_math"}
    elsewhere = {"_scaled_dot_product_attention_math_for_mps", "_scaled_dot_product_flash_attention_for_cpu_backward"}
    assert names - known - made_of_others - elsewhere == set()


def test_backwards_begin_with_the_gradient_and_the_three_factors() -> None:
    found = [packet for packet, formula in formulas().items() if formula is attention_backward]
    assert len(found) == 5
    for packet in found:
        names = [argument.name.strip("_") for argument in packet.default._schema.arguments[:4]]
        assert names == ["grad_out", "query", "key", "value"]


def test_composite_operations_are_counted_once_in_inference_mode() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 7)).eval()
    for mode in MODES.values():
        with mode():
            x = torch.zeros(2, 3, 8, 8)
            assert flop_of(lambda x=x: net(x)) == 2 * 2 * (36 * 4 * 27 + 4 * 36 * 7)


def test_values_are_those_without_counting() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, WIDE, batch_first=True).eval()
    x = torch.randn(N, TOKENS, WIDTH)
    with torch.no_grad():
        plain = layer(x)
        with Arithmetic(lambda *_: None):
            assert torch.equal(layer(x), plain)
