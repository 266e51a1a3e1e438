"""A memory of past batches, mixed into each student batch.

After K. Binici, N. Pham, T. Mitra, K. Leman, WACV 2022, arXiv 2108.05698: what a generator makes drifts, and a student
that sees the latest images alone forgets the earlier ones, so a bank of past images is shown beside them. How the bank
is filled and drawn from is our choice, made so that every length of run is covered alike:

    of each round's first batch, m = ceil(capacity / (span rounds)) random rows enter the memory, the oldest leave it;
    of each batch of n rows, min(share n, memory) random rows are replaced by rows of the memory, drawn without return.

A full memory thus looks back on the share `span` of the run. Rows that are put aside enter it first. Rows keep labels,
weights and latents, and are not rounded to bytes, because many generators paint outside the range of pixels. A batch
that the method hands out again is the same mixture again. A row's weight was set for the batch it was made in; the mean
weight of a mixture may differ from that batch's.
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

    share: float = setting(0.25, "share of each student batch that is replayed")
    capacity: int = setting(2048, "rows that the memory holds", unit="images")
    span: float = setting(0.5, "share of the run that a full memory looks back on")


class Memory:
    """Rows of past batches, first in, first out, with all that they carry. Starts empty; registered as one object."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows["images"]) if self.rows else 0

    def push(self, batch: Batch, index: Tensor) -> int:
        """Take in these rows of `batch`; returns by how many the memory has grown. Raises `RunError` for other fields.

        All batches carry the same fields (labels, weights, latents), or their rows could not stand in one batch.
        """
        before = len(self)
        fresh = {name: v[index].detach() for name in FIELDS if (v := getattr(batch, name)) is not None}
        if self.rows and fresh.keys() != self.rows.keys():
            raise RunError(f"batches of {', '.join(fresh)} cannot be mixed with rows of {', '.join(self.rows)}")
        self.rows = {k: torch.cat([self.rows[k], v] if before else [v])[-self.capacity :] for k, v in fresh.items()}
        return len(self) - before

    def into(self, batch: Batch, places: Tensor, stream: torch.Generator) -> Batch:
        """A copy of `batch` with rows of the memory, each at most once, at these places."""
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
        """Hold what a checkpoint held."""
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
            raise ValueError("share lies between 0 and 1, span above 0 and at most at 1, capacity is 1 at least")
        self.memory = context.register("memory", Memory(c.capacity))
        self.round = -1  # in which the memory was filled last, and the last batch: of this round alone
        self.last: tuple[Batch, Batch] | None = None

    def sample(self, n: int, inner: Sample) -> Batch:
        """The method's batch with some of its rows replaced."""
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
