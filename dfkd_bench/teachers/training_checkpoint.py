"""Where a teacher's training rests between two epochs, so that the same command goes on after an interruption."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from dfkd_bench.errors import RunError
from dfkd_bench.utils import checkpoint


class Stateful(Protocol):
    """A model, an optimiser, or whatever else has a state to keep."""

    def state_dict(self) -> Any:
        """All that it needs to go on."""

    def load_state_dict(self, state: Any, /) -> Any:
        """The inverse."""


class TrainingCheckpoint:
    """The checkpoint of one training in `folder`; without a folder nothing is kept.

    A checkpoint of another `request` is not taken, and overwritten in time; so is a damaged one.
    """

    def __init__(self, folder: Path | None, request: str, seconds: float) -> None:
        self._folder, self._request, self._seconds = folder, request, seconds
        self._saved = time.monotonic()

    def take(self, parts: Mapping[str, Stateful], device: torch.device) -> tuple[int, float]:
        """Bring `parts` to where the training rests; epochs done and loss of the last one, (0, nan) at the start."""
        try:
            state = checkpoint.load(self._folder, device) if self._folder else None
        except RunError:  # damaged: the training costs time, no result is lost
            state = None
        if state is None or state["request"] != self._request:
            return 0, float("nan")
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return state["epoch"], state["loss"]

    def put(self, parts: Mapping[str, Stateful], epoch: int, loss: float, last: bool) -> None:
        """Keep `parts` as they are after `epoch` epochs, if enough time passed or it is the `last` one."""
        if self._folder is None or not (last or time.monotonic() - self._saved >= self._seconds):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in parts.items()}
        checkpoint.save(self._folder, {"request": self._request, "epoch": epoch, "loss": loss, "parts": state})
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Nothing to go on from any more."""
        if self._folder and self._folder.is_dir():
            checkpoint.remove(self._folder)
