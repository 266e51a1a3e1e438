"""The harness's side of the contract: the views of networks, random streams and registries that a method gets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor, nn

from dfkd_bench.addon import SlowStudent
from dfkd_bench.blocks.ema import EMA
from dfkd_bench.errors import PrivilegeError, RunError, did_you_mean
from dfkd_bench.method import Moments, Network, Outputs, Privileges, Progress, RealData, State, TaskFacts
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.training.meter import Meter
from dfkd_bench.utils.hashing import sha256
from dfkd_bench.utils.seeding import Streams

T = TypeVar("T")


class NetworkView:
    """Teacher or student as a method gets it: calls are counted, and undeclared privileges raise."""

    def __init__(
        self,
        role: str,
        module: Tapped,
        privileges: Privileges,
        meter: Meter,
        autocast: Callable[[], Any],
        image_shape: tuple[int, int, int],
    ) -> None:
        self._role, self._module, self._privileges, self._image_shape = role, module, privileges, image_shape
        self._meter, self._autocast = meter, autocast

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The names that `taps` accepts."""
        return self._module.tap_names

    @property
    def raw_taps(self) -> Mapping[str, str]:
        """Feature map -> its raw tap; see `method.Network`."""
        return self._module.raw_taps

    @property
    def tap_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tap without the batch, measured on one zero image; this forward is not counted."""
        training = self._module.training
        weights = next(self._module.parameters())
        zeros = torch.zeros((1, *self._image_shape), device=weights.device)
        with torch.no_grad():
            taps = self._module.eval().observe(zeros, self.tap_names).taps
        self._module.train(training)
        return {name: tuple(taps[name].shape[1:]) for name in self.tap_names}

    @property
    def feature_dim(self) -> int:
        """Length d of the penultimate features (n, d)."""
        return self._module.feature_dim

    @property
    def bn_statistics(self) -> tuple[Moments, ...]:
        """Copies of the running (mean, variance) of each BatchNorm layer, (channels,) each."""
        self._need("bn_statistics")
        return tuple((m.clone(), v.clone()) for m, v in self._module.running_moments())

    def _need(self, privilege: str) -> None:
        if self._role == "teacher" and not getattr(self._privileges, privilege):
            raise PrivilegeError(f"the method uses the teacher's {privilege} without declaring it in its Privileges")

    def check(self, taps: tuple[str, ...]) -> None:
        """Raise `PrivilegeError` for taps that need an undeclared privilege."""
        for tap in taps:
            self._need("penultimate" if tap == "penultimate" else "stage_maps")

    def __call__(self, images: Tensor, *, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        """Forward; see `method.Network`."""
        if moments:
            self._need("bn_statistics")
        self.check(taps)
        if images.requires_grad and torch.is_grad_enabled():
            self._need("gradients")
        images = self._meter.watch(self._role, images)
        with self._autocast():
            return self._module.observe(images, taps, moments)


class RunContext:
    """What a method gets, and what checkpoints save of it. See `method.Context`."""

    def __init__(
        self,
        teacher: Tapped,
        student: Tapped,
        task: TaskFacts,
        device: torch.device,
        seed: int,
        privileges: Privileges,
        *,
        precision: str = "fp32",
        compile: bool = False,
        allowed: frozenset[str] = frozenset(),
        real_data: Callable[[], RealData] | None = None,
    ) -> None:
        self.task, self.device = task, device
        self.progress, self.meter = Progress(), Meter(device)
        self.streams = Streams(seed, device)
        self.registered: dict[str, Any] = {}
        self.states: dict[str, State] = {}
        self.companions: dict[str, nn.Module] = {}
        self.slow_students: set[str] = set()  # their names in `registered`: they are not part of the generator
        self._allowed, self._real_data = allowed, real_data
        self.precision, self.compiles = precision, compile
        self._networks, self._part = (teacher, student), ""
        self._open(privileges)

    def _open(self, privileges: Privileges) -> None:
        self.privileges = privileges
        teacher, student = self._networks
        self.teacher: Network = self._view("teacher", teacher)
        self.student: Network = self._view("student", student)

    def _view(self, role: str, network: Tapped) -> NetworkView:
        return NetworkView(role, network, self.privileges, self.meter, self.autocast, self.task.image_shape)

    def scoped(self, part: str, privileges: Privileges) -> RunContext:
        """A context of the same run for the method (`part` "") or an add-on, with its own privileges.

        An add-on has its own namespace for registered names and streams, and is granted no real data. Everything else
        is shared.
        """
        other = copy.copy(self)
        other._part = part
        if part:
            other._allowed, other._real_data = frozenset(), None
        other._open(privileges)
        return other

    def _named(self, name: str) -> str:
        return f"{self._part}/{name}" if self._part else name

    def _new_name(self, name: str) -> str:
        name = self._named(name)
        if name in self.registered or name in self.companions:
            raise RunError(f"{name!r} is registered twice: register each object once, in setup")
        return name

    def stream(self, name: str) -> torch.Generator:
        """The random stream `name` of the method or add-on."""
        return self.streams.get(f"addon/{self._part}/{name}" if self._part else f"method/{name}")

    def slow_student(self, name: str) -> SlowStudent:
        """Register a moving average of the student; see `addon.AddOnContext`."""
        average = self.register(name, EMA(self._networks[1], 1.0))
        self.slow_students.add(self._named(name))
        copied = average.module.eval()
        assert isinstance(copied, Tapped)
        return SlowStudent(self._view("student", copied), average.update)

    def place(self, obj: T) -> T:
        """Move a module to the device, in the memory format channels_last."""
        if isinstance(obj, nn.Module):
            place(obj, self.device)
        return obj

    def register(self, name: str, obj: T) -> T:
        """Register an object with a state dict. Raises `RunError` for a repeated name or without a state dict."""
        name = self._new_name(name)
        if not (hasattr(obj, "state_dict") and hasattr(obj, "load_state_dict")):
            raise RunError(f"{name!r} has no state_dict and load_state_dict: keep plain values in context.state")
        self.registered[name] = self.place(obj)
        return obj

    def state(self, name: str, value: Any) -> State:
        """Create a checkpointed plain value. Raises `RunError` for a repeated name."""
        name = self._named(name)
        if name in self.states:
            raise RunError(f"state {name!r} exists already: create each once, in setup")
        self.states[name] = State(value)
        return self.states[name]

    def companion(self, name: str, module: nn.Module) -> nn.Module:
        """Register a module that is trained with the student and not exported. Raises `RunError` as `register`."""
        name = self._new_name(name)
        self.companions[name] = self.place(module)
        return module

    def grant(self, privilege: str) -> Any:
        """The data of a privilege. Raises `PrivilegeError` if it is not both declared and allowed."""
        known = list(Privileges.__dataclass_fields__)
        if privilege not in known:
            raise PrivilegeError(f"unknown privilege {privilege!r}{did_you_mean(privilege, known)}")
        if not getattr(self.privileges, privilege):
            raise PrivilegeError(f"the method asks for {privilege} without declaring it in its Privileges")
        if privilege not in self._allowed:
            raise PrivilegeError(f"{privilege} is not granted to this method: only the benchmark's bounds may have it")
        if self._real_data is None:
            raise PrivilegeError(f"this run has no data for {privilege}")
        data = self._real_data()
        self.register(f"granted/{privilege}", data)
        return data

    def asset(self, value: str) -> dict[str, Tensor]:
        """The tensors of a user's safetensors file, on the device. `value`: `path#sha256`.

        Raises `PrivilegeError` without the privilege external_model, `RunError` if the file is unreadable or changed.
        """
        if not self.privileges.external_model:
            raise PrivilegeError("the method opens a file of outside knowledge without declaring external_model")
        path, _, sha = value.rpartition("#")
        try:
            payload = Path(path).read_bytes()
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from error
        if sha256(payload) != sha:
            raise RunError(f"{path} is not the file that this run began with (SHA-256 {sha[:12]})")
        try:
            return {k: v.to(self.device) for k, v in from_bytes(payload).items()}
        except SafetensorError as error:
            raise RunError(f"{path} is not a safetensors file: {error}") from error

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, compiled if the run has --compile."""
        return self.meter.compiled(function) if self.compiles else function

    def autocast(self) -> AbstractContextManager[Any]:
        """A context manager of the run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def count(self, *, synthesised: int = 0, stored: int = 0) -> None:
        """Count images made inside synthesis, and the change in the number of stored images."""
        self.meter.add("images_synthesised", synthesised)
        self.meter.add("images_stored", stored)
