"""The contract: everything the author of a method has to know, on one page.

A method is a class with a frozen config dataclass beside it. The harness builds it, gives it a `Context`, and asks it
for images and losses; the harness owns the student, its optimiser and schedule, precision, evaluation, checkpoints,
budget and counting. Only `synthesize` and `sample` are mandatory. `methods/README.md` walks through an example.
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
    """A field of a config dataclass with its one-line explanation, shown by `dfkd-bench show`.

    `choices` lists the allowed values (others are refused), `unit` is printed behind the explanation. Unit `file`
    makes the value a path: the run knows the file by its content (`path#sha256`), and `Context.asset` opens it.
    `privilege`: what the method declares in `Privileges`, and needs only where this setting is not 0; then it runs on
    teachers that cannot give it.
    """
    metadata = {"help": help, "choices": tuple(choices) if choices else None, "unit": unit, "privilege": privilege}
    value: T = field(default=default, metadata=metadata)
    return value


@dataclass(frozen=True)
class Privileges:
    """What a method uses beyond the teacher's logits: its card on the leaderboard. Undeclared use is refused."""

    gradients: bool = False  # back-propagates through the teacher to the images
    bn_statistics: bool = False  # running mean and variance of the teacher's BatchNorm layers
    penultimate: bool = False  # the teacher's features before its last linear layer
    stage_maps: bool = False  # feature maps inside the teacher
    class_names: bool = False  # what the classes are called
    external_model: bool = False  # any other trained model (a text encoder, a diffusion model, ...)
    unlabelled_data: bool = False  # real images of any origin
    real_data: bool = False  # the task's own training set; only the bounds may have it

    def declared(self) -> list[str]:
        """Names of the declared privileges, in the order of this card."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name)]


@dataclass(frozen=True)
class Flags:
    """How the loop calls a method: data, not code."""

    synthesis_steps: int = 1  # calls of synthesize() per round
    warmup_synthesis_steps: int = 0  # and per round of the warm-up, 0 for as many
    student_steps: int = 5  # calls of sample() and student updates per round
    rounds_per_epoch: int = 50  # the method's own epoch on the recipe track; the pinned track sets its own
    warmup_rounds: int = 0  # rounds of synthesis alone before the first, outside schedule and image budget
    warmup_fraction: float = 0.0  # and more of them, as a share of the run's rounds
    order: Literal["synthesise_first", "distill_first"] = "synthesise_first"
    # of the student inside synthesize(); a tuple has a word for each call of a round, the last for all further ones
    student_mode: Mode | tuple[Mode, ...] = "eval"
    rowwise: bool = False  # rows of a sample do not depend on each other: a round may be drawn and labelled at once
    # taps of teacher and student wanted in distill_loss; "stages": all feature maps that each network has;
    # "stages_raw": the same, each as its raw tap where there is one (see Network.raw_taps)
    distill_taps: tuple[str, ...] = ()
    teacher_in_distillation: bool = True  # False: distill_loss gets no teacher output and no forward is spent

    def calls(self, warmup: bool) -> int:
        """Calls of synthesize() in a round, or in one of the warm-up."""
        return self.warmup_synthesis_steps if warmup and self.warmup_synthesis_steps else self.synthesis_steps

    def mode(self, call: int) -> Mode:
        """The student's mode in a call of synthesize(), counted from 0 in each round."""
        words = (self.student_mode,) if isinstance(self.student_mode, str) else self.student_mode
        return words[min(call, len(words) - 1)]


@dataclass(frozen=True, eq=False)
class Batch:
    """What `sample` returns. The same object again reuses the teacher's output of the last time.

    images: (n, channels, height, width) in the teacher's normalised input space; labels: (n,) int64 pseudo-labels;
    weights: (n,) per-sample weights; latents: (n, ...) the codes the images were made from.
    """

    images: Tensor
    labels: Tensor | None = None
    weights: Tensor | None = None
    latents: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a network says of a batch: logits (n, classes) fp32, the taps asked for, and BN moments if asked for."""

    logits: Tensor
    taps: Mapping[str, Tensor]
    moments: tuple[Moments, ...] = ()

    @property
    def features(self) -> Tensor:
        """Penultimate features (n, d) after global pooling; raises `RunError` when they were not asked for."""
        if "penultimate" not in self.taps:
            raise RunError("penultimate features were not asked for: pass taps=('penultimate',)")
        return self.taps["penultimate"]


class Network(Protocol):
    """A read-only view of teacher or student. Forwards and backwards through it are counted."""

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names that `taps` accepts, from input to output, the last being `penultimate`.

        Beside these, `bn_means` gives the means over space of every BatchNorm layer's input, (n, channels of all).
        """

    @property
    def raw_taps(self) -> Mapping[str, str]:
        """Feature map -> a further name that `taps` accepts: the same map before the network's last BatchNorm and ReLU.

        A pre-activation network has these two behind its last group: `stage3` of a WRN is activated, `stage3_raw` is
        what the group returns. Empty for networks whose blocks end in a ReLU, and for foreign models.
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
        """Forward `images` (n, channels, height, width); raises `PrivilegeError` for anything undeclared."""


@dataclass(frozen=True)
class TaskFacts:
    """What everybody knows of a task without seeing its data."""

    name: str
    classes: int
    image_shape: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    batch_size: int  # of student batches; the pinned track fixes it
    generator_width: int  # base channels of generators; the pinned track fixes it
    crop_padding: int = 0  # augmentation that keeps an image's class: random crop with this padding, in pixels
    flip: bool = False  # and whether a horizontal flip does


@dataclass
class Progress:
    """Where the run stands: counts, never the clock. Methods read it; only the loop writes it."""

    epoch: int = 0
    round: int = 0  # below 0 in the rounds of synthesis alone, the last of which is -1
    synthesis_step: int = 0  # calls of synthesize() before this one in the round
    student_step: int = 0
    epochs: int = 1
    rounds: int = 1
    warmup_rounds: int = 0  # rounds of synthesis alone, before all others
    student_steps: int = 1

    @property
    def warmup(self) -> bool:
        """Whether this is one of the rounds of synthesis alone."""
        return self.round < 0

    @property
    def fraction(self) -> float:
        """Share of the rounds done, in [0, 1), 0 in the warm-up: schedules are functions of this."""
        return max(0, self.round) / self.rounds


class RealData(Protocol):
    """The task's training set, handed only to a bound that declared `real_data`."""

    def batch(self, n: int, stream: torch.Generator) -> Batch:
        """`n` augmented, normalised images with their labels, walking through a fresh permutation per pass."""


