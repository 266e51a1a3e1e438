"""The checkpoint of a teacher's training, from which the same command resumes after an interruption."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from dfkd_bench.errors import RunError
from dfkd_bench.utils import checkpoint


class Stateful(Protocol):
    """A model, an optimiser, or any other object with a state."""

    def state_dict(self) -> Any:
        """The state to save."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore a saved state."""


class TrainingCheckpoint:
    """The checkpoint of one training in `folder`; without a folder nothing is saved.

    A checkpoint that is damaged or of another `request` is ignored and later overwritten.
    """

    def __init__(self, folder: Path | None, request: str, seconds: float) -> None:
        self._folder, self._request, self._seconds = folder, request, seconds
        self._saved = time.monotonic()

    def restore(self, parts: Mapping[str, Stateful], device: torch.device) -> tuple[int, float]:
        """Load the saved state into `parts`; returns epochs done and loss of the last one, (0, nan) if none."""
        try:
            state = checkpoint.load(self._folder, device) if self._folder else None
        except RunError:  # damaged: training again only costs time
            state = None
        if state is None or state["request"] != self._request:
            return 0, float("nan")
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return state["epoch"], state["loss"]

    def save(self, parts: Mapping[str, Stateful], epoch: int, loss: float, last: bool) -> None:
        """Save `parts` after `epoch` epochs, if `seconds` have passed since the last time or it is the `last` epoch."""
        if self._folder is None or not (last or time.monotonic() - self._saved >= self._seconds):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in parts.items()}
        checkpoint.save(self._folder, {"request": self._request, "epoch": epoch, "loss": loss, "parts": state})
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Delete the checkpoint."""
        if self._folder and self._folder.is_dir():
            checkpoint.remove(self._folder)
