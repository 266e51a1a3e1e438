"""The checkpoint of a run: all that was registered, and where the run stood."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_bench.errors import RunError
from dfkd_bench.utils.files import CHECKPOINT, write_atomic
from dfkd_bench.utils.hashing import sha256

NAME = CHECKPOINT


def digest(tree: Any) -> str:
    """SHA-256 of nested dicts, lists, numbers, strings and tensors, bit for bit."""
    sha = hashlib.sha256()

    def feed(node: Any) -> None:
        if isinstance(node, Mapping):
            for key in sorted(node, key=str):
                sha.update(f"{key}:".encode())
                feed(node[key])
        elif isinstance(node, list | tuple):
            sha.update(f"[{len(node)}".encode())
            for item in node:
                feed(item)
        elif isinstance(node, Tensor):
            flat = node.detach().contiguous().cpu()
            sha.update(f"{flat.dtype}{tuple(flat.shape)}".encode())
            sha.update(flat.view(-1).view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        else:
            sha.update(repr(node).encode())

    feed(tree)
    return sha.hexdigest()


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint; its content hash travels with it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    seal = sha256(payload).encode()
    write_atomic(folder / NAME, seal + payload, fault="checkpoint-rename")


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The run's checkpoint, or None where there is none. Raises `RunError` for a damaged one."""
    path = folder / NAME
    if not path.exists():
        return None
    payload = check(path)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError) as error:
        raise RunError(  # the bytes are what was saved, so the method registered what cannot be loaded safely
            f"checkpoint {path} cannot be read: what a method registers may hold tensors, numbers, strings, lists and "
            "dicts alone"
        ) from error
    return state


def check(path: Path) -> bytes:
    """What was saved in the checkpoint at `path`. Raises `RunError` where the bytes are not those that were written."""
    payload = path.read_bytes()
    seal, payload = payload[:64], payload[64:]
    if sha256(payload).encode() != seal:
        raise RunError(f"checkpoint {path} is damaged: start the run over with --force")
    return payload


def remove(folder: Path) -> None:
    """Drop the checkpoint of a finished run, and what an interrupted write may have left."""
    (folder / NAME).unlink(missing_ok=True)
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
