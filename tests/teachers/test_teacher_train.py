"""Training of teachers: repeatable, resumable bit for bit, with labels as true as asked for, its settings on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, Refused
from filelock import FileLock
from safetensors.torch import load_file

from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.data.find import dataset
from dfkd_bench.data.loading import Split, TrainingBatches, load
from dfkd_bench.data.terms import SMALL_TEACHER, USUAL_TEACHER, TeacherRecipe
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.models import build
from dfkd_bench.protocol import task
from dfkd_bench.teachers import add, registry
from dfkd_bench.teachers import train as training
from dfkd_bench.teachers.train import Training, corrupted, train_teacher
from dfkd_bench.teachers.weights import payload_of
from dfkd_bench.utils import checkpoint

CPU = torch.device("cpu")
SHORT = TeacherRecipe(4, 16, SMALL_TEACHER)
JOB = Training("digits16", "cnn16", 3, SHORT)
WORDS = ("digits16/cnn16", "--batch", 32, "--epochs", 1, "--threads", 1)


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of 64 images, four steps, of the whole training set."""

    def small(*words: Any) -> tuple[Split, Split]:
        train, test = load(*words)
        return replace(train, facts=replace(train.facts, train_size=64)), test

    monkeypatch.setattr(training, "load", small)


class StoppedError(Exception):
    """The training is interrupted here."""


def stop_after(epoch: int) -> Callable[[int, int, float], None]:
    def report(done: int, epochs: int, loss: float) -> None:
        if done == epoch:
            raise StoppedError

    return report


def sha(job: Training, folder: Path | None = None, heard: list[int] | None = None, seconds: float = 0.0) -> str:
    """Hash of the teacher that a training ends with; `heard` gets the epochs it reports."""
    model = train_teacher(job, CPU, lambda e, n, loss: None if heard is None else heard.append(e), folder, seconds)
    return payload_of(model.state_dict())[1]


@pytest.mark.parametrize("job", [JOB, replace(JOB, precision="bf16", label_noise=0.2)], ids=["fp32", "bf16, noisy"])
def test_an_interrupted_training_ends_with_the_same_bytes(job: Training, tmp_path: Path) -> None:
    for epoch in (1, 3):  # interrupted twice
        with pytest.raises(StoppedError):
            train_teacher(job, CPU, stop_after(epoch), tmp_path / "shelf", checkpoint_seconds=0)
    heard: list[int] = []
    assert sha(job, tmp_path / "shelf", heard) == sha(job)
    assert heard == [3, 4]
    heard.clear()
    sha(job, tmp_path / "shelf", heard)  # all done: killed before it was registered
    assert heard == [4]


def test_everything_that_changes_the_teacher_is_part_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = dataset("digits16")
    jobs = [
        JOB,
        replace(JOB, seed=4),
        replace(JOB, label_noise=0.1),
        replace(JOB, precision="bf16"),
        replace(JOB, arch="wrn16_1"),
        replace(JOB, recipe=replace(SHORT, epochs=1)),
        replace(JOB, recipe=SHORT.changed(None, None, 0.05, None)),
        replace(JOB, recipe=SHORT.changed(None, None, None, 0.0)),
    ]
    said = [training.request_of(job, facts, CPU) for job in jobs]
    said.append(training.request_of(JOB, replace(facts, sha256="0" * 64), CPU))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    said.append(training.request_of(JOB, facts, CPU))
    monkeypatch.setattr(torch, "__version__", "9.9")
    said.append(training.request_of(JOB, facts, CPU))
    assert len(set(said)) == 11


def test_a_checkpoint_of_another_request_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train_teacher(JOB, CPU, stop_after(2), tmp_path, checkpoint_seconds=0)
    before = checkpoint.load(tmp_path, CPU)
    heard: list[int] = []
    sha(replace(JOB, seed=4), tmp_path, heard)
    assert heard[0] == 1
    after = checkpoint.load(tmp_path, CPU)
    assert before
    assert after
    assert after["request"] != before["request"]


