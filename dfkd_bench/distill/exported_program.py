"""A teacher from a .pt2 file, read without running code from the file.

`torch.export.load` is not used: it unpickles (torch 2.15: weights, constants and sample inputs with
`weights_only=False` or `pickle.loads`), evaluates shape expressions as Python (`sympify`), and looks up operators below
`torch` by any dotted name, including `torch.load`. A .pt2 file is a zip with the graph as JSON and each weight as raw
bytes; only these are read here. The graph may call only ATen operators and integer arithmetic. Pickled entries are
refused without opening them; sample inputs and compiled parts are ignored.
"""

from __future__ import annotations

import operator
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.method import Moments
from dfkd_bench.models.tapped import Tapped, Trace, batch_moments, pooled
from dfkd_bench.utils.parse import LARGEST, parse_json

SCHEMA = 8  # supported major version of torch's export format
# codes of the format
DTYPES = {1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
          7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16}  # fmt: skip
FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "neg", "getitem", "eq", "ne", "lt", "le", "gt", "ge")
CHECKS = ("_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size")  # skipped
HEADS = {"linear": 0, "addmm": 1, "mm": 0, "matmul": 0, "conv2d": 0, "convolution": 0}  # operator -> index of its input
NORMS = ("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm")
TRAINING = {"batch_norm": 5, "native_batch_norm": 5, "cudnn_batch_norm": 5, "dropout": 2, "native_dropout": 2}
HOW_TO_EXPORT = (
    'torch.export.export(model.eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)) '
    "with two images or more"
)


