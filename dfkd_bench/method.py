"""The contract of a method: everything its author needs to know.

A method is a class with a frozen config dataclass. The harness creates it, gives it a `Context`, and calls it for
images and losses. The harness is responsible for the student, its optimiser and schedule, precision, evaluation,
checkpoints, budget and counting. Only `synthesize` and `sample` are mandatory. `methods/README.md` explains an example.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.errors import RunError
from dfkd_bench.recipe import StudentRecipe

__all__ = [
    "Batch", "Context", "Flags", "Method", "Moments", "Network", "Outputs", "Privileges", "Progress", "RealData",
    "StudentRecipe", "TaskFacts", "setting",
]  # fmt: skip

T = TypeVar("T")
Mode = Literal["eval", "train", "train_keep_stats"]
Moments = tuple[Tensor, Tensor]
"""Mean and biased variance of one BatchNorm layer's input, each (channels,), fp32."""


def setting(default: T, help: str, *, choices: Sequence[T] | None = None, unit: str = "", privilege: str = "") -> T:
    """A field of a config dataclass with a help text of one line, shown by `dfkd-bench show`.

    `choices` are the allowed values, `unit` is printed after the help text. With unit `file` the value is a path; the
    run identifies the file by its content (`path#sha256`), and `Context.asset` opens it. `privilege` is one of the
    method's `Privileges` that is needed only if this setting is not 0; with 0, the method also runs on teachers that
    cannot provide it.
    """
    metadata = {"help": help, "choices": tuple(choices) if choices else None, "unit": unit, "privilege": privilege}
    value: T = field(default=default, metadata=metadata)
    return value


@dataclass(frozen=True)
class Privileges:
    """What a method uses besides the teacher's logits. Undeclared use is refused; the leaderboard shows it."""

    gradients: bool = False  # back-propagates through the teacher to the images
    bn_statistics: bool = False  # running mean and variance of the teacher's BatchNorm layers
    penultimate: bool = False  # the teacher's features before its last linear layer
    stage_maps: bool = False  # feature maps inside the teacher
    class_names: bool = False  # names of the classes
    external_model: bool = False  # any other trained model (a text encoder, a diffusion model, ...)
    unlabelled_data: bool = False  # real images of any origin
    real_data: bool = False  # the task's own training set; only the bounds may have it

    def declared(self) -> list[str]:
        """Names of the declared privileges, in the order of the fields."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name)]


@dataclass(frozen=True)
class Flags:
    """How the training loop calls a method."""

    synthesis_steps: int = 1  # calls of synthesize() per round
    warmup_synthesis_steps: int = 0  # the same in the warm-up; 0 means `synthesis_steps`
    student_steps: int = 5  # calls of sample() and student updates per round
    rounds_per_epoch: int = 50  # length of an epoch on the recipe track; the pinned track sets its own
    warmup_rounds: int = 0  # rounds before the first with synthesis only, not counted in schedule and image budget
    warmup_fraction: float = 0.0  # additional warm-up rounds, as a fraction of the run's rounds
    order: Literal["synthesise_first", "distill_first"] = "synthesise_first"
    # the student's mode in synthesize(); a tuple has one mode per call in a round, the last one for all later calls
    student_mode: Mode | tuple[Mode, ...] = "eval"
    rowwise: bool = False  # rows of a sample are independent: the batches of a round may be drawn in one call
    # taps of teacher and student needed in distill_loss; "stages": all feature maps of each network; "stages_raw": the
    # same, but each as its raw tap if there is one (see Network.raw_taps)
    distill_taps: tuple[str, ...] = ()
    teacher_in_distillation: bool = True  # False: no teacher forward, and distill_loss gets no teacher output

    def calls(self, warmup: bool) -> int:
        """Calls of synthesize() in a round, in the warm-up or after it."""
        return self.warmup_synthesis_steps if warmup and self.warmup_synthesis_steps else self.synthesis_steps

    def mode(self, call: int) -> Mode:
        """The student's mode in call number `call` of synthesize(), from 0 in each round."""
        modes = (self.student_mode,) if isinstance(self.student_mode, str) else self.student_mode
        return modes[min(call, len(modes) - 1)]