def test_a_damaged_checkpoint_costs_time_alone(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train_teacher(JOB, CPU, stop_after(2), tmp_path, checkpoint_seconds=0)
    file = tmp_path / checkpoint.NAME
    file.write_bytes(file.read_bytes()[:-9])
    heard: list[int] = []
    assert sha(JOB, tmp_path, heard) == sha(JOB)
    assert heard[0] == 1


def test_checkpoints_are_not_written_at_every_epoch(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train_teacher(JOB, CPU, stop_after(3), tmp_path, checkpoint_seconds=1000)
    assert checkpoint.load(tmp_path, CPU) is None
    sha(JOB, tmp_path, seconds=1000)
    state = checkpoint.load(tmp_path, CPU)
    assert state is not None
    assert state["epoch"] == 4


def test_the_test_set_is_out_of_reach_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.load
    monkeypatch.setattr(training, "load", lambda *words: (real(*words)[0], None))
    train_teacher(replace(JOB, recipe=replace(SHORT, epochs=1)), CPU)


def test_a_diverged_training_is_an_error_line_and_leaves_nothing(command: Command) -> None:
    status, _, err = command("teacher", "train", *WORDS[:1], "--batch", 16, "--lr", 1e30, "--threads", 1)
    assert (status, err.count("\n")) == (1, 1)
    assert "the training diverged in epoch 1" in err
    left = registry.user_home()
    assert not [*left.rglob("*.toml"), *left.rglob(checkpoint.NAME)]


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "rate"), [(10, 0.1), (3, 0.5), (2, 0.999)])
def test_labels_become_another_class_drawn_evenly_and_once(classes: int, rate: float) -> None:
    labels = torch.arange(6000) % classes
    noisy = corrupted(labels, classes, rate, seed=0)
    changed = noisy != labels
    assert int(changed.sum()) == round(rate * 6000)
    assert set(noisy.tolist()) <= set(range(classes))
    shifts = torch.bincount((noisy - labels)[changed] % classes, minlength=classes)
    expected = int(changed.sum()) / (classes - 1)
    assert shifts[0] == 0
    assert all(abs(int(n) - expected) < 5 * expected**0.5 for n in shifts[1:])
    assert torch.equal(noisy, corrupted(labels, classes, rate, seed=0))
    assert not torch.equal(noisy, corrupted(labels, classes, rate, seed=1))
    assert torch.equal(labels, torch.arange(6000) % classes)


def test_a_noisy_training_sees_the_same_wrong_labels_all_along(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[int, int]] = []
    clean, _ = load("digits16")

    class Watched(TrainingBatches):
        def __init__(self, split: Any) -> None:
            super().__init__(split)
            seen.append(dict(enumerate(split.labels.tolist())))

    monkeypatch.setattr(training, "TrainingBatches", Watched)
    for _ in range(2):
        with pytest.raises(StoppedError):
            train_teacher(replace(JOB, label_noise=0.25), CPU, stop_after(1))
    wrong = [k for k, label in seen[0].items() if label != int(clean.labels[k])]
    assert len(wrong) == round(0.25 * 1200)
    assert seen[0] == seen[1]


def test_a_noisy_teacher_is_registered_as_such_and_never_chosen_unasked(command: Command) -> None:
    status, _, err = command("teacher", "noise", *WORDS, "--rate", 0.1, "--seed", 2)
    assert (status, err) == (0, "")
    noisy = registry.teacher("digits16-cnn16-s2-noise10")
    assert (noisy.label_noise, noisy.seed) == (0.1, 2)
    assert "10 % of the labels corrupted" in noisy.recipe
    assert "teacher noise digits16/cnn16 --rate 0.1 --seed 2" in noisy.origin
    assert "10 % label noise" in " ".join(command("teacher", "list")[1].split())
    wanted = task("digits16/cnn16-cnn16")
    with pytest.raises(UsageError, match=r"teacher train digits16/cnn16.* --teacher digits16-cnn16-s2-noise10"):
        registry.teacher_for(wanted)
    assert registry.teacher_for(wanted, noisy.name) == noisy
    assert command("teacher", "train", *WORDS, "--seed", 2)[0] == 0
    assert command("teacher", "train", *WORDS, "--seed", 0)[0] == 0
    assert registry.teacher_for(wanted).name == "digits16-cnn16-s2"  # the first to be registered
    assert registry.teacher("digits16-cnn16-s2").sha256 != noisy.sha256
    assert command("teacher", "train", "digits16/cnn32", *WORDS[1:], "--seed", 1)[0] == 0
    assert registry.teacher_for(task("digits16/cnn32-cnn16")).name == "digits16-cnn32-s0"


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_network_without_batchnorm_is_taught_at_a_lower_rate() -> None:
    usual, plain = training.recipe_of("mnist", "lenet5"), training.recipe_of("mnist", "lenet5_plain")
    assert (usual.optimiser.lr, plain.optimiser.lr) == (0.1, 0.02)
    assert plain == usual.changed(None, None, 0.02, None)
    assert training.recipe_of("cifar10-16", "cnn32") == DATASETS["cifar10-16"].teacher_recipe
    assert training.recipe_of("cifar100", "vgg11") == USUAL_TEACHER