@dataclass(frozen=True, eq=False)
class Step:
    """One operator of the graph: `args` and `kwargs` in the form of the file, and names of its outputs."""

    kind: str  # name of the operator without its overload
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A graph and its tensors by their names in the graph."""

    steps: tuple[Step, ...]
    image: str
    logits: str
    tensors: Mapping[str, Tensor]
    parameters: frozenset[str]


def read_program(path: Path) -> Program:
    """The program in a .pt2 file. Raises `UsageError` for a missing file, `RunError` if it cannot be read safely."""
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            return _program(archive, path.name)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise RunError(f"{path.name} is no program of torch.export.save that this version can read: {error}") from error


def _program(archive: zipfile.ZipFile, what: str) -> Program:
    files = {name.partition("/")[2]: name for name in archive.namelist()}

    def read(name: str) -> Any:
        with archive.open(files[name]) as file:
            return parse_json(file.read(LARGEST + 1))

    if "models/model.json" not in files:
        raise RunError(f"{what} is no program of torch.export.save (torch 2.8 or newer): save it again")
    model = read("models/model.json")
    if model["schema_version"]["major"] != SCHEMA:
        raise RunError(
            f"{what} has format {model['schema_version']['major']}, this version reads {SCHEMA}: export it again"
        )
    stored: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        if f"data/{kind}/model.pt" in files:
            raise RunError(f"{what} contains pickled {kind}, which are never opened: save it with a newer torch")
        for name, meta in read(f"data/{kind}/model_{kind}_config.json")["config"].items():
            if meta["use_pickle"] or meta["tensor_meta"] is None:
                raise RunError(f"{what} contains pickled objects ({name}), which are never opened: export only tensors")
            stored[name] = _tensor(archive.read(files[f"data/{kind}/{meta['path_name']}"]), meta["tensor_meta"])
    graph, signature = model["graph_module"]["graph"], model["graph_module"]["signature"]
    tensors, parameters, images = {}, set(), []
    for spec in signature["input_specs"]:
        ((role, entry),) = spec.items()
        if role == "user_input":
            images.append(entry["arg"]["as_tensor"]["name"])
            continue
        name = entry["arg"]["name"]
        tensors[name] = stored[entry[f"{role}_name"]]
        if role == "parameter":
            parameters.add(name)
    outputs = [spec.get("user_output") for spec in signature["output_specs"]]
    if None in outputs:
        raise RunError(f"{what} was exported in training mode (it changes its buffers): call model.eval() before")
    if len(images) != 1 or len(outputs) != 1:
        raise RunError(f"{what} has {len(images)} inputs and {len(outputs)} outputs, not one of each")
    steps = tuple(_step(node, what) for node in graph["nodes"])
    return Program(steps, images[0], outputs[0]["arg"]["as_tensor"]["name"], tensors, frozenset(parameters))


def _tensor(payload: bytes, meta: Mapping[str, Any]) -> Tensor:
    sizes, strides = ([s["as_int"] for s in meta[k]] for k in ("sizes", "strides"))
    dtype = DTYPES[meta["dtype"]]
    if not payload:
        return torch.zeros(sizes, dtype=dtype)
    flat = torch.frombuffer(bytearray(payload), dtype=dtype)
    try:
        return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"]).clone()
    except RuntimeError as error:  # more elements than bytes
        raise ValueError(str(error).splitlines()[0]) from error


def _step(node: Mapping[str, Any], what: str) -> Step:
    target = node["target"]
    args = tuple(a["arg"] for a in node["inputs"] if a["kind"] != 2)
    kwargs = {a["name"]: a["arg"] for a in node["inputs"] if a["kind"] == 2}
    outputs = []
    for output in node["outputs"]:
        ((kind, entry),) = output.items()
        if kind == "as_tensors":
            outputs += [one["name"] for one in entry]
        elif kind != "as_none":
            outputs.append(entry["name"] if kind == "as_tensor" else entry["as_name"])
    name, call = _operator(target, what)
    if name in TRAINING and len(args) > TRAINING[name] and args[TRAINING[name]].get("as_bool"):
        raise RunError(f"{what} was exported in training mode ({name} is active): call model.eval() before")
    return Step(name, call, args, kwargs, tuple(outputs))


def _operator(target: str, what: str) -> tuple[str, Callable[..., Any]]:
    refused = RunError(f"{what} calls {target}, which is not an allowed ATen operator: it is not run")
    if match := re.fullmatch(r"_operator\.(\w+)", target):
        if match[1] not in ARITHMETIC:
            raise refused
        return match[1], getattr(operator, match[1])
    match = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    packet = getattr(torch.ops.aten, match[1], None) if match else None
    if match is None or packet is None or match[2] not in packet.overloads():
        raise refused
    # `view` fails if the memory layout differs from the exported one; `reshape` copies then
    name = "reshape" if match[1] in ("view", "_unsafe_view") and match[2] == "default" else match[1]
    call = getattr(getattr(torch.ops.aten, name), match[2])
    if any(a.name in ("filename", "path", "file") for a in call._schema.arguments):
        raise refused
    return match[1].rstrip("_"), call


class Exported(Tapped):
    """An exported program as a `Tapped` classifier.

    `taps`: names of values of the graph; default: the last 4-D value at each resolution. Penultimate features are the
    input of the last linear operator with `classes` outputs per image, or of the operator with output `head`.
    BatchNorm operators are found in the graph. Raises `UsageError` if the program does not fit.
    """

    def __init__(
        self, program: Program, classes: int, image_shape: Sequence[int], taps: Sequence[str] = (), head: str = ""
    ) -> None:
        super().__init__()
        self.steps, self.image, self.logits_name = program.steps, program.image, program.logits
        self._names: dict[str, str] = {}  # name in the graph -> attribute of this module, which must not contain dots
        for name, tensor in program.tensors.items():
            self._names[name] = f"w_{len(self._names)}"
            if name in program.parameters and tensor.is_floating_point():
                self.register_parameter(self._names[name], nn.Parameter(tensor))
            else:
                self.register_buffer(self._names[name], tensor)
        self._norms = [
            step for step in self.steps
            if step.kind in NORMS and all(a.get("as_tensor", {}).get("name") in self._names for a in step.args[3:5])
        ]  # fmt: skip
        self._normed = {step.outputs[:1] for step in self._norms}
        self._set_taps_and_head(classes, tuple(image_shape), tuple(taps), head)

    @torch.no_grad()
    def _set_taps_and_head(self, classes: int, shape: tuple[int, ...], taps: tuple[str, ...], head: str) -> None:
        """Set taps and head, by rule unless they are given, from two zero images."""
        values: dict[str, Tensor] = {}
        try:
            self._run(torch.zeros(2, *shape), values)
        except RuntimeError as error:
            line = str(error).splitlines()[0]
            raise UsageError(
                f"the exported program does not accept two images of shape {shape} ({line}); if it was exported for a "
                f"fixed batch, export it with {HOW_TO_EXPORT}"
            ) from error
        logits = values[self.logits_name]
        if len(logits) != 2:
            raise UsageError(f"the program returns {len(logits)} rows for two images: export it with {HOW_TO_EXPORT}")
        names = [name for step in self.steps for name in step.outputs if isinstance(values.get(name), Tensor)]
        for name in (*taps, *([head] if head else [])):
            if name not in names:
                raise UsageError(f"the program has no value {name!r}{did_you_mean(name, names)}")
        # a convolution can be a head only if its kernel is 1x1
        linear = [
            s for s in self.steps
            if s.kind in HEADS and values[s.outputs[0]].shape[:2] == (2, classes)
            and (not s.kind.startswith("conv") or self._value(s.args[1], values).shape[2:].numel() == 1)
        ]  # fmt: skip
        head_step = next((s for s in self.steps if head in s.outputs), None) if head else linear[-1] if linear else None
        if head_step is None or head_step.kind not in HEADS:
            raise UsageError("the program has no linear operator with penultimate features: name one with --head")
        self._head = head_step
        before = names[: names.index(head_step.outputs[0])]
        last = {tuple(values[n].shape[2:]): n for n in before if values[n].dim() == 4 and values[n][0, 0].numel() > 1}
        self.tap_names = (*(taps or sorted(last.values(), key=names.index)), "penultimate")
        self.feature_dim = int(pooled(self._value(self._feature(), values)).shape[1])

    def _feature(self) -> Any:
        return self._head.args[HEADS[self._head.kind]]

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Run the graph on x (n, channels, height, width), record what `t` requests, and return the logits."""
        values: dict[str, Tensor] = {}
        logits = self._run(x, values, t)
        for name in self.tap_names[:-1]:
            if name in t.wanted:
                t.tap(name, values[name])
        if "penultimate" in t.wanted:
            t.tap("penultimate", pooled(self._value(self._feature(), values)))
        return logits

    def _run(self, x: Tensor, values: dict[str, Any], t: Trace | None = None) -> Tensor:
        values[self.image] = x
        for name, attribute in self._names.items():
            values[name] = getattr(self, attribute)
        for step in self.steps:
            if step.kind in CHECKS:
                continue
            args = [self._value(a, values) for a in step.args]
            if t is not None and step.outputs[:1] in self._normed:
                if t.moments is not None:
                    t.moments.append(batch_moments(args[0]))
                if t.means is not None:
                    t.means.append(at_least_fp32(args[0]).flatten(2).mean(2))
            result = step.call(*args, **{k: self._value(a, values) for k, a in step.kwargs.items()})
            several = isinstance(result, tuple | list)
            values.update(zip(step.outputs, result if several else (result,), strict=False))
        logits: Tensor = values[self.logits_name]
        return logits

    def _value(self, arg: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """An argument of the graph as a value for the operator."""
        ((kind, entry),) = arg.items()
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return values[entry["name"]]
            case "as_tensors":
                return [values[one["name"]] for one in entry]
            case "as_optional_tensors":
                return [self._value(one, values) for one in entry]
            case "as_sym_int" | "as_sym_bool" | "as_sym_float":
                return self._number(entry, values)
            case "as_sym_ints" | "as_sym_bools" | "as_sym_floats":
                return [self._number(one, values) for one in entry]
            case "as_scalar_type":
                return DTYPES[entry]
            case "as_memory_format":
                return FORMATS[entry]
            case "as_device":  # device of the export; the program runs on the device of its weights
                return next(iter(self.parameters())).device
            case "as_layout":
                return torch.strided
            case "as_int" | "as_ints" | "as_float" | "as_floats" | "as_bool" | "as_bools" | "as_string":
                return entry
        raise RunError(f"the exported program has an argument of kind {kind[3:]}, which is not supported")

    @staticmethod
    def _number(entry: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        ((kind, value),) = entry.items()
        return values[value] if kind == "as_name" else value

    def running_moments(self) -> tuple[Moments, ...]:
        """Running (mean, variance) of every BatchNorm operator, in the order of the graph."""
        stored = {name: getattr(self, attribute) for name, attribute in self._names.items()}
        pairs = ([self._value(a, stored) for a in step.args[3:5]] for step in self._norms)
        return tuple((at_least_fp32(mean), at_least_fp32(variance)) for mean, variance in pairs)
