"""Time of calls, with what they leave the device to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def timed(function: Callable[[], Any], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds of a call by `clock` (seconds), with all that it left the device to do."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    begun = clock()
    function()
    wait()
    return 1000.0 * (clock() - begun)
