"""Read files of weights: the format is found from the bytes, and no code in a file is run. Imports no torch."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.utils.hashing import sha256
from dfkd_bench.utils.parse import parse_json

if TYPE_CHECKING:
    import torch

    from dfkd_bench.models.tapped import Tapped

    Weights = dict[str, torch.Tensor]

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation per channel, pixels in 0..1

# keys under which a checkpoint may store the weights
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "state", "weights")
COUNTER = "num_batches_tracked"  # of BatchNorm; older files lack it, and it changes no output
METADATA = "normalisation"  # one key for mean and std, because safetensors writes several keys in a random order


def read_weights(path: Path) -> Weights:
    """The state dict in a safetensors file or a torch file; the latter is read with `weights_only=True`.

    Raises `UsageError` for a missing file, `RunError` for one that is of another format, damaged, or contains other
    objects than tensors.
    """
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise RunError(f"{path.name} cannot be read: {error.strerror}") from error
    refuse_wrong_format(head, path.name)
    header = int.from_bytes(head[:8], "little")
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and 0 < header <= size - 8):
        return _read_safetensors(path)
    weights = _state_dict(_read_torch(path), path.name)
    parallel = "module."  # prefix of torch's DataParallel wrappers
    if all(key.startswith(parallel) for key in weights):
        return {key.removeprefix(parallel): value for key, value in weights.items()}
    return weights


def refuse_wrong_format(head: bytes, name: str) -> None:
    """Raise `RunError` if the first bytes `head` show a failed download: empty, a Git LFS pointer, an HTML page."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not text:
        raise RunError(f"{name} is empty: download it again")
    if text.startswith(b"version https://git-lfs"):
        raise RunError(f"{name} is a Git LFS pointer, not the weights: fetch them with `git lfs pull`")
    if re.match(rb"<(!doctype|html|head|body|\?xml|!--)", text):
        raise RunError(f"{name} is an HTML page, not weights: check the download link")


def _read_safetensors(path: Path) -> Weights:
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError(f"{path.name} is not a readable safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"{path.name} is not a plain state dict (it is damaged or contains objects whose code is never run): "
            "save it again with torch.save(model.state_dict(), FILE)"
        ) from error
    except Exception as error:  # damaged bytes can raise nearly any exception in an unpickler
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise RunError(f"{path.name} is not a readable checkpoint: {what}") from error


def _state_dict(loaded: Any, name: str) -> Weights:
    """The only state dict in a loaded torch file; raises `RunError` for none or several."""
    import torch

    for _ in range(len(CONTAINERS)):
        if not isinstance(loaded, Mapping):
            break
        if loaded and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in loaded.items()):
            return dict(loaded)
        inner = [key for key in CONTAINERS if isinstance(loaded.get(key), Mapping)]
        if len(inner) > 1:
            both = " and ".join(map(repr, inner))
            raise RunError(f"{name} contains several networks ({both}): save only the one you need")
        if not inner:
            break
        loaded = loaded[inner[0]]
    raise RunError(f"{name} contains no state dict of tensors: save it again with torch.save(model.state_dict(), FILE)")


def fit_weights(model: Tapped, weights: Weights, what: str) -> None:
    """Load `weights`, named as in the model; raises `RunError` with the first mismatch of name or shape."""
    own = model.state_dict()
    for key, value in own.items():
        if key not in weights:
            if key.endswith(COUNTER):
                weights[key] = value
                continue
            raise RunError(f"{what}: no weight {key!r} in the file; is it another architecture?")
        if weights[key].shape != value.shape:
            shapes = f"{tuple(weights[key].shape)} in the file, {tuple(value.shape)} in the model"
            raise RunError(f"{what}: weight {key!r} is {shapes}; {_likely_reason(own, key, weights[key])}")
    extra = sorted(set(weights) - set(own))
    if extra:
        raise RunError(f"{what}: the file has a weight {extra[0]!r} that the model lacks; is it another architecture?")
    model.load_state_dict(weights)


def _likely_reason(own: Mapping[str, torch.Tensor], key: str, value: torch.Tensor) -> str:
    """The likely reason for a shape that does not fit."""
    expected = own[key].shape
    stem = next((k for k, v in own.items() if v.dim() == 4), "")
    head = [k for k, v in own.items() if v.dim() == 2][-1:]
    if key == stem and value.dim() == 4 and (value.shape[0], value.shape[2:]) == (expected[0], expected[2:]):
        return f"it is made for images of {value.shape[1]} channels, not of {expected[1]}"
    if [key] == head and value.dim() == 2 and value.shape[1] == expected[1]:
        return f"its class count is {value.shape[0]}, not {expected[0]}"
    return "does it have another class count or architecture?"


def check_finite(weights: Weights, what: str) -> None:
    """Raise `RunError` for weights that are not floating-point or not finite."""
    for key, value in weights.items():
        if key.endswith(COUNTER):
            continue
        if not value.is_floating_point():
            raise RunError(f"{what}: weight {key!r} is {value.dtype}, not a floating-point number; is it quantised?")
        if not bool(value.isfinite().all()):
            raise RunError(f"{what} contains weights that are infinite or NaN (first {key!r})")


def payload_of(weights: Weights, normalisation: Normalisation | None = None) -> tuple[bytes, str]:
    """Weights as the bytes of a safetensors file, and their SHA-256.

    `normalisation` is written into the metadata, so that the hash covers it; None if it is the dataset's.
    """
    from safetensors.torch import save

    metadata = None
    if normalisation:
        metadata = {METADATA: json.dumps(dict(zip(("mean", "std"), map(list, normalisation), strict=True)))}
    payload = save({k: v.contiguous().cpu() for k, v in weights.items()}, metadata)
    return payload, sha256(payload)


def normalisation_in(path: Path) -> Normalisation | None:
    """The normalisation that `payload_of` wrote into a safetensors file; None if there is none.

    Raises `RunError` if it cannot be parsed.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(METADATA)
    except (safetensors.SafetensorError, OSError):
        return None
    if text is None:
        return None
    try:
        table = parse_json(text)
        return tuple(map(float, table["mean"])), tuple(map(float, table["std"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path.name}: its metadata {METADATA!r} cannot be read: {text[:80]!r}") from error