@dataclass(frozen=True, eq=False)
class Batch:
    """What `sample` returns. If it returns the same object again, the teacher's last output is reused.

    images: (n, channels, height, width) in the teacher's normalised input space; labels: (n,) int64 pseudo-labels;
    weights: (n,) per-sample weights; latents: (n, ...), from which the images were made.
    """

    images: Tensor
    labels: Tensor | None = None
    weights: Tensor | None = None
    latents: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Outputs:
    """Output of a network for a batch: logits (n, classes) in fp32, the requested taps, BN moments if requested."""

    logits: Tensor
    taps: Mapping[str, Tensor]
    moments: tuple[Moments, ...] = ()

    @property
    def features(self) -> Tensor:
        """Penultimate features (n, d) after global pooling; raises `RunError` if they were not requested."""
        if "penultimate" not in self.taps:
            raise RunError("penultimate features were not requested: pass taps=('penultimate',)")
        return self.taps["penultimate"]


class Network(Protocol):
    """A read-only view of teacher or student. Forwards and backwards through it are counted."""

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names that `taps` accepts, from input to output; the last one is `penultimate`.

        In addition, `bn_means` gives the means over space of all BatchNorm layers' inputs, (n, channels of all layers).
        """

    @property
    def raw_taps(self) -> Mapping[str, str]:
        """Tap -> name of another tap: the same feature map before the network's last BatchNorm and ReLU.

        Pre-activation networks apply these two after the last group: `stage3` of a WRN is after them, `stage3_raw` is
        the group's output. Empty for networks whose blocks end in a ReLU, and for user models.
        """

    @property
    def tap_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tap without the batch: (channels, height, width), or (d,) for `penultimate`."""

    @property
    def feature_dim(self) -> int:
        """Width d of the penultimate features."""

    @property
    def bn_statistics(self) -> tuple[Moments, ...]:
        """Running (mean, variance) of every BatchNorm layer, fp32, in the order of `Outputs.moments`."""

    def __call__(self, images: Tensor, *, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        """Forward `images` (n, channels, height, width); raises `PrivilegeError` for undeclared taps or moments."""


@dataclass(frozen=True)
class TaskFacts:
    """Facts of a task that every method may use."""

    name: str
    classes: int
    image_shape: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    batch_size: int  # of student batches; the pinned track fixes it
    generator_width: int  # base channels of generators; the pinned track fixes it
    crop_padding: int = 0  # augmentation that keeps the class: random crop with this padding, in pixels
    flip: bool = False  # and whether a horizontal flip keeps the class


@dataclass
class Progress:
    """Position in the run, as counts (never time). Methods read it; only the loop changes it."""

    epoch: int = 0
    round: int = 0  # negative in the warm-up, whose last round is -1
    synthesis_step: int = 0  # calls of synthesize() before this one in the round
    student_step: int = 0
    epochs: int = 1
    rounds: int = 1
    warmup_rounds: int = 0  # rounds with synthesis only, before all others
    student_steps: int = 1

    @property
    def warmup(self) -> bool:
        """Whether this is a warm-up round (synthesis only)."""
        return self.round < 0

    @property
    def fraction(self) -> float:
        """Fraction of rounds done, in [0, 1), 0 in the warm-up; schedules should be functions of it."""
        return max(0, self.round) / self.rounds


class RealData(Protocol):
    """The task's training set, only for bounds that declare `real_data`."""

    def batch(self, n: int, stream: torch.Generator) -> Batch:
        """`n` augmented, normalised images with their labels, in a new random order for each pass."""


class Context(Protocol):
    """Everything that a method gets from the harness."""

    teacher: Network
    student: Network
    task: TaskFacts
    device: torch.device
    progress: Progress

    def stream(self, name: str) -> torch.Generator:
        """The random stream `name` on the run's device, a function of (seed, name, round) alone."""

    def register(self, name: str, obj: T) -> T:
        """Add an object with `state_dict` to the checkpoints; modules are moved to the device. Returns `obj`.

        Do not replace the object later. Raises `RunError` for a name used twice or an object without `state_dict`.
        """

    def state(self, name: str, value: Any) -> State:
        """A variable that is saved in checkpoints: a number, string, tensor, or list or dict of these."""

    def companion(self, name: str, module: nn.Module) -> nn.Module:
        """Register a module that is trained by the student's optimiser but not exported with the student."""

    def grant(self, privilege: str) -> Any:
        """The object of a privilege (`real_data`: a `RealData`); raises `PrivilegeError` unless it is allowed."""

    def asset(self, value: str) -> dict[str, Tensor]:
        """The tensors of the safetensors file given by a setting of unit `file`.

        Raises `PrivilegeError` unless `external_model` is declared, `RunError` if the file is not that of the run.
        """

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` compiled with fixed shapes under `--compile`, otherwise unchanged; counts stay correct."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The run's precision, for the method's own networks: use it around single forwards, not whole methods."""

    def count(self, *, synthesised: int = 0, stored: int = 0) -> None:
        """Report images made in `synthesize`, and images added to a store (negative: removed)."""


@dataclass
class State:
    """A variable that checkpoints save and restore."""

    value: Any


class Method(ABC):
    """A data-free distillation method: class attributes describe it, the loop calls its methods."""

    # frozen dataclass, each field made with `setting`; a setting `student_steps` is reduced in short pinned runs
    Config: ClassVar[type[Any]]
    privileges: ClassVar[Privileges] = Privileges()
    preset_privileges: ClassVar[Mapping[str, Sequence[str]]] = {}  # preset -> privileges in addition to `privileges`
    paper: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    default_preset: ClassVar[str] = "default"
    # (preset globs, task globs, settings), globs separated by `|`: if both match, applied in order after the preset
    task_settings: ClassVar[Sequence[tuple[str, str, Mapping[str, Any]]]] = ()
    # budget -> settings, applied after these, for example shorter inner loops in smoke runs
    budget_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # settings that the pinned track fixes: name of the setting -> attribute of TaskFacts
    pinned: ClassVar[Mapping[str, str]] = {}
    # settings to tune and their candidates: `dfkd-bench tune` draws its trials from the product
    search: ClassVar[Mapping[str, Sequence[Any]]] = {}
    # label agreement in % (`label_consistency` of a record); `tune` does not select a trial below it
    least_label_consistency: ClassVar[float] = 0.0

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def privileges_of(cls, preset: str) -> Privileges:
        """Privileges of a preset: the method's and the preset's own."""
        return dataclasses.replace(cls.privileges, **dict.fromkeys(cls.preset_privileges.get(preset, ()), True))

    @property
    def flags(self) -> Flags:
        """How the training loop calls this method."""
        return Flags()

    @property
    def recipe(self) -> StudentRecipe:
        """The paper's student recipe, used on the recipe track only."""
        return StudentRecipe()

    def setup(self, context: Context) -> None:
        """Build generator, heads, banks, pools, optimisers and schedules; register each with `context`."""
        self.context = context

    @abstractmethod
    def synthesize(self) -> Mapping[str, Tensor]:
        """One update of the generator (or inversion); returns scalar losses for the log, as tensors on the device."""

    @abstractmethod
    def sample(self, n: int) -> Batch:
        """Exactly `n` rows to train the student on. Called under `no_grad`."""

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """The student's scalar loss; default: KL(teacher || student) at temperature 1, weighted by `batch.weights`."""
        log_p_s, log_p_t = (F.log_softmax(out.logits, dim=1) for out in (student, teacher))
        divergence = (log_p_t.exp() * (log_p_t - log_p_s)).sum(1)
        return (divergence if batch.weights is None else divergence * batch.weights).mean()

    def after_distill_step(self, batch: Batch) -> None:
        """Called after each student update."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first round of an epoch."""

    def on_epoch_end(self, epoch: int) -> None:
        """Called after the last round of an epoch."""

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """`n` new images from `stream` for pictures and quality metrics; changes no state.

        Raises `RunError` if a method has no images of its own.
        """
        raise RunError(f"{type(self).__name__} shows no images of its own")
