"""Pools of synthetic images and of features, on the device, with state for checkpoints."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench.errors import RunError

BYTES = ("truncate", "round")


class ImagePool:
    """Images as uint8 (n, channels, height, width), with labels. Starts empty; when full, the oldest are dropped.

    A byte is a pixel, clipped to [0, 1], times 255, rounded down (`truncate`, as in published inversion code) or to the
    nearest integer (`round`). Register the pool, so that checkpoints include it. Raises `ValueError` for another form
    or a capacity below one.
    """

    def __init__(
        self, capacity: int, image_shape: tuple[int, int, int], device: torch.device, form: str = "truncate"
    ) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of a pool is at least 1, got {capacity}")
        if form not in BYTES:
            raise ValueError(f"unknown form of bytes {form!r}: {' or '.join(BYTES)}")
        self.form = form
        self.capacity, self.images = capacity, torch.empty((0, *image_shape), dtype=torch.uint8, device=device)
        self.labels = torch.empty((0,), dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self.images)

    def bytes_of(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] as the uint8 values that the pool stores."""
        scaled = pixels.clamp(0.0, 1.0) * 255.0
        return (scaled.round() if self.form == "round" else scaled).to(torch.uint8)

    @torch.no_grad()
    def add(self, pixels: Tensor, labels: Tensor | None = None) -> int:
        """Store pixels (n, channels, height, width) in [0, 1]; returns the growth of the pool.

        Raises `RunError` if some images have labels and others have none.
        """
        before = len(self)
        if before and (labels is not None) != (len(self.labels) == before):
            raise RunError("either all images of a pool have labels or none")
        self.images = torch.cat([self.images, self.bytes_of(pixels).contiguous()])[-self.capacity :]
        if labels is not None:
            self.labels = torch.cat([self.labels, labels])[-self.capacity :]
        return len(self) - before

    def draw(self, n: int, stream: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`n` images (uint8) and their labels (None if stored without), drawn without replacement if there are enough.

        Raises `RunError` if the pool is empty.
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
        """Images and labels."""
        return {"images": self.images, "labels": self.labels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore images and labels."""
        device = self.images.device
        self.images, self.labels = state["images"].to(device), state["labels"].to(device)


class FeatureQueue:
    """First-in-first-out queue of unit vectors: the columns of a (d, K) matrix, initialised with random directions.

    Raises `ValueError` unless K is a multiple of the batch size, so that a batch replaces contiguous columns.
    Source: He et al., CVPR 2020 (without the momentum encoder).
    """

    def __init__(self, dim: int, size: int, batch: int, device: torch.device) -> None:
        if size < batch or size % batch:
            raise ValueError(f"the queue's size {size} is not a multiple of the batch {batch}")
        # from the global stream, which the harness seeds before setup
        self.columns = F.normalize(torch.randn(dim, size), dim=0).to(device)
        self.batch, self.position = batch, 0

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Replace the oldest columns by unit vectors `rows` (n, d), where n is the batch size; else raises `RunError`.

        Do not call it within compiled code.
        """
        n, size = len(rows), self.columns.shape[1]
        if n != self.batch:
            raise RunError(f"the queue needs {self.batch} vectors at a time, got {n}")
        self.columns = self.columns.clone()  # a loss whose backward has not run yet may still need the old tensor
        self.columns[:, self.position : self.position + n] = rows.T
        self.position = (self.position + n) % size

    def state_dict(self) -> dict[str, Any]:
        """Columns and the position of the oldest one."""
        return {"columns": self.columns, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore columns and position."""
        self.columns, self.position = state["columns"].to(self.columns.device), int(state["position"])


class FeatureBank:
    """Raw features of past images in `views` parallel views, (n, views, d); when full, the oldest rows are dropped.

    Source: Fang et al., IJCAI 2021, memory bank of L_cr.
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
        """At most `n` rows, without replacement, as one (m, d) tensor per view; m is 0 if the bank is empty."""
        index = torch.randperm(len(self), generator=stream, device=self.rows.device)[:n]
        return self.rows[index].unbind(1)

    def state_dict(self) -> dict[str, Tensor]:
        """All rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore all rows."""
        self.rows = state["rows"].to(self.rows.device)
