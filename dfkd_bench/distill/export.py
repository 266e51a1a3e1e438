"""Write a student as safetensors with metadata, as a torch.export program and as ONNX, and check the files."""

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

KEY = "dfkd_bench"  # the only entry: safetensors writes several entries in no fixed order, so the digest would change
TOLERANCE = 1e-3  # largest difference between the logits of file and student, relative to the largest logit


def check_possible(forms: tuple[str, ...]) -> None:
    """Raise `UsageError` if a requested format needs a package that is not installed."""
    if "onnx" in forms and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UsageError("--export onnx needs the extra: pip install 'dfkd-bench[onnx]'")


def unwrapped(model: Tapped) -> nn.Module:
    """The network without the `Hooked` wrapper."""
    from dfkd_bench.models.tapped import Hooked

    return model.module if isinstance(model, Hooked) else model


def weights_file(model: Tapped, about: Mapping[str, Any]) -> bytes:
    """Weights and buffers as safetensors bytes, with `about` as JSON in the metadata."""
    from safetensors.torch import save

    tensors = {k: v.detach().contiguous().cpu().clone() for k, v in unwrapped(model).state_dict().items()}
    return save(tensors, {KEY: json.dumps(about, sort_keys=True)})


def program_file(model: Tapped, image_shape: tuple[int, int, int]) -> tuple[bytes, str]:
    """The student as a torch.export program for any batch size, and what was checked. Raises `RunError` on failure."""
    import torch

    from dfkd_bench.distill.exported_program import Exported, read_program

    network, images = prepare(model, image_shape)
    try:
        with quiet_exporters():
            program = torch.export.export(network, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
            buffer = io.BytesIO()
            torch.export.save(program, buffer)
    except Exception as error:  # the exporter raises many types, without advice for the user
        raise export_error("torch.export", error) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.pt2"
        path.write_bytes(buffer.getvalue())
        with torch.no_grad():
            expected = network(images)
            loaded = Exported(read_program(path), expected.shape[1], image_shape).eval()
            compare("torch.export", loaded(images), expected)
    return buffer.getvalue(), f"read back: logits of {len(images)} images equal the student's"


def onnx_file(model: Tapped, image_shape: tuple[int, int, int]) -> tuple[bytes, str]:
    """The student as an ONNX model for any batch size, and what was checked. Raises `RunError` on failure.

    The check runs it with onnxruntime if that is installed, otherwise with ONNX's reference implementation.
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
    inputs = {"images": images.numpy()}
    if find_spec("onnxruntime"):
        import onnxruntime

        runner, name = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"]), "onnxruntime"
    else:
        from onnx.reference import ReferenceEvaluator

        runner, name = ReferenceEvaluator(onnx.load_from_string(payload)), "onnx.reference"
    with torch.no_grad():
        compare("ONNX", torch.from_numpy(runner.run(None, inputs)[0]), network(images))
    return payload, f"checked and run by {name}: logits of {len(images)} images equal the student's"


def prepare(model: Tapped, image_shape: tuple[int, int, int]) -> tuple[nn.Module, Tensor]:
    """The network on the CPU in eval mode, and three noise images for the comparison."""
    import torch

    images = torch.randn(3, *image_shape, generator=torch.Generator().manual_seed(0))
    return unwrapped(model).cpu().to(memory_format=torch.contiguous_format).eval(), images


def compare(what: str, logits: Tensor, expected: Tensor) -> None:
    """Raise `RunError` unless logits (n, classes) are equal within `TOLERANCE`."""
    difference = float((logits - expected).abs().max()) if logits.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE * float(expected.abs().max()):
        raise RunError(f"logits of the {what} file differ from the student's (difference {difference:.2g})")


def export_error(what: str, error: Exception) -> RunError:
    """A `RunError` in one line from an exporter's error."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RunError(f"the student cannot be written as {what}: {line[:200]} (leave out --export; --debug shows where)")


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Suppress warnings and log lines of the exporters, which do not concern the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
