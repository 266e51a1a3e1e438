"""Named random streams, each a pure function of (seed, purpose, round), so that checkpoints need not save them.

Every stream, including the global ones, is re-seeded at the start of each round. A run that resumes at a round boundary
therefore draws the same numbers as an uninterrupted run.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, purpose: str, round: int = 0) -> int:
    """A 63-bit seed from (seed, purpose, round); distinct arguments give unrelated values."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{round}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_global(seed: int, purpose: str, round: int = 0) -> None:
    """Re-seed the global streams of Python, NumPy and torch, for code that uses them."""
    value = derive(seed, purpose, round)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.manual_seed(value)


class Streams:
    """The streams of one run on one device."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.device = torch.device(device)
        self._round = 0
        self._streams: dict[str, torch.Generator] = {}

    def get(self, purpose: str) -> torch.Generator:
        """The stream of `purpose`, seeded for the current round when first requested."""
        if purpose not in self._streams:
            stream = torch.Generator(self.device)
            stream.manual_seed(derive(self.seed, purpose, self._round))
            self._streams[purpose] = stream
        return self._streams[purpose]

    def reseed(self, round: int) -> None:
        """Seed every stream, named and global, for `round`."""
        self._round = round
        for purpose, stream in self._streams.items():
            stream.manual_seed(derive(self.seed, purpose, round))
        seed_global(self.seed, "global", round)

    def states(self) -> dict[str, bytes]:
        """State of every named stream as bytes, for comparison."""
        return {purpose: bytes(stream.get_state().tolist()) for purpose, stream in self._streams.items()}
