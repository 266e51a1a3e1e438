"""Teachers and synthetic images on the command line: what is drawn, measured, registered, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import dfkd
from factory import make_record, write_record
from safetensors.torch import load_file, save_file

from dfkd_bench import models
from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.data.find import dataset
from dfkd_bench.data.terms import SMALL_TEACHER, TeacherRecipe
from dfkd_bench.report.images import grid
from dfkd_bench.teachers import train as training
from dfkd_bench.teachers.registry import SHIPPED, teacher, teachers
from dfkd_bench.utils.hashing import file_sha256


@pytest.fixture(autouse=True)
def own_teachers(tmp_path: Path, monkeypatch: Any) -> Path:
    """No test sees or touches the user's own teachers."""
    monkeypatch.setenv("DFKD_BENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "teachers"


# -- samples ----------------------------------------------------------------------------------------------------------


def make_run(root: Path, labels: torch.Tensor | None) -> Path:
    """A run folder with 40 noise images that the shipped teacher can look at."""
    record = make_record(method="odd$name", result={"files": {"samples.safetensors": "0" * 64}})
    folder = write_record(root, record).parent
    images = torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    save_file({"images": images} | ({} if labels is None else {"labels": labels}), folder / "samples.safetensors")
    return folder


def marked(png: Path) -> bool:
    """Whether the picture holds the colour of a mismatch."""
    from matplotlib.image import imread

    pixels = (imread(png)[..., :3] * 255).round().astype(int)
    colour = [int(grid.MISMATCH[k : k + 2], 16) for k in (1, 3, 5)]
    return bool((pixels == colour).all(-1).any())


def test_samples_draws_a_grid_and_marks_what_the_teacher_sees_otherwise(
    monkeypatch: Any, capsys: Any, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "a", torch.arange(40, dtype=torch.int32) % 10)
    status, out, _ = dfkd(monkeypatch, capsys, "samples", folder)
    assert status == 0
    assert "40 of 40 images" in out
    assert "the teacher predicts another class" in out
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert marked(folder / "samples.png")
    plain = make_run(tmp_path / "b", None)
    status, out, _ = dfkd(
        monkeypatch, capsys, "samples", plain / "record.json", "--out", tmp_path / "b.png", "--columns", 3
    )
    assert status == 0
    assert not marked(tmp_path / "b.png")


def test_samples_refuses_in_one_line(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    bound = write_record(tmp_path, make_record(method="real-kd")).parent
    failed = write_record(tmp_path, make_record(status="failed")).parent
    lost = make_run(tmp_path, None)
    (lost / "samples.safetensors").unlink()
    cases: list[tuple[tuple[Any, ...], int, str]] = [
        ((bound,), 1, "real-kd saved no synthetic images"),
        ((failed,), 1, "the run failed (ValueError: no)"),
        ((lost,), 1, "is missing"),
        ((tmp_path / "none",), 2, "no record at"),
        ((bound, "--out", "x.jpg"), 2, "--out names a PNG file"),
        ((bound, "--out", tmp_path / "none" / "x.png"), 2, "no folder"),
    ]
    for words, expected, says in cases:
        status, _, err = dfkd(monkeypatch, capsys, "samples", *words)
        assert (status, err.count("\n")) == (expected, 1), err
        assert says in err


def test_images_are_brought_back_to_brightness() -> None:
    facts = dataset("digits16")
    images = np.zeros((1, 1, 1, 4), np.float32)
    images[0, 0, 0] = [0.0, 1.0, 100.0, np.nan]
    mean, std = facts.mean[0], facts.std[0]
    assert grid.visible(images, facts)[0, 0, 0].tolist() == pytest.approx([mean, mean + std, 1.0, 0.0])


def test_rows_are_classes_and_captions_are_mismatches() -> None:
    images = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1)
    labels, said = np.array([2, 0, 2, 2, 0, 7]), np.array([2, 1, 3, 2, 0, 7])
    rows = grid.choose(images, labels, said, rows=2, columns=2)
    assert [(r.name, r.images.ravel().tolist(), r.captions) for r in rows] == [
        ("0", [1.0, 4.0], ("1", "")),
        ("2", [0.0, 2.0], ("", "3")),
    ]
    unlabelled = grid.choose(images, None, said, rows=9, columns=9)
    assert [r.name for r in unlabelled] == ["0", "1", "2", "3", "7"]
    assert not any(caption for r in unlabelled for caption in r.captions)
    assert [len(r.images) for r in grid.choose(images, None, None, rows=2, columns=4)] == [4, 2]


# -- teacher ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """An untrained cnn16 for digits as a safetensors file."""
    torch.manual_seed(0)
    path = tmp_path / "mine.safetensors"
    save_file(models.build("cnn16", 10, (1, 16, 16)).state_dict(), path)
    return path


def import_words(path: Path, **changes: str) -> list[str | Path]:
    options = {"--dataset": "digits16", "--arch": "cnn16", "--name": "mine", "--threads": "1", **changes}
    return ["teacher", "import", path, *(word for pair in options.items() for word in pair)]


def test_import_measures_registers_and_can_be_verified(
    monkeypatch: Any, capsys: Any, weights: Path, own_teachers: Path
) -> None:
    words = import_words(weights, **{"--origin": 'from\na "friend" 😀'})
    status, out, err = dfkd(monkeypatch, capsys, *words)
    assert status == 0
    assert err.startswith("warning: accuracy ")  # the network is untrained
    stored = teacher("mine")
    assert stored.sha256 in out
    assert stored.origin == 'from a "friend" 😀'
    assert stored.path.parent == own_teachers
    assert load_file(stored.path).keys() == load_file(weights).keys()
    status, out, _ = dfkd(monkeypatch, capsys, "teacher", "verify", "mine", "--threads", "1")
    assert status == 0
    assert out.count(f"{stored.top1:.2f}") == 2
    status, out, _ = dfkd(monkeypatch, capsys, "teacher", "list")
    assert "yours" in next(line for line in out.split("\n") if line.startswith("mine"))
    assert "shipped" in next(line for line in out.split("\n") if line.startswith("digits16-cnn32-s0"))


def test_import_refuses_in_one_line_and_registers_nothing(
    monkeypatch: Any, capsys: Any, weights: Path, tmp_path: Path, own_teachers: Path
) -> None:
    torn, whole, infinite = tmp_path / "torn.safetensors", tmp_path / "whole.pt", tmp_path / "inf.safetensors"
    torn.write_bytes(weights.read_bytes()[:100])
    torch.save(models.build("cnn16", 10, (1, 16, 16)), whole)
    state = load_file(weights)
    state["head.bias"][0] = float("inf")
    save_file(state, infinite)
    cases: list[tuple[list[str | Path], int, str]] = [
        (import_words(weights, **{"--arch": "cnn32"}), 1, "is (16, 1, 3, 3) in the file, (32, 1, 3, 3) in the model"),
        (import_words(weights, **{"--arch": "cnn17"}), 2, "unknown architecture"),
        (import_words(weights, **{"--dataset": "mnits"}), 2, "unknown dataset"),
        (import_words(weights, **{"--name": "../evil"}), 2, "a teacher's name is made of"),
        (import_words(weights, **{"--name": "digits16-cnn32-s0"}), 2, "registered already"),
        (import_words(torn), 1, "not a readable safetensors file"),
        (import_words(whole), 1, "no plain state dict"),
        (import_words(infinite), 1, "infinite or not a number"),
        (import_words(tmp_path / "none.pt"), 2, "no such file"),
    ]
    for words, expected, says in cases:
        status, _, err = dfkd(monkeypatch, capsys, *words)
        assert (status, err.count("\n")) == (expected, 1), err
        assert says in err
    assert not (own_teachers / "registry.toml").exists()


def test_verify_tells_bytes_and_accuracy_that_are_not_as_registered(
    monkeypatch: Any, capsys: Any, weights: Path, own_teachers: Path
) -> None:
    assert dfkd(monkeypatch, capsys, *import_words(weights))[0] == 0
    assert dfkd(monkeypatch, capsys, *import_words(weights, **{"--name": "other"}))[0] == 0
    file = own_teachers / "registry.toml"
    measured = teacher("other").top1
    head, _, tail = file.read_text().partition('["other"]')
    file.write_text(head + '["other"]' + tail.replace(f"top1 = {json.dumps(measured)}", "top1 = 99.0"))
    stored = own_teachers / "mine.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    status, out, err = dfkd(monkeypatch, capsys, "teacher", "verify", "--threads", "1")
    assert status == 1
    verdicts = {line.split()[0]: line.split()[-1] for line in out.split("\n") if line.split()}
    assert (verdicts["digits16-cnn32-s0"], verdicts["mine"], verdicts["other"]) == ("yes", "no", "no")
    assert err.count("\n") == 2
    assert "has SHA-256" in err
    assert f"teacher other: top-1 is {measured:.2f} %, registered 99.00 %" in err
    assert dfkd(monkeypatch, capsys, "teacher", "verify", "nobody")[0] == 2


def test_train_registers_then_compares_bit_for_bit(
    monkeypatch: Any, capsys: Any, tmp_path: Path, own_teachers: Path
) -> None:
    short = replace(DATASETS["digits16"], teacher_recipe=TeacherRecipe(1, 600, SMALL_TEACHER))
    monkeypatch.setitem(DATASETS, "digits16", short)
    words = ("teacher", "train", "digits16/cnn16", "--seed", 3, "--threads", 1)
    status, out, err = dfkd(monkeypatch, capsys, *words)
    assert (status, err) == (0, "")
    assert "epoch 1/1" in out
    stored = teacher("digits16-cnn16-s3")
    assert (stored.seed, stored.arch) == (3, "cnn16")
    assert "1 epochs of batch 600, crop padding 2, last epoch" in stored.recipe
    assert stored.sha256 in out
    status, out, _ = dfkd(monkeypatch, capsys, *words)
    assert "registered already: this one equals it bit for bit" in out
    out_file = tmp_path / "x.safetensors"
    words = (*words[:3], "--seed", 4, "--threads", 1, "--name", stored.name, "--out", out_file)
    status, out, _ = dfkd(monkeypatch, capsys, *words)
    assert status == 0
    assert "differs from it" in out
    assert out_file.exists()
    assert [t.name for t in teachers().values() if t.home != SHIPPED] == [stored.name]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("digits16",), "DATASET/MODEL"),
        (("digits16/cnn33",), "did you mean 'cnn32'"),
        (("digits16/cnn32", "--out", "x.pt"), "--out names a .safetensors file"),
        (("digits16/cnn32", "--name", "a b"), "a teacher's name is made of"),
    ],
)
def test_train_refuses_before_it_trains(monkeypatch: Any, capsys: Any, words: tuple[str, ...], says: str) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(training, "train_teacher", never)
    status, _, err = dfkd(monkeypatch, capsys, "teacher", "train", *words)
    assert (status, err.count("\n")) == (2, 1)
    assert says in err


def test_shipped_teachers_lie_beside_their_registry() -> None:
    shipped = [t for t in teachers().values() if t.home == SHIPPED]
    assert len(shipped) == 10
    assert all(file_sha256(t.path) == t.sha256 for t in shipped)
    assert all(t.origin == f"dfkd-bench teacher train {t.dataset}/{t.arch} --seed {t.seed}" for t in shipped)
    assert {p.name for p in (SHIPPED / "files").glob("*.safetensors")} == {t.path.name for t in shipped}
