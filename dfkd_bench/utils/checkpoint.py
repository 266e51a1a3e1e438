"""The checkpoint of a run: the state of all registered objects and the position of the run."""

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
    """SHA-256 of nested dicts, lists, numbers, strings and tensors; equal only if all bits are equal."""
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
    """Replace the run's checkpoint; the file starts with the SHA-256 of its content."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomic(folder / NAME, sha256(payload).encode() + payload, fault="checkpoint-rename")


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The run's checkpoint, or None if there is none. Raises `RunError` if it is damaged or cannot be loaded safely."""
    path = folder / NAME
    if not path.exists():
        return None
    payload = check(path)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError) as error:
        raise RunError(  # the checksum fits, so the method registered an object that cannot be loaded safely
            f"checkpoint {path} cannot be read: the state of a registered object may contain only tensors, numbers, "
            "strings, lists and dicts"
        ) from error
    return state


def check(path: Path) -> bytes:
    """The content of the checkpoint at `path`. Raises `RunError` if its checksum is wrong."""
    payload = path.read_bytes()
    checksum, payload = payload[:64], payload[64:]
    if sha256(payload).encode() != checksum:
        raise RunError(f"checkpoint {path} is damaged: start the run over with --force")
    return payload


def remove(folder: Path) -> None:
    """Delete the checkpoint of a finished run, and temporary files of an interrupted write."""
    (folder / NAME).unlink(missing_ok=True)
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
