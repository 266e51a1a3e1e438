"""Classifiers of users: built by a factory function, or read from an exported program.

A factory is `module:function` (on sys.path or in the current folder) or `path/file.py:function`. It is the user's code
and is run. Code inside a weight file is never run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dfkd_bench.errors import BenchError, RunError, UsageError, did_you_mean
from dfkd_bench.models import ARCHITECTURES, Architecture, Shape, architecture, build
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.plugins.registry import code_digest
from dfkd_bench.utils.parse import parse_json

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dfkd_bench.models.tapped import Tapped

FORM = "module:factory or path/file.py:factory"


@dataclass(frozen=True)
class UserTeacher:
    """A user's teacher: its file and how to load and observe it. Each call of `load` builds a new model."""

    file: Path
    arch: str  # a name of `models.ARCHITECTURES`, a factory, or "" for an exported program
    classes: int
    image_shape: Shape
    taps: tuple[str, ...] = ()
    head: str = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file and of the factory's code. Raises `UsageError` if either is missing."""
        try:
            digest = hashlib.sha256(self.file.read_bytes())
        except OSError as error:
            raise UsageError(f"cannot read teacher {self.file}: {error.strerror}") from error
        if ":" in self.arch:
            digest.update(factory_digest(self.arch).encode())
        return digest.hexdigest()

    def load(self, device: torch.device) -> Tapped:
        """The teacher, frozen, in eval mode, on `device`. Raises `UsageError` or `RunError` if they do not fit."""
        from dfkd_bench.teachers.registry import fit_weights, freeze, read_weights

        if self.file.suffix == ".pt2":
            from dfkd_bench.distill.exported_program import Exported, read_program

            if self.arch:
                raise UsageError("a .pt2 file contains its architecture: leave out --arch")
            program = read_program(self.file)
            return freeze(Exported(program, self.classes, self.image_shape, self.taps, self.head), device)
        if not self.arch:
            raise UsageError(f"give the architecture of {self.file.name}: --arch NAME or --arch {FORM}")
        weights = read_weights(self.file)
        if ":" not in self.arch:
            if self.taps or self.head:
                raise UsageError(f"--taps and --head are for other models: {self.arch} defines its own")
            model = build(self.arch, self.classes, self.image_shape)
            fit_weights(model, weights, self.file.name)
            return freeze(model, device)
        module = call_factory(self.arch, self.classes)
        fit_weights(cast("Tapped", module), weights, self.file.name)  # it uses only the state dict
        return freeze(wrap(module, self.arch, self.classes, self.image_shape, self.taps, self.head), device)


def metadata_of(path: Path) -> dict[str, Any]:
    """classes, shape, mean, std and arch stored in a student file of `distill`; empty for any other file.

    A factory named in the file is ignored: a file must not decide which code runs.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    import safetensors

    from dfkd_bench.distill.export import KEY

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            stored = parse_json((file.metadata() or {})[KEY])
        channels, height, width = map(int, stored["shape"])
        mean, std = (list(map(float, stored[k])) for k in ("mean", "std"))
        metadata = {"classes": int(stored["classes"]), "shape": [channels, height, width], "mean": mean, "std": std}
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OSError):
        return {}
    return metadata | ({"arch": stored["arch"]} if stored.get("arch") in ARCHITECTURES else {})


def check_name(word: str) -> None:
    """Raise `UsageError` unless `word` is a known architecture or an existing factory."""
    if ":" in word:
        factory(word)
    else:
        architecture(word)


def factory(word: str) -> Callable[..., Any]:
    """The factory named `word`. Raises `UsageError` if there is none, `RunError` if its module fails to import."""
    module, name = _split(word)
    try:
        loaded = _import(module)
    except ModuleNotFoundError as error:
        if error.name and (error.name == module or module.startswith(error.name + ".")):
            raise UsageError(f"no module {module!r} here or on sys.path: a factory is {FORM}") from error
        raise RunError(f"{module} cannot be imported: {error}") from error
    except (KeyboardInterrupt, BenchError):
        raise
    except BaseException as error:  # a user's module may raise anything, SystemExit included
        raise RunError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(loaded, name, None)
    if not callable(function):
        known = [n for n, v in vars(loaded).items() if callable(v) and not n.startswith("_")]
        raise UsageError(f"{module} has no factory {name!r}{did_you_mean(name, known)}")
    return cast(Callable[..., Any], function)


def factory_digest(word: str) -> str:
    """SHA-256 of the factory's file and of the files in its folder that it imports."""
    module, name = _split(word)
    factory(word)  # puts the current folder on sys.path, where the source is searched
    if module.endswith(".py"):
        return code_digest(Entry(word, f"{Path(module).resolve()}:{name}", "file", "-"))
    return code_digest(Entry(word, f"{module}:{name}", "own", "-"))


