"""The protocol: everything that is fixed to make numbers comparable. A change that affects numbers changes `PROTOCOL`.

Importing this module imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace

from dfkd_bench import models
from dfkd_bench.data import catalog
from dfkd_bench.data.base import Dataset
from dfkd_bench.data.find import dataset
from dfkd_bench.data.terms import SMALL_RECIPE, USUAL, Pinned, small_pinned
from dfkd_bench.errors import UsageError, did_you_mean
from dfkd_bench.plugins.entry import Entry

PROTOCOL = "1.2"
TAGGED = ("1.1",)  # earlier versions with a git tag, see `tag`
TRACKS = ("pinned", "recipe")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "bf16")
BUDGETS = ("smoke", "quick", "standard", "full")
TIMED = "seconds:"  # a budget `seconds:N` has as many rounds as fit into N seconds of synthesis and distillation
SHORTEST, LONGEST = 0.001, 1e7  # seconds
SNAPSHOTS = "standard"  # budgets of seconds use this budget's number of snapshots and longest round
FEWEST_ROUNDS = 20  # minimum of a run on the pinned track: longer rounds are shortened
BOUNDS = ("noise", "real-kd", "scratch")  # in every table, never ranked
GRANTED: dict[str, tuple[str, ...]] = {"real_data": ("real-kd", "scratch")}  # privilege -> methods that may have it


# At the usual learning rate of 0.1 a student without BatchNorm often stays at chance. Accuracy in percent on held-out
# training images after distillation on real images of MNIST (temperature 4, 300 steps), two seeds: 10 and 62 at 0.1,
# 72 and 10 at 0.05, 93 and 10 at 0.02, 95 and 97 at 0.01, 75 and 93 at 0.005
PLAIN_PAIR = replace(small_pinned(4, 2), recipe=replace(SMALL_RECIPE, lr=0.01))

# for pairs of small networks on 32x32 photographs, which still run on a CPU
SMALL_PAIR = Pinned(
    batch_size=128,
    generator_width=32,
    student_images={"smoke": 4 * 128, "quick": 800 * 128, "standard": 2000 * 128, "full": 10000 * 128},
    evaluations={"smoke": 2, "quick": 4, "standard": 8, "full": 20},
    recipe=SMALL_RECIPE,
)

PINNED: dict[str, Pinned] = {  # of tasks whose terms differ from those of their dataset
    "mnist/lenet5_plain-lenet5_plain_half": PLAIN_PAIR,
    "fashion-mnist/lenet5_plain-lenet5_plain_half": PLAIN_PAIR,
    "cifar10/resnet20-resnet8": SMALL_PAIR,
    "cifar10/wrn16_2-wrn16_1": SMALL_PAIR,
    "cifar10/wrn40_1-wrn16_1": SMALL_PAIR,
}


@dataclass(frozen=True)
class Task:
    """A dataset with the architectures of teacher and student."""

    name: str
    dataset: Dataset
    teacher: str
    student: str
    pinned: Pinned = field(repr=False)

    @property
    def plugins(self) -> tuple[Entry, ...]:
        """Its parts from other packages: dataset and architectures."""
        networks = (models.TABLE.entry(name) for name in (self.teacher, self.student))
        return tuple(dict.fromkeys(e for e in (catalog.TABLE.entry(self.dataset.name), *networks) if e is not None))

    def longest_round(self, budget: str) -> int:
        """Maximal student steps per round on the pinned track, so that a run has at least `FEWEST_ROUNDS` rounds.

        With published rounds of 400 student steps, a short run would have two rounds and so two batches of images. A
        smoke run, which is only a test, needs one round.
        """
        images = self.pinned.student_images[SNAPSHOTS if seconds_of(budget) is not None else budget]
        steps = images // self.pinned.batch_size
        return max(1, steps if budget == BUDGETS[0] else steps // FEWEST_ROUNDS)


PAPER_PAIRS = (  # teacher-student pairs of the published CIFAR tables
    "resnet34-resnet18",
    "vgg11-resnet18",
    "wrn40_2-wrn16_1",
    "wrn40_2-wrn16_2",
    "wrn40_2-wrn40_1",
    "resnet34-wrn16_1",
    "resnet34-mobilenetv2",
)
DEFAULT_TASK = "digits16/cnn32-cnn16"
TASKS = (
    DEFAULT_TASK,
    "mnist/lenet5-lenet5_half",
    "fashion-mnist/lenet5-lenet5_half",
    "mnist/lenet5_plain-lenet5_plain_half",
    "fashion-mnist/lenet5_plain-lenet5_plain_half",
    "cifar10-16/cnn32-cnn16",  # photographs for a CPU
    "svhn/wrn40_2-wrn16_1",
    "cifar10/resnet20-resnet8",  # this and the next two are small enough for a CPU
    "cifar10/wrn16_2-wrn16_1",
    "cifar10/wrn40_1-wrn16_1",
    *(f"{data}/{pair}" for data in ("cifar10", "cifar100") for pair in PAPER_PAIRS),
    "tiny-imagenet/resnet50-resnet18",
    "tiny-imagenet/resnet34-resnet18",
    "caltech101/tv_resnet34-tv_resnet18",
)


def split_task_name(name: str) -> tuple[str, str, str]:
    """Dataset, teacher and student in the name of a task; raises `UsageError` for a name of another form."""
    data, slash, pair = name.rpartition("/")  # `folder:PATH` contains slashes
    teacher, dash, student = pair.partition("-")
    if not (slash and dash and data and teacher and student):
        hint = did_you_mean(name, list(TASKS))
        raise UsageError(f"unknown task {name!r}: a task is dataset/teacher-student, such as {DEFAULT_TASK}{hint}")
    return data, teacher, student


def pinned_for(name: str) -> Pinned:
    """What the pinned track fixes on task `name`: its own terms, else its dataset's, else `USUAL`."""
    known = catalog.DATASETS.get(name.rpartition("/")[0])
    return PINNED.get(name) or (known.pinned if known else USUAL)


