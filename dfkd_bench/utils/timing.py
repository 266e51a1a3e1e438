"""Time calls, including their asynchronous work on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def timed(function: Callable[[], Any], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds of a call by `clock` (seconds), including its work on the device."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = clock()
    function()
    wait()
    return 1000.0 * (clock() - start)
