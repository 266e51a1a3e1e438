"""Files of weights from anywhere: their bytes tell what they are, and no code in them ever runs. Imports no torch."""

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

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation per channel, of 0..1

# keys of a checkpoint below which the weights may lie
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "state", "weights")
COUNTER = "num_batches_tracked"  # BatchNorm's; older files lack it, and it changes no output
METADATA = "normalisation"  # one key for both: safetensors writes several in an order that changes from run to run


def read_weights(path: Path) -> Weights:
    """The state dict in a safetensors file or in a torch file, which is read with `weights_only=True`.

    Raises `UsageError` where there is no file, `RunError` for one that is something else, damaged, or holds objects
    other than tensors.
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
    parallel = "module."  # what torch's wrappers for several devices leave before every name
    if all(key.startswith(parallel) for key in weights):
        return {key.removeprefix(parallel): value for key, value in weights.items()}
    return weights


def refuse_wrong_format(head: bytes, name: str) -> None:
    """Raise `RunError` where the first bytes of a file are what a failed download leaves."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not text:
        raise RunError(f"{name} is empty: download it again")
    if text.startswith(b"version https://git-lfs"):
        raise RunError(f"{name} is a Git LFS pointer, not the weights: fetch them with `git lfs pull`")
    if re.match(rb"<(!doctype|html|head|body|\?xml|!--)", text):
        raise RunError(f"{name} looks like an HTML page: the download link led to a page, not to the weights")


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
            f"{path.name} is no plain state dict (it is damaged, or holds other objects, which are never run): "
            "save it anew as torch.save(model.state_dict(), FILE)"
        ) from error
    except Exception as error:  # damaged bytes can raise nearly anything in an unpickler
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise RunError(f"{path.name} is not a readable checkpoint: {what}") from error


def _state_dict(loaded: Any, name: str) -> Weights:
    """The one state dict in what a torch file holds; raises `RunError` for none or several."""
    import torch

    for _ in range(len(CONTAINERS)):
        if not isinstance(loaded, Mapping):
            break
        if loaded and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in loaded.items()):
            return dict(loaded)
        inner = [key for key in CONTAINERS if isinstance(loaded.get(key), Mapping)]
        if len(inner) > 1:
            both = " and ".join(map(repr, inner))
            raise RunError(f"{name} holds several networks ({both}): save the one that you mean to a file of its own")
        if not inner:
            break
        loaded = loaded[inner[0]]
    raise RunError(f"{name} holds no state dict of tensors: save it anew as torch.save(model.state_dict(), FILE)")


def fit_weights(model: Tapped, weights: Weights, what: str) -> None:
    """Load `weights`, named as in the model; raises `RunError` with the first thing that does not fit."""
    own = model.state_dict()
    for key, value in own.items():
        if key not in weights:
            if key.endswith(COUNTER):
                weights[key] = value
                continue
            raise RunError(f"{what}: no weight {key!r} in the file; is it another architecture?")
        if weights[key].shape != value.shape:
            shapes = f"{tuple(weights[key].shape)} in the file, {tuple(value.shape)} in the model"
            raise RunError(f"{what}: weight {key!r} is {shapes}; {_why(own, key, weights[key])}")
    extra = sorted(set(weights) - set(own))
    if extra:
        raise RunError(f"{what}: the file has a weight {extra[0]!r} that the model lacks; is it another architecture?")
    model.load_state_dict(weights)


def _why(own: Mapping[str, torch.Tensor], key: str, found: torch.Tensor) -> str:
    """What a shape that does not fit is likely to mean."""
    wanted = own[key].shape
    stem = next((k for k, v in own.items() if v.dim() == 4), "")
    head = [k for k, v in own.items() if v.dim() == 2][-1:]
    if key == stem and found.dim() == 4 and (found.shape[0], found.shape[2:]) == (wanted[0], wanted[2:]):
        return f"it is made for images of {found.shape[1]} channels, not of {wanted[1]}"
    if [key] == head and found.dim() == 2 and found.shape[1] == wanted[1]:
        return f"its class count is {found.shape[0]}, not {wanted[0]}"
    return "is the class count or the architecture another?"


def check_finite(weights: Weights, what: str) -> None:
    """Raise `RunError` for weights that are no real numbers, or not finite."""
    for key, value in weights.items():
        if key.endswith(COUNTER):
            continue
        if not value.is_floating_point():
            raise RunError(f"{what}: weight {key!r} is {value.dtype}, not a floating-point number; is it quantised?")
        if not bool(value.isfinite().all()):
            raise RunError(f"{what} holds weights that are infinite or not a number (first {key!r})")


def payload_of(weights: Weights, normalisation: Normalisation | None = None) -> tuple[bytes, str]:
    """Weights as safetensors bytes, as the registry stores them, and their SHA-256.

    `normalisation` goes into the file, so that its hash covers it; None where it is the dataset's.
    """
    from safetensors.torch import save

    metadata = None
    if normalisation:
        metadata = {METADATA: json.dumps(dict(zip(("mean", "std"), map(list, normalisation), strict=True)))}
    payload = save({k: v.contiguous().cpu() for k, v in weights.items()}, metadata)
    return payload, sha256(payload)


def normalisation_in(path: Path) -> Normalisation | None:
    """The normalisation that `payload_of` wrote into a safetensors file; None where there is none, or another file."""
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get(METADATA)
    except (safetensors.SafetensorError, OSError):
        return None
    if said is None:
        return None
    try:
        table = parse_json(said)
        return tuple(map(float, table["mean"])), tuple(map(float, table["std"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path.name}: its metadata {METADATA!r} cannot be read: {said[:80]!r}") from error
