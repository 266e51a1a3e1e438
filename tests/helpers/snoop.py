"""Searches the memory of this process for real images and labels, through all objects that Python can reach.

It compares digests, so that the search itself holds no real data.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from collections.abc import Iterator
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfkd_bench.data import loading

Known = dict[str, str]  # digest -> description of the data


def hashed(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def fingerprints(name: str) -> Known:
    """Digests of every image (as bytes and normalised) and of the label vectors (in usual types) of a dataset."""
    known: Known = {}
    for which, split in zip(("train", "test"), loading.load(name), strict=True):
        for kind, images in (("uint8", split.images), ("normalised", split.normalised(slice(None)))):
            known |= {hashed(image.numpy()): f"a {which} image ({kind})" for image in images}
        for kind in (torch.int64, torch.int32, torch.uint8):
            known[hashed(split.labels.to(kind).numpy())] = f"the {which} labels"
    return known


def found_in(value: Any, known: Known, size: int = 256) -> set[str]:
    """The known data in one tensor or array, compared as a whole and in rows of `size` elements."""
    if isinstance(value, Tensor):
        # wrappers of a compiler have no data, or their data is reached by reference
        wrapper = type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__
        if wrapper or value.is_sparse or value.is_meta or value.numel() < size:
            return set()
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.contiguous().numpy()
    if value.dtype == object or value.size < size:
        return set()
    hashes = {hashed(value)}
    if value.size % size == 0:
        hashes |= {hashed(row) for row in value.reshape(-1, size)[:4096]}
    return {known[h] for h in hashes & set(known)}


def arrays(roots: list[Any]) -> Iterator[Any]:
    """Every tensor and array that is reachable from `roots` by references."""
    seen: set[int] = set()
    todo = list(roots)
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor | np.ndarray):
            yield item
        todo += gc.get_referents(item)


def frames() -> list[FrameType]:
    """The calling frames, outermost last."""
    found, frame = [], sys._getframe()
    while frame is not None:
        found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found


def everywhere(known: Known, roots: list[Any]) -> set[str]:
    """The known data that is reachable from `roots`, or from any frame, module or object of this process."""
    locals_ = [frame.f_locals for frame in frames()]
    modules = [vars(m) for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    found: set[str] = set()
    for array in arrays([*roots, *locals_, *modules, *gc.get_objects()]):
        found |= found_in(array, known)
    return found