def task(name: str) -> Task:
    """The task `dataset/teacher-student`; raises `UsageError` for a name of another form or an unknown part."""
    data, teacher, student = split_task_name(name)
    facts = dataset(data)
    models.architecture(teacher), models.architecture(student)
    name = f"{facts.name}/{teacher}-{student}"
    return Task(name, facts, teacher, student, PINNED.get(name, facts.pinned))


def check_word(kind: str, word: str, known: tuple[str, ...]) -> str:
    """`word` itself if it is known; raises `UsageError` otherwise. `kind` is for the message."""
    if word not in known:
        raise UsageError(f"unknown {kind} {word!r}{did_you_mean(word, list(known))}")
    return word


# -- versions ---------------------------------------------------------------------------------------------------------


def version(word: str) -> tuple[int, int] | None:
    """A protocol's version as (major, minor); None for a word that is not `MAJOR.MINOR`."""
    match = re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)", word)
    return (int(match[1]), int(match[2])) if match else None


def check_version(word: str) -> str:
    """`word` itself if it is a protocol's version; raises `UsageError` otherwise."""
    if version(word) is None:
        raise UsageError(f"a protocol is MAJOR.MINOR, such as {PROTOCOL}, got {word!r}")
    return word


def titled(word: str) -> str:
    """A protocol as titles of tables have it: `protocol 1.2`; for other versions with `earlier` or `later`."""
    if word == PROTOCOL:
        return f"protocol {word}"
    number, today = version(word), version(PROTOCOL)
    if number is None or today is None:
        return f"protocol {word}, no known version"
    return f"protocol {word}, {'an earlier' if number < today else 'a later'} version"


def latest(words: Iterable[str]) -> str | None:
    """The latest of some versions, None if there are none."""
    return max(words, key=lambda word: version(word) or (-1, -1), default=None)


def tag(word: str) -> str | None:
    """The git tag with the code of an earlier version, None if there is none."""
    return f"protocol-{word}" if word in TAGGED else None


# -- budgets ----------------------------------------------------------------------------------------------------------


def check_budget(word: str) -> str:
    """The budget `word` in its canonical spelling; raises `UsageError` for an unknown one."""
    if not word.startswith(TIMED):
        number = word.partition(":")[2] or "N"
        return check_word("budget", word, (*BUDGETS, TIMED + number))
    seconds = seconds_of(word)
    if seconds is None:
        raise UsageError(
            f"budget {TIMED}N needs {SHORTEST:g} to {LONGEST:,.0f} seconds, such as {TIMED}60, got {word!r}"
        )
    return f"{TIMED}{seconds!r}".removesuffix(".0")


def check_filters(
    tasks: Iterable[str], track: str | None, budget: str | None, recorded: Callable[[], Container[str]] = tuple
) -> tuple[tuple[str, ...], str | None]:
    """Tasks and budget of a filter, in the spelling of records. Raises `UsageError` for unknown names.

    `recorded`: the tasks that have records; these may be of packages that are not installed.
    """

    def canonical(name: str) -> str:
        try:
            return task(name).name
        except UsageError:
            if name in recorded():
                return name
            raise

    if track:
        check_word("track", track, TRACKS)
    return tuple(map(canonical, tasks)), check_budget(budget) if budget else None


def seconds_of(budget: str) -> float | None:
    """N of a budget `seconds:N`, None for any other budget."""
    if not budget.startswith(TIMED):
        return None
    try:
        seconds = float(budget.removeprefix(TIMED))
    except ValueError:
        return None
    return seconds if SHORTEST <= seconds <= LONGEST else None


def budget_order(budget: str) -> tuple[int, float]:
    """Sort key of budgets: budgets of seconds first, then those of images, each from short to long."""
    seconds = seconds_of(budget)
    if seconds is not None:
        return 0, seconds
    return 1, float(BUDGETS.index(budget) if budget in BUDGETS else len(BUDGETS))


def to_folder_name(budget: str) -> str:
    """A budget for the name of a folder, without the colon; `from_folder_name` is the inverse."""
    return budget.replace(":", "_")


def from_folder_name(word: str) -> str:
    """The budget of a folder name; the inverse of `to_folder_name`."""
    return word.replace("_", ":")