def _split(word: str) -> tuple[str, str]:
    module, colon, name = word.rpartition(":")
    if not (module and colon and name.isidentifier()):
        raise UsageError(f"a factory is {FORM}, got {word!r}")
    if module.endswith(".py") and not Path(module).is_file():
        raise UsageError(f"no such file: {module}")
    return module, name


def _import(module: str) -> Any:
    if not module.endswith(".py"):
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(module)
    path = Path(module).resolve()
    alias = "_dfkd_bench_model_" + re.sub(r"\W", "_", str(path))
    if alias in sys.modules:
        return sys.modules[alias]
    spec = importlib.util.spec_from_file_location(alias, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[alias] = loaded  # dataclasses need their module there
    sys.path.insert(0, str(path.parent))  # as for a script: files of the same folder can be imported
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[alias]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return loaded


def call_factory(word: str, classes: int) -> nn.Module:
    """The module that a factory returns, called with `num_classes` or `classes` if it accepts either.

    Raises `RunError` if the factory fails, `UsageError` if it returns no `torch.nn.Module`.
    """
    from torch import nn

    call = factory(word)
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    options = {k: classes for k in ("num_classes", "classes") if k in parameters}
    if not options and any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        options = {"num_classes": classes}  # the name in torchvision and timm
    try:
        model = call(**options)
    except (KeyboardInterrupt, BenchError):
        raise
    except BaseException as error:
        raise RunError(f"factory {word} failed: {type(error).__name__}: {error}".splitlines()[0]) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"factory {word} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def wrap(module: nn.Module, what: str, classes: int, shape: Shape, taps: Sequence[str] = (), head: str = "") -> Tapped:
    """`module` as a `Tapped`; taps and head are found by these rules unless they are given.

    The module is called once on a zero image (1, *shape). Head: the last called linear layer (or 1x1 convolution) with
    an output of (1, classes). Taps: for each resolution above one pixel, from large to small, the last 4-D output
    before the head, of the outermost module that returns one. A `Tapped` is returned unchanged. Raises `UsageError` if
    the model does not accept the image or no head is found.
    """
    import torch
    from torch import Tensor, nn

    from dfkd_bench.models.tapped import Hooked, Tapped

    if isinstance(module, Tapped):
        return module
    calls: list[tuple[str, nn.Module, tuple[int, ...]]] = []  # in the order of their ends
    handles = [
        m.register_forward_hook(
            lambda _m, _i, out, n=n, m=m: calls.append((n, m, tuple(out.shape) if isinstance(out, Tensor) else ()))
        )
        for n, m in module.named_modules() if n
    ]  # fmt: skip
    training = module.training
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *shape))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{what} does not accept an image of shape {'x'.join(map(str, shape))}: {line}") from error
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    heads = [n for n, m, out in calls if _is_head(m) and out[:2] == (1, classes)]
    if not head and not heads:
        raise UsageError(
            f"{what} has no linear layer with {classes} outputs: check --classes, or name the layer with --head"
        )
    head = head or heads[-1]
    names = [n for n, _, _ in calls]
    end = names.index(head) if head in names else len(calls)
    called = {n for n, m, _ in calls if isinstance(m, nn.BatchNorm2d)}
    unused = [n for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d) and n not in called]
    return Hooked(module, tuple(taps) or _stages([(n, out) for n, _, out in calls[:end]]), head, unused)


def _is_head(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1})


def _stages(calls: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[str, ...]:
    """Names of the stage taps among the calls (module, output shape), from input to output."""
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for name, shape in calls:
        shapes.setdefault(name, set()).add(shape)
    taps: dict[tuple[int, ...], str] = {}
    for name, shape in calls:
        if len(shape) != 4 or shape[2:] == (1, 1) or len(shapes[name]) > 1:  # no tap: a layer shared by stages
            continue
        earlier = taps.get(shape[2:])
        if earlier is None or name.count(".") <= earlier.count("."):
            taps[shape[2:]] = name
    order = [name for name, _ in calls]
    return tuple(sorted(dict.fromkeys(taps.values()), key=lambda n: len(order) - order[::-1].index(n)))


def register_student(word: str) -> str:
    """The name of student `word` for `models.build`; a factory is added to `ARCHITECTURES` of this process."""
    check_name(word)
    if ":" in word and word not in ARCHITECTURES:
        ARCHITECTURES[word] = Architecture(build_student, {"word": word}, "a factory", sized=True)
    return word


def build_student(word: str, classes: int, image_shape: Shape) -> Tapped:
    """A new student of a factory, with taps and head found by `wrap`."""
    return wrap(call_factory(word, classes), word, classes, image_shape)
