"""Stores of synthetic images and of features, on the device, checkpointed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.errors import RunError

BYTES = ("truncate", "round")


class ImagePool:
    """Images as bytes, (n, channels, height, width) uint8, with labels. Starts empty; the oldest go when it is full.

    A byte is a pixel, confined to [0, 1], times 255: cut to a whole number (`truncate`, as the released code of the
    methods that invert does) or rounded to the nearest (`round`). Register it: what it holds travels with checkpoints.
    Raises `ValueError` for another word or a capacity below one.
    """

    def __init__(
        self, capacity: int, image_shape: tuple[int, int, int], device: torch.device, form: str = "truncate"
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a pool holds one image at least, got capacity {capacity}")
        if form not in BYTES:
            raise ValueError(f"unknown form of bytes {form!r}: {' or '.join(BYTES)}")
        self.form = form
        self.capacity, self.images = capacity, torch.empty((0, *image_shape), dtype=torch.uint8, device=device)
        self.labels = torch.empty((0,), dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self.images)

    def bytes_of(self, pixels: Tensor) -> Tensor:
        """The bytes (uint8) that pixels of [0, 1] are stored as."""
        scaled = pixels.clamp(0.0, 1.0) * 255.0
        return (scaled.round() if self.form == "round" else scaled).to(torch.uint8)

    @torch.no_grad()
    def add(self, pixels: Tensor, labels: Tensor | None = None) -> int:
        """Store pixels (n, channels, height, width) of [0, 1]; returns by how many the pool has grown.

        Raises `RunError` for labels given to some images and not to others.
        """
        before = len(self)
        if before and (labels is not None) != (len(self.labels) == before):
            raise RunError("either all images of a pool have labels or none")
        self.images = torch.cat([self.images, self.bytes_of(pixels).contiguous()])[-self.capacity :]
        if labels is not None:
            self.labels = torch.cat([self.labels, labels])[-self.capacity :]
        return len(self) - before

    def draw(self, n: int, stream: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`n` images (bytes) and their labels, each once while there are enough. Raises `RunError` when empty.

        Labels are None where the images were stored without.
        """
        held = len(self)
        if not held:
            raise RunError("the image pool is empty: synthesise before distilling")
        if held >= n:
            index = torch.randperm(held, generator=stream, device=self.images.device)[:n]
        else:
            index = torch.randint(0, held, (n,), generator=stream, device=self.images.device)
        return self.images[index], self.labels[index] if len(self.labels) else None

    def state_dict(self) -> dict[str, Tensor]:
        """All images and labels."""
        return {"images": self.images, "labels": self.labels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what a checkpoint held."""
        device = self.images.device
        self.images, self.labels = state["images"].to(device), state["labels"].to(device)


class FeatureQueue:
    """First in, first out, of unit vectors: columns of a (d, K) matrix that starts as random directions.

    Raises `ValueError` unless K is a multiple of the batch, so that a batch always replaces whole neighbours.
    Source: He et al., CVPR 2020 (without its momentum encoder).
    """

    def __init__(self, dim: int, size: int, batch: int, device: torch.device) -> None:
        if size < batch or size % batch:
            raise ValueError(f"the queue's size {size} is not a multiple of the batch {batch}")
        # from the global stream, which the harness seeds before setup
        self.columns = F.normalize(torch.randn(dim, size), dim=0).to(device)
        self.batch, self.position = batch, 0

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Replace the oldest columns by the unit vectors `rows` (n, d). Never inside a graph: copies in place."""
        n, size = len(rows), self.columns.shape[1]
        if n != self.batch:
            raise RunError(f"{n} vectors do not fit a queue that takes {self.batch} at a time")
        self.columns = self.columns.clone()  # a loss still waiting for its backward may hold the old one
        self.columns[:, self.position : self.position + n] = rows.T
        self.position = (self.position + n) % size

    def state_dict(self) -> dict[str, Any]:
        """Columns and the place of the oldest."""
        return {"columns": self.columns, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where it was."""
        self.columns, self.position = state["columns"].to(self.columns.device), int(state["position"])


class FeatureBank:
    """Raw features (n, d) of past images in as many parallel views as asked for; the oldest rows go when it is full.

    Source: Fang et al., IJCAI 2021, the memory bank of L_cr.
    """

    def __init__(self, capacity: int, dim: int, views: int, device: torch.device) -> None:
        self.capacity, self.rows = capacity, torch.empty((0, views, dim), device=device)

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def push(self, *views: Tensor) -> None:
        """Store one (n, d) tensor per view."""
        self.rows = torch.cat([self.rows, torch.stack(views, dim=1).detach()])[-self.capacity :]

    def draw(self, n: int, stream: torch.Generator) -> tuple[Tensor, ...]:
        """At most `n` rows, without repetition, one (m, d) tensor per view; m is 0 while the bank is empty."""
        index = torch.randperm(len(self), generator=stream, device=self.rows.device)[:n]
        return self.rows[index].unbind(1)

    def state_dict(self) -> dict[str, Tensor]:
        """All rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what a checkpoint held."""
        self.rows = state["rows"].to(self.rows.device)
