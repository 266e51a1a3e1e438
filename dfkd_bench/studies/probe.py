"""The probe: synthetic images of several methods, pooled in one file on which students are compared without real data.

Images are stored as float16 and judged as stored, so that whoever has the file measures the same.
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

SHARE = 64  # images of each run
SAMPLES = "samples.safetensors"


@dataclass(frozen=True, eq=False)
class Probe:
    """Pooled images and whose they are."""

    payload: bytes  # of the file
    images: Tensor  # (n, channels, height, width) fp32, in the teacher's normalised input space
    methods: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return sha256(self.payload)


def pool(runs: Sequence[Mapping[str, Any]], chosen: Task) -> Probe:
    """The first `SHARE` images of every run's record that is complete and has any, in the order of `runs`.

    Raises `RunError` where that leaves none.
    """
    names, parts = [], []
    for record in runs:
        result, file = record["result"], Path(record["path"]).parent / SAMPLES
        if result["status"] != "complete" or SAMPLES not in result["files"]:
            continue
        if not file.is_file():
            raise RunError(f"{file} is missing: copy it back beside the record")
        found = read_images([file], torch.device("cpu"), SHARE)
        assert found is not None
        half = found[0].half()
        if bool(torch.isfinite(half).all()):
            names.append(record["spec"]["method"])
            parts.append(half)
    if not parts:
        raise RunError("no untuned run left images to pool into a probe: give one with --probe, or name more methods")
    about = json.dumps({"methods": names, "task": chosen.name}, sort_keys=True)
    # one entry alone: safetensors writes several in no fixed order, which would change the file's hash
    return parse(to_bytes({"images": torch.cat(parts).contiguous()}, {"probe": about}), chosen, "the pooled probe")


def read(path: Path, chosen: Task) -> Probe:
    """The probe in a file. Raises `UsageError` where there is none, or one of another task."""
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read probe {path}: {error.strerror}") from error
    return parse(payload, chosen, str(path))


def parse(payload: bytes, chosen: Task, where: str) -> Probe:
    """The probe in a file's bytes; `where` names it in the `UsageError` for anything else."""
    try:
        images = from_bytes(payload)["images"]
        header = parse_json(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        about = parse_json(header["__metadata__"]["probe"])
        made_for, methods = about["task"], tuple(map(str, about["methods"]))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{where} is no probe of `dfkd-bench tune`") from error
    if made_for != chosen.name:
        raise UsageError(f"{where} is a probe of task {made_for}, not of {chosen.name}")
    if images.dtype != torch.float16 or images.shape[1:] != chosen.dataset.image_shape or not len(images):
        raise UsageError(f"{where} holds images of shape {tuple(images.shape)} as {images.dtype}: not those of a probe")
    return Probe(payload, images.float(), methods)
