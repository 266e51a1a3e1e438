"""What the tests of several methods share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny import arithmetic


@pytest.fixture
def double() -> Iterator[None]:
    """Everything in float64."""
    with arithmetic(torch.float64):
        yield
