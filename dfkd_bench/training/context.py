"""The harness's side of the contract: the views, streams and registers that a method is given."""

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
    """Teacher or student as a method sees it: callable, counted, and closed to what was not declared."""

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
        """Names that `taps` accepts."""
        return self._module.tap_names

    @property
    def raw_taps(self) -> Mapping[str, str]:
        """Feature maps that can be had raw, and the taps that are that."""
        return self._module.raw_taps

    @property
    def tap_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tap without the batch, from a black image nobody is charged for."""
        training = self._module.training
        weights = next(self._module.parameters())
        black = torch.zeros((1, *self._image_shape), device=weights.device)
        with torch.no_grad():
            taps = self._module.eval().observe(black, self.tap_names).taps
        self._module.train(training)
        return {name: tuple(taps[name].shape[1:]) for name in self.tap_names}

    @property
    def feature_dim(self) -> int:
        """Width of the penultimate features."""
        return self._module.feature_dim

    @property
    def bn_statistics(self) -> tuple[Moments, ...]:
        """Running (mean, variance) of each BatchNorm layer, copies."""
        self._need("bn_statistics")
        return tuple((m.clone(), v.clone()) for m, v in self._module.running_moments())

    def _need(self, privilege: str) -> None:
        if self._role == "teacher" and not getattr(self._privileges, privilege):
            raise PrivilegeError(f"the method uses the teacher's {privilege} without declaring it in its Privileges")

    def check(self, taps: tuple[str, ...]) -> None:
        """Raise `PrivilegeError` for taps that need what was not declared."""
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
    """All that a method is given, and what the loop later saves of it. See `method.Context`."""

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
        self.slow_students: set[str] = set()  # names of those registered: they make no images
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
        """The same run for a part of it: views open to its own privileges; names and streams of its own if it has one.

        Everything else is shared. A part with a name is an add-on, which is granted nothing.
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
        """The random stream `name` of this run, or of this part of it."""
        return self.streams.get(f"addon/{self._part}/{name}" if self._part else f"method/{name}")

    def slow_student(self, name: str) -> SlowStudent:
        """A registered moving average of the student; see `addon.AddOnContext`."""
        average = self.register(name, EMA(self._networks[1], 1.0))
        self.slow_students.add(self._named(name))
        copied = average.module.eval()
        assert isinstance(copied, Tapped)
        return SlowStudent(self._view("student", copied), average.update)

    def place(self, obj: T) -> T:
        """Move a module to the device, in the memory format that convolutions like."""
        if isinstance(obj, nn.Module):
            place(obj, self.device)
        return obj

    def register(self, name: str, obj: T) -> T:
        """Hand over anything with a state dict."""
        name = self._new_name(name)
        if not (hasattr(obj, "state_dict") and hasattr(obj, "load_state_dict")):
            raise RunError(f"{name!r} has no state_dict and load_state_dict: keep plain values in context.state")
        self.registered[name] = self.place(obj)
        return obj

    def state(self, name: str, value: Any) -> State:
        """A checkpointed plain value."""
        name = self._named(name)
        if name in self.states:
            raise RunError(f"state {name!r} exists already: create each once, in setup")
        self.states[name] = State(value)
        return self.states[name]

    def companion(self, name: str, module: nn.Module) -> nn.Module:
        """A module trained with the student and dropped at export."""
        name = self._new_name(name)
        self.companions[name] = self.place(module)
        return module

    def grant(self, privilege: str) -> Any:
        """What a declared and allowed privilege opens."""
        known = list(Privileges.__dataclass_fields__)
        if privilege not in known:
            raise PrivilegeError(f"unknown privilege {privilege!r}{did_you_mean(privilege, known)}")
        if not getattr(self.privileges, privilege):
            raise PrivilegeError(f"the method asks for {privilege} without declaring it in its Privileges")
        if privilege not in self._allowed:
            raise PrivilegeError(f"{privilege} is not granted to this method: only the benchmark's bounds may have it")
        if self._real_data is None:
            raise PrivilegeError(f"there is nothing behind {privilege} in this run")
        data = self._real_data()
        self.register(f"granted/{privilege}", data)
        return data

    def asset(self, value: str) -> dict[str, Tensor]:
        """Tensors of a file of the user's, on the device."""
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
        """`function`, compiled where the run asks for it."""
        return self.meter.compiled(function) if self.compiles else function

    def autocast(self) -> AbstractContextManager[Any]:
        """The run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def count(self, *, synthesised: int = 0, stored: int = 0) -> None:
        """Report images made inside synthesis, and the change in what is stored."""
        self.meter.add("images_synthesised", synthesised)
        self.meter.add("images_stored", stored)