class Context(Protocol):
    """All that a method is given."""

    teacher: Network
    student: Network
    task: TaskFacts
    device: torch.device
    progress: Progress

    def stream(self, name: str) -> torch.Generator:
        """The random stream `name` on the run's device, a function of (seed, name, round) alone."""

    def register(self, name: str, obj: T) -> T:
        """Hand over anything with `state_dict` to be checkpointed; modules are moved to the device. Returns `obj`.

        The object may never be replaced afterwards. Raises `RunError` for a name given twice or no `state_dict`.
        """

    def state(self, name: str, value: Any) -> State:
        """A checkpointed cell for a plain value (number, string, tensor, list or dict of these)."""

    def companion(self, name: str, module: nn.Module) -> nn.Module:
        """Register a module that the student's optimiser trains as well and that is dropped at export."""

    def grant(self, privilege: str) -> Any:
        """What a privilege opens (`real_data`: a `RealData`); raises `PrivilegeError` unless declared and allowed."""

    def asset(self, value: str) -> dict[str, Tensor]:
        """The tensors of the safetensors file that a setting of unit `file` names: outside knowledge.

        Raises `PrivilegeError` unless `external_model` is declared, `RunError` for a file that is not the run's.
        """

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` compiled with fixed shapes under `--compile`, itself otherwise; counts stay right."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The run's precision, for the method's own networks: enter it per forward, never around a whole verb."""

    def count(self, *, synthesised: int = 0, stored: int = 0) -> None:
        """Report images made inside `synthesize` and images added to (or, negative, dropped from) a store."""


@dataclass
class State:
    """A mutable cell that checkpoints save and restore."""

    value: Any


class Method(ABC):
    """One data-free distillation method. Class attributes describe it, six verbs run it."""

    # frozen dataclass, each field made with `setting`; one named `student_steps` is shortened in short pinned runs
    Config: ClassVar[type[Any]]
    privileges: ClassVar[Privileges] = Privileges()
    preset_privileges: ClassVar[Mapping[str, Sequence[str]]] = {}  # preset -> what it uses beyond `privileges`
    paper: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    default_preset: ClassVar[str] = "default"
    # (preset globs, task globs, settings), `|` between globs: on top of the preset, in order, where both match
    task_settings: ClassVar[Sequence[tuple[str, str, Mapping[str, Any]]]] = ()
    # budget -> settings, on top of these: a run for a test need not wait for long inner loops
    budget_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # settings of Config that the pinned track fixes: name of the field -> attribute of TaskFacts
    pinned: ClassVar[Mapping[str, str]] = {}
    # settings worth tuning and their candidates: `dfkd-bench tune` draws its trials from the product
    search: ClassVar[Mapping[str, Sequence[Any]]] = {}
    # label agreement in %, `label_consistency` of a record, below which `tune` does not choose a trial
    least_label_consistency: ClassVar[float] = 0.0

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def privileges_of(cls, preset: str) -> Privileges:
        """What a preset uses: the method's privileges and the preset's own."""
        return dataclasses.replace(cls.privileges, **dict.fromkeys(cls.preset_privileges.get(preset, ()), True))

    @property
    def flags(self) -> Flags:
        """How the loop calls this method."""
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
        """One step that improves what makes images; returns scalar losses for the log, on the device."""

    @abstractmethod
    def sample(self, n: int) -> Batch:
        """Exactly `n` rows to train the student on. Called under `no_grad`."""

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """The student's scalar loss; default: KL(teacher || student) at temperature 1, weighted where asked."""
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
        """`n` images from `stream` for grids and quality metrics; must change nothing and replay nothing.

        Raises `RunError` where a method has no images of its own to show.
        """
        raise RunError(f"{type(self).__name__} shows no images of its own")
