"""A student as files: safetensors with what one must know to use it, torch.export programs, ONNX; each read back."""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import RunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from dfkd_bench.models.tapped import Tapped

KEY = "dfkd_bench"  # one entry alone: safetensors writes several in no fixed order, which would change the file's hash
TOLERANCE = 1e-3  # largest difference between the logits of a file and the student's, as a share of the largest logit


def check_possible(forms: tuple[str, ...]) -> None:
    """Raise `UsageError` where a format asked for needs what is not installed."""
    if "onnx" in forms and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UsageError("--export onnx needs the extra: pip install 'dfkd-bench[onnx]'")


def unwrapped(model: Tapped) -> nn.Module:
    """The network itself, without the adapter that observes it."""
    from dfkd_bench.models.tapped import Hooked

    return model.module if isinstance(model, Hooked) else model


def weights_file(model: Tapped, about: Mapping[str, Any]) -> bytes:
    """Weights and buffers as safetensors bytes, `about` as JSON in their metadata."""
    from safetensors.torch import save

    tensors = {k: v.detach().contiguous().cpu().clone() for k, v in unwrapped(model).state_dict().items()}
    return save(tensors, {KEY: json.dumps(about, sort_keys=True)})


def program_file(model: Tapped, image_shape: tuple[int, int, int]) -> tuple[bytes, str]:
    """The student as a torch.export program for any batch, and what was checked. Raises `RunError` if it cannot be."""
    import torch

    from dfkd_bench.distill.exported_program import Exported, read_program

    network, images = prepare(model, image_shape)
    try:
        with quiet_exporters():
            program = torch.export.export(network, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
            buffer = io.BytesIO()
            torch.export.save(program, buffer)
    except Exception as error:  # the exporter raises many kinds, none of which says what to do
        raise export_error("torch.export", error) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.pt2"
        path.write_bytes(buffer.getvalue())
        with torch.no_grad():
            wanted = network(images)
            again = Exported(read_program(path), wanted.shape[1], image_shape).eval()
            compare("torch.export", again(images), wanted)
    return buffer.getvalue(), f"read back: logits of {len(images)} images equal the student's"


def onnx_file(model: Tapped, image_shape: tuple[int, int, int]) -> tuple[bytes, str]:
    """The student as an ONNX model for any batch, and what was checked. Raises `RunError` if it cannot be.

    It is run by onnxruntime where that is installed, else by ONNX's own reference implementation.
    """
    import onnx
    import torch

    network, images = prepare(model, image_shape)
    try:
        with quiet_exporters():
            program = torch.onnx.export(
                network, (images[:2],), dynamo=True, verbose=False, input_names=["images"], output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
            assert program is not None
            payload: bytes = program.model_proto.SerializeToString()
            onnx.checker.check_model(payload, full_check=True)
    except Exception as error:  # as above
        raise export_error("ONNX", error) from error
    fed = {"images": images.numpy()}
    if find_spec("onnxruntime"):
        import onnxruntime

        runner, name = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"]), "onnxruntime"
    else:
        from onnx.reference import ReferenceEvaluator

        runner, name = ReferenceEvaluator(onnx.load_from_string(payload)), "onnx.reference"
    with torch.no_grad():
        compare("ONNX", torch.from_numpy(runner.run(None, fed)[0]), network(images))
    return payload, f"checked and run by {name}: logits of {len(images)} images equal the student's"


def prepare(model: Tapped, image_shape: tuple[int, int, int]) -> tuple[nn.Module, Tensor]:
    """The network on the CPU in eval mode, and three images (of noise) to compare by."""
    import torch

    images = torch.randn(3, *image_shape, generator=torch.Generator().manual_seed(0))
    return unwrapped(model).cpu().to(memory_format=torch.contiguous_format).eval(), images


def compare(what: str, found: Tensor, wanted: Tensor) -> None:
    """Raise `RunError` unless two tables of logits are equal but for rounding."""
    gap = float((found - wanted).abs().max()) if found.shape == wanted.shape else float("inf")
    if not gap <= TOLERANCE * float(wanted.abs().max()):
        raise RunError(f"the student as {what} says something else than the student (difference {gap:.2g})")


def export_error(what: str, error: Exception) -> RunError:
    """What to say of an exporter's error."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RunError(f"the student cannot be written as {what}: {line[:200]} (leave out --export; --debug shows where)")


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Exporters talk a lot; nothing of it concerns the user of a student."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
