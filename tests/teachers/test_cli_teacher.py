"""Teachers and synthetic images on the command line: what is drawn, measured, registered, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, Refused
from factory import make_record, write_record
from safetensors.torch import save_file

from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.data.find import dataset
from dfkd_bench.data.terms import SMALL_TEACHER, TeacherRecipe
from dfkd_bench.report.images import grid
from dfkd_bench.teachers import train as training
from dfkd_bench.teachers.registry import SHIPPED, teacher, teachers
from dfkd_bench.utils.hashing import file_sha256

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


def test_samples_draws_a_grid_and_marks_what_the_teacher_sees_otherwise(command: Command, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", torch.arange(40, dtype=torch.int32) % 10)
    status, out, _ = command("samples", folder)
    assert status == 0
    assert "40 of 40 images" in out
    assert "the teacher predicts another class" in out
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert marked(folder / "samples.png")
    plain = make_run(tmp_path / "b", None)
    status, out, _ = command("samples", plain / "record.json", "--out", tmp_path / "b.png", "--columns", 3)
    assert status == 0
    assert not marked(tmp_path / "b.png")


def test_samples_refuses_in_one_line(refused: Refused, tmp_path: Path) -> None:
    bound = write_record(tmp_path, make_record(method="real-kd")).parent
    failed = write_record(tmp_path, make_record(status="failed")).parent
    lost = make_run(tmp_path, None)
    (lost / "samples.safetensors").unlink()
    for words, status, says in (
        ((bound,), 1, "real-kd saved no synthetic images"),
        ((failed,), 1, "the run failed (ValueError: no)"),
        ((lost,), 1, "is missing"),
        ((tmp_path / "none",), 2, "no record at"),
        ((bound, "--out", "x.jpg"), 2, "--out must name a PNG file"),
        ((bound, "--out", tmp_path / "none" / "x.png"), 2, "no folder"),
    ):
        assert says in refused("samples", *words, status=status)


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


def test_train_registers_then_compares_bit_for_bit(monkeypatch: Any, command: Command, tmp_path: Path) -> None:
    short = replace(DATASETS["digits16"], teacher_recipe=TeacherRecipe(1, 600, SMALL_TEACHER))
    monkeypatch.setitem(DATASETS, "digits16", short)
    words = ("teacher", "train", "digits16/cnn16", "--seed", 3, "--threads", 1)
    status, out, err = command(*words)
    assert (status, err) == (0, "")
    assert "epoch 1/1" in out
    stored = teacher("digits16-cnn16-s3")
    assert (stored.seed, stored.arch) == (3, "cnn16")
    assert "1 epochs of batch 600, crop padding 2, last epoch" in stored.recipe
    assert stored.sha256 in out
    status, out, _ = command(*words)
    assert "registered already: this one equals it bit for bit" in out
    out_file = tmp_path / "x.safetensors"
    words = (*words[:3], "--seed", 4, "--threads", 1, "--name", stored.name, "--out", out_file)
    status, out, _ = command(*words)
    assert status == 0
    assert "differs from it" in out
    assert out_file.exists()
    assert [t.name for t in teachers().values() if t.home != SHIPPED] == [stored.name]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "digits16"), "DATASET/MODEL"),
        (("train", "digits16/cnn33"), "did you mean 'cnn32'"),
        (("train", "digits16/cnn32", "--out", "x.pt"), "--out must name a .safetensors file"),
        (("train", "digits16/cnn32", "--name", "a b"), "a teacher's name may contain"),
        *((("noise", "digits16/cnn32", "--rate", rate), "--rate") for rate in ("0", "1", "1.5", "-0.1")),
    ],
)
def test_training_is_refused_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, refused: Refused, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.setattr(training, "train_teacher", lambda *_: pytest.fail("trained"))
    assert says in refused("teacher", *words)


def test_shipped_teachers_lie_beside_their_registry() -> None:
    shipped = [t for t in teachers().values() if t.home == SHIPPED]
    assert len(shipped) == 10
    assert all(file_sha256(t.path) == t.sha256 for t in shipped)
    assert all(t.origin == f"dfkd-bench teacher train {t.dataset}/{t.arch} --seed {t.seed}" for t in shipped)
    assert {p.name for p in (SHIPPED / "files").glob("*.safetensors")} == {t.path.name for t in shipped}
