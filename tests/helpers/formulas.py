"""A loss of ours against its formula in float64 NumPy: values in both precisions, gradients as slopes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from reference_numpy import Array, slope
from torch import Tensor

Loss = Callable[..., Tensor]
Formula = Callable[..., float]


def check_value(loss: Loss, formula: Formula, inputs: tuple[Array, ...], near: float = 0.0) -> None:
    """The loss of `inputs` (fp32 numbers) is the formula's, to 1e-6 in fp32 and 1e-12 in fp64, and of that precision.

    near: size of the numbers that the loss is a difference of, where their rounding counts.
    """
    expected = formula(*inputs)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        value = loss(*(torch.tensor(x, dtype=dtype) for x in inputs))
        assert value.dtype == dtype
        assert value.shape == ()
        assert value.item() == pytest.approx(expected, rel=tolerance, abs=tolerance * near), dtype


def check_gradient(loss: Loss, formula: Formula, inputs: tuple[Array, ...], least: float = 1e-4) -> None:
    """The gradient for each input is the slope of the formula, and one of its entries at least is above `least`.

    Central finite differences at a step of 1e-5 have an error of about 1e-9.
    """
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    loss(*leaves).backward()
    for k, leaf in enumerate(leaves):
        expected = slope(lambda x, k=k: formula(*inputs[:k], x, *inputs[k + 1 :]), inputs[k])  # type: ignore[misc]
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-6, atol=1e-8)
        assert np.abs(expected).max() > least, "the case must not be flat"
