"""The probe: synthetic images of several methods, pooled in one file, for comparing students without real data.

Images are stored as float16, and evaluated with these rounded values, so that the file gives the same numbers again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.protocol import Task
from dfkd_bench.training.storage import read_images
from dfkd_bench.utils.hashing import sha256
from dfkd_bench.utils.parse import parse_json

SHARE = 64  # images from each run
SAMPLES = "samples.safetensors"


@dataclass(frozen=True, eq=False)
class Probe:
    """Pooled images and the methods that made them."""

    payload: bytes  # content of the file
    images: Tensor  # (n, channels, height, width) fp32, in the teacher's normalised input space
    methods: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return sha256(self.payload)


def pool(runs: Sequence[Mapping[str, Any]], task: Task) -> Probe:
    """The first `SHARE` images of each complete run with images, in the order of `runs` (records).

    Raises `RunError` if there are none, or a file is missing.
    """
    names, parts = [], []
    for record in runs:
        result, file = record["result"], Path(record["path"]).parent / SAMPLES
        if result["status"] != "complete" or SAMPLES not in result["files"]:
            continue
        if not file.is_file():
            raise RunError(f"{file} is missing: copy it back beside the record")
        stored = read_images([file], torch.device("cpu"), SHARE)
        assert stored is not None
        half = stored[0].half()
        if bool(torch.isfinite(half).all()):
            names.append(record["spec"]["method"])
            parts.append(half)
    if not parts:
        raise RunError("no untuned run left images to pool into a probe: give one with --probe, or name more methods")
    about = json.dumps({"methods": names, "task": task.name}, sort_keys=True)
    # a single metadata entry: safetensors writes several in no fixed order, which would change the file's digest
    return parse(to_bytes({"images": torch.cat(parts).contiguous()}, {"probe": about}), task, "the pooled probe")


def read(path: Path, task: Task) -> Probe:
    """The probe in a file. Raises `UsageError` if it cannot be read, is not a probe, or is of another task."""
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read probe {path}: {error.strerror}") from error
    return parse(payload, task, str(path))


def parse(payload: bytes, task: Task, where: str) -> Probe:
    """The probe in the bytes of a file, named `where` in messages. Raises `UsageError` as `read`."""
    try:
        images = from_bytes(payload)["images"]
        header = parse_json(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        about = parse_json(header["__metadata__"]["probe"])
        made_for, methods = about["task"], tuple(map(str, about["methods"]))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{where} is no probe of `dfkd-bench tune`") from error
    if made_for != task.name:
        raise UsageError(f"{where} is a probe of task {made_for}, not of {task.name}")
    if images.dtype != torch.float16 or images.shape[1:] != task.dataset.image_shape or not len(images):
        raise UsageError(f"{where} holds images of shape {tuple(images.shape)} as {images.dtype}: not those of a probe")
    return Probe(payload, images.float(), methods)