def test_what_was_changed_in_the_recipe_is_on_record(command: Command) -> None:
    changes = ("--lr", 0.02, "--weight-decay", 0.001, "--precision", "bf16", "--seed", 5)
    assert command("teacher", "train", *WORDS, *changes)[0] == 0
    entry = registry.teacher("digits16-cnn16-s5")
    assert entry.recipe == (
        "SGD 0.02 Nesterov 0.9, weight decay 0.001, cosine over 1 epochs of batch 32, crop padding 2, bf16, last epoch"
    )
    said = "dfkd-bench teacher train digits16/cnn16 --seed 5 --epochs 1 --batch 32 --lr 0.02 --weight-decay 0.001"
    assert entry.origin == f"{said} --precision bf16 --threads 1"
    assert load_file(entry.path)["head.weight"].dtype == torch.float32


def test_the_number_of_threads_is_the_recipes_unless_named(monkeypatch: Any, command: Command) -> None:
    asked: list[int] = []
    facts = DATASETS["digits16"]
    monkeypatch.setitem(DATASETS, "digits16", replace(facts, teacher_recipe=replace(facts.teacher_recipe, threads=7)))
    monkeypatch.setattr(
        "dfkd_bench.utils.device.configure_device", lambda kind, threads: (asked.append(threads), CPU)[1]
    )
    command("teacher", "train", *WORDS[:-2])
    command("teacher", "train", *WORDS)
    assert asked == [7, 1]


def test_nothing_is_left_of_a_finished_training(command: Command) -> None:
    assert command("teacher", "train", *WORDS)[0] == 0
    assert sorted(p.name for p in registry.user_home().rglob("*") if p.is_file()) == [
        ".lock", "digits16-cnn16-s0.safetensors", "registry.toml",
    ]  # fmt: skip


def test_the_command_goes_on_after_an_interruption(monkeypatch: Any, command: Command) -> None:
    words = ("teacher", "train", "digits16/cnn16", "--batch", 16, "--epochs", 4, "--threads", 1)
    whole = add.train_new(Training("digits16", "cnn16", 0, SHORT), "other", CPU, lambda *_: None)
    real = add.train_teacher

    def interrupted(job: Any, device: Any, report: Any, folder: Any, seconds: float) -> Any:
        def until(epoch: int, epochs: int, loss: float) -> None:
            report(epoch, epochs, loss)
            if epoch == 2:
                raise KeyboardInterrupt

        return real(job, device, until, folder, 0.0)

    monkeypatch.setattr(add, "train_teacher", interrupted)
    status, _, err = command(*words)
    assert status == 130
    assert err.strip() == "stopped; the same command resumes from the last checkpoint"
    monkeypatch.setattr(add, "train_teacher", real)
    status, out, _ = command(*words)
    assert status == 0
    assert "resumed at epoch 2/4" in out
    assert registry.teacher("digits16-cnn16-s0").sha256 == whole.sha256


def test_a_training_under_way_elsewhere_is_left_alone(refused: Refused) -> None:
    folder = add.training_folder("digits16-cnn16-s0")
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        assert "another process is training digits16-cnn16-s0" in refused("teacher", "train", *WORDS, status=1)


def test_a_home_that_cannot_be_written_is_named(monkeypatch: Any, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DFKD_BENCH_HOME", str(tmp_path / "file"))
    assert "DFKD_BENCH_HOME" in refused("teacher", "train", *WORDS, status=1)


def test_names_of_folders_become_names_of_files() -> None:
    assert add.default_name(replace(JOB, dataset="folder:/home/me/my cats!")) == "folder-home-me-my-cats-cnn16-s3"
    assert add.default_name(replace(JOB, label_noise=0.125)) == "digits16-cnn16-s3-noise12.5"
    add.check_name(add.default_name(replace(JOB, dataset=f"folder:/{'x' * 300}")))


# -- verification without data ----------------------------------------------------------------------------------------


def far_teacher() -> registry.Teacher:
    """A registered teacher whose dataset does not lie here."""
    entry = registry.Teacher("far", "svhn", "resnet8", 0, "far.safetensors", "", 90.0, "none", "test")
    return registry.register(entry, build("resnet8", 10, (3, 32, 32)).state_dict())


def test_without_the_dataset_bytes_are_checked(monkeypatch: Any, command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("DFKD_BENCH_DATA", str(tmp_path / "empty"))
    entry = far_teacher()
    status, out, err = command("teacher", "verify", "--threads", 1)
    assert (status, err) == (0, "")
    assert next(line for line in out.split("\n") if line.startswith("far")).rstrip().endswith("bytes only")
    assert next(line for line in out.split("\n") if line.startswith("digits16")).rstrip().endswith("yes")
    status, _, err = command("teacher", "verify", "far", "--threads", 1)
    assert (status, err.count("\n")) == (1, 1)
    assert "data fetch svhn" in err
    entry.path.write_bytes(entry.path.read_bytes()[:-1] + b"x")
    status, _, err = command("teacher", "verify", "--threads", 1)
    assert status == 1
    assert "has SHA-256" in err
    with pytest.raises(RunError, match="has SHA-256"):
        registry.load_teacher(entry, CPU)
