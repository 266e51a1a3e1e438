"""Replay: a memory of past images, mixed into each student batch.

After K. Binici, N. Pham, T. Mitra, K. Leman, WACV 2022, arXiv 2108.05698: the generator's distribution changes during
the run, and a student that sees only new images forgets earlier ones; so past images are added. How the memory is
filled and sampled is our choice, with the same behaviour for every length of run:

    m = ceil(capacity / (span rounds)) random rows of each round's first batch are stored, the oldest rows are dropped;
    of each batch of n rows, min(share n, memory) random rows are replaced by rows of the memory, without replacement.

So a full memory covers the last `span` of the run. The rows that are replaced in a batch are stored first. Rows keep
labels, weights and latents. They are not rounded to bytes, because many generators give values outside the range of
pixels. If the method returns the same batch again, the same mixture is returned. A row keeps the weight of its original
batch, so the mean weight of a mixture may differ from that batch's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_bench.addon import AddOn, AddOnContext, Sample
from dfkd_bench.errors import RunError
from dfkd_bench.method import Batch, Privileges, setting

FIELDS = ("images", "labels", "weights", "latents")


@dataclass(frozen=True)
class ReplayConfig:
    """The mixture first, then the memory."""

    share: float = setting(0.25, "fraction of each student batch that is replayed")
    capacity: int = setting(2048, "size of the memory", unit="images")
    span: float = setting(0.5, "fraction of the run that a full memory covers")


class Memory:
    """Rows of past batches with labels, weights and latents, first in, first out. Starts empty."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows["images"]) if self.rows else 0

    def push(self, batch: Batch, index: Tensor) -> int:
        """Store the rows `index` of `batch`; returns the growth of the memory.

        Raises `RunError` if the batch has other fields (labels, weights, latents) than the stored rows.
        """
        before = len(self)
        fresh = {name: v[index].detach() for name in FIELDS if (v := getattr(batch, name)) is not None}
        if self.rows and fresh.keys() != self.rows.keys():
            raise RunError(f"batches of {', '.join(fresh)} cannot be mixed with rows of {', '.join(self.rows)}")
        self.rows = {k: torch.cat([self.rows[k], v] if before else [v])[-self.capacity :] for k, v in fresh.items()}
        return len(self) - before

    def into(self, batch: Batch, places: Tensor, stream: torch.Generator) -> Batch:
        """A copy of `batch` in which rows of the memory, each at most once, replace the rows `places`."""
        drawn = torch.randperm(len(self), generator=stream, device=places.device)[: len(places)]

        def mixed(name: str) -> Tensor | None:
            value: Tensor | None = getattr(batch, name)
            if (value is None) != (name not in self.rows):
                raise RunError(f"some batches have {name} and some have none: their rows cannot be mixed")
            return None if value is None else value.clone().index_copy_(0, places, self.rows[name][drawn])

        images = mixed("images")
        assert images is not None
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, *(mixed(name) for name in FIELDS[1:]))

    def state_dict(self) -> dict[str, Tensor]:
        """All rows."""
        return dict(self.rows)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore all rows."""
        self.rows = dict(state)


class Replay(AddOn):
    """Past synthetic images, in each student batch, from a memory that spans the run."""

    Config = ReplayConfig
    privileges = Privileges()
    paper = "after Binici et al.: Preventing Catastrophic Forgetting and Distribution Mismatch, WACV 2022"

    config: ReplayConfig

    def setup(self, context: AddOnContext) -> None:
        """The memory."""
        super().setup(context)
        c = self.config
        if not (0.0 <= c.share <= 1.0 and 0.0 < c.span <= 1.0 and c.capacity >= 1):
            raise ValueError("share must be in [0, 1], span in (0, 1], capacity at least 1")
        self.memory = context.register("memory", Memory(c.capacity))
        self.round = -1  # the round in which the memory was last filled
        self.last: tuple[Batch, Batch] | None = None  # the method's last batch in this round, and its mixture

    def sample(self, n: int, inner: Sample) -> Batch:
        """The method's batch with some rows replaced by rows of the memory."""
        c, progress = self.config, self.context.progress
        if progress.round != self.round:
            self.last = None
        fresh = inner(n)
        if self.last and self.last[0] is fresh:
            return self.last[1]
        stream, rows = self.context.stream("rows"), len(fresh.images)
        order = torch.randperm(rows, generator=stream, device=fresh.images.device)
        replayed = min(round(c.share * rows), len(self.memory))
        mixed = self.memory.into(fresh, order[:replayed], stream) if replayed else fresh
        if progress.round != self.round:
            m = math.ceil(c.capacity / (c.span * progress.rounds))
            self.context.count(stored=self.memory.push(fresh, order[:m]))
            self.round = progress.round
        self.last = fresh, mixed
        return mixed
