"""`folder:PATH`: images of one's own, as a dataset."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfkd_bench.data import array_cache, folder, loading
from dfkd_bench.data.find import dataset
from dfkd_bench.errors import PrivilegeError, RunError, UsageError
from dfkd_bench.protocol import task
from dfkd_bench.utils import guard


def paint(path: Path, value: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    """A PNG of one value, of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).convert(mode).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes, two training images and one test image each; the values tell them apart."""
    root = tmp_path / "own images"
    for number, name in enumerate(("cat", "ant", "bee")):
        for k in range(2):
            paint(root / "train" / name / f"{k}.png", 100 * number + 10 * k)
        paint(root / "test" / name / "0.png", 100 * number + 50)
    return root


def test_splits_classes_and_labels(tree: Path) -> None:
    (tree / "train" / ".hidden").mkdir()
    (tree / "train" / "ant" / "notes.txt").write_text("no image")
    facts = dataset(f"folder:{tree}")
    assert (facts.classes, facts.image_shape, facts.train_size, facts.test_size) == (3, (3, 8, 8), 6, 3)
    assert (facts.crop_padding, facts.flip, facts.sha256) == (1, False, "")
    train, test = loading.load(facts)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]  # ant, bee, cat
    assert train.images[:, 0, 0, 0].tolist() == [100, 110, 200, 210, 0, 10]
    assert test.images[:, 0, 0, 0].tolist() == [150, 250, 50]
    values = train.images[:, 0].double() / 255
    assert facts.mean == (round(float(values.mean()), 4),) * 3
    assert facts.std == (round(float(values.std(unbiased=False)), 4),) * 3


def test_val_stands_for_test_where_there_is_no_test(tree: Path) -> None:
    (tree / "test").rename(tree / "val")
    assert loading.load_test(f"folder:{tree}").labels.tolist() == [0, 1, 2]


def test_class_folders_alone_are_images_for_testing(tree: Path) -> None:
    facts = dataset(f"folder:{tree / 'train'}")
    assert (facts.train_size, facts.test_size, facts.mean, facts.std) == (0, 6, (0.5,) * 3, (0.5,) * 3)
    train, test = loading.load(facts)
    assert train.images.shape == (0, 3, 8, 8)
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(loading.digest(facts)) == 64
    with pytest.raises(UsageError, match="has no training images"):
        loading.TrainingBatches(train)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "train"):
        paint(tmp_path / "own" / name / "a.png")
    assert loading.load_test(f"folder:{tmp_path}/own").labels.tolist() == [0, 1]


def test_the_name_is_the_absolute_path_however_it_was_written(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    assert dataset("folder:./own images/").name == f"folder:{tree}"
    monkeypatch.setenv("HOME", str(tree.parent))
    assert dataset("folder:~/own images").name == f"folder:{tree}"
    assert task(f"folder:{tree}/cnn32-cnn16").dataset.classes == 3


def test_grey_files_make_grey_images_unless_one_has_colour(tree: Path) -> None:
    for path in tree.rglob("*.png"):
        paint(path, 7, mode="L")
    assert dataset(f"folder:{tree}").image_shape == (1, 8, 8)
    paint(tree / "test" / "bee" / "9.png", 9)
    assert dataset(f"folder:{tree}").image_shape == (3, 8, 8)
    assert loading.load_test(f"folder:{tree}").images[1, :, 0, 0].tolist() == [7, 7, 7]


def test_dataset_toml_says_what_to_make_of_the_images(tree: Path) -> None:
    paint(tree / "test" / "ant" / "0.png", 80, size=(20, 12))
    (tree / "dataset.toml").write_text(
        "image_shape = [1, 4, 4]\nmean = [0.25]\nstd = [0.5]\ncrop_padding = 3\nflip = true\n"
    )
    facts = dataset(f"folder:{tree}")
    assert (facts.image_shape, facts.mean, facts.std) == ((1, 4, 4), (0.25,), (0.5,))
    assert (facts.crop_padding, facts.flip) == (3, True)
    test = loading.load_test(facts)
    assert test.images.shape == (3, 1, 4, 4)
    assert test.images[0].unique().tolist() == [80]


def test_a_shape_asked_for_goes_before_all_others(tree: Path) -> None:
    paint(tree / "test" / "ant" / "0.png", 80, size=(20, 12))
    facts = folder.facts(str(tree), (1, 16, 16))
    assert (facts.image_shape, len(facts.mean)) == ((1, 16, 16), 1)
    assert loading.load_test(facts).images.shape == (3, 1, 16, 16)
    assert folder.facts(str(tree), (3, 6, 6)).image_shape == (3, 6, 6)


def test_images_of_several_sizes_need_a_shape(tree: Path) -> None:
    paint(tree / "test" / "bee" / "0.png", 80, size=(20, 12))
    with pytest.raises(UsageError) as caught:
        dataset(f"folder:{tree}")
    for words in ("train/ant/0.png is 8x8", "test/bee/0.png is 20x12", "dataset.toml", "image_shape = [3, 8, 8]"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("image_shap = [3, 8, 8]", "unknown key 'image_shap'; did you mean 'image_shape'?"),
        ("image_shape = [2, 8, 8]", "must be [channels, height, width] with 1 or 3 channels, not [2, 8, 8]"),
        ("image_shape = [3, 8]", "image_shape must be"),
        ("image_shape = [3, 0, 8]", "image_shape must be"),
        ("mean = 0.5", "mean must be a list of numbers from 0 to 1"),
        ("mean = [127, 127, 127]", "mean must be a list of numbers from 0 to 1"),
        ("mean = [0.5]", "mean has 1 values for images of 3 channels"),
        ("std = [0.5, 0.0, 0.5]", "std must be a list of numbers above 0"),
        ("crop_padding = -1", "crop_padding must be a number of pixels"),
        ("crop_padding = true", "crop_padding must be a number of pixels"),
        ("flip = 1", "flip must be true or false"),
        ("flip =", "cannot be read"),
    ],
)
def test_a_dataset_toml_that_makes_no_sense_is_refused(tree: Path, line: str, part: str) -> None:
    (tree / "dataset.toml").write_text(line)
    with pytest.raises(UsageError) as caught:
        dataset(f"folder:{tree}")
    assert str(caught.value).startswith(f"{tree}/dataset.toml")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("gone", "part"),
    [
        (["test"], "has train/ but neither test/ nor val/"),
        (["test/bee"], "class 'bee' is in train/ but not in test/; the classes must agree"),
        (["test/*/*"], "has no test images: its folders ant, bee, cat are empty"),
        (["*/ant", "*/bee"], "must have one folder of images per class, at least two; it has 1"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tree: Path, gone: list[str], part: str) -> None:
    for path in [path for pattern in gone for path in tree.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UsageError) as caught:
        dataset(f"folder:{tree}")
    assert part in str(caught.value)


@pytest.mark.parametrize("name", ["folder:", "folder:/does/not/exist", f"folder:{__file__}"])
def test_a_path_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^folder:\S*: there is no such folder$"):
        dataset(name)


def test_a_folder_that_vanishes_is_missed(tree: Path) -> None:
    facts = dataset(f"folder:{tree}")
    tree.rename(tree.parent / "elsewhere")
    with pytest.raises(UsageError, match="there is no such folder"):
        loading.load(facts)


@pytest.mark.parametrize("damage", [b"", b"<html>", None])
def test_a_corrupt_image_is_named(tree: Path, damage: bytes | None) -> None:
    path = tree / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:45] if damage is None else damage)
    with pytest.raises(RunError, match=r"^.*/train/bee/1.png is not a readable image: "):
        dataset(f"folder:{tree}")


def test_an_image_of_sixteen_bits_is_not_silently_made_white(tree: Path) -> None:
    Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tree / "test" / "bee" / "0.png")
    with pytest.raises(RunError, match=r"bee/0.png has more than 8 bits per channel: convert it"):
        dataset(f"folder:{tree}")


def test_facts_are_found_out_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = dataset(f"folder:{tree}")
    for name in ("header", "decode"):
        monkeypatch.setattr(array_cache, name, lambda *_: pytest.fail("opened an image again"))
    monkeypatch.setattr(folder, "header", lambda *_: pytest.fail("opened an image again"))
    assert dataset(f"folder:{tree}") is facts
    folder._facts.clear()  # as in a new process
    assert dataset(f"folder:{tree}") == facts
    assert len(loading.load(facts)[0].labels) == 6


def test_a_new_image_and_a_changed_one_are_noticed(tree: Path) -> None:
    before = dataset(f"folder:{tree}")
    first = loading.digest(before)
    path = tree / "test" / "cat" / "0.png"
    paint(path, 77)
    assert loading.digest(before) != first
    assert loading.load_test(before).images[2].unique().tolist() == [77]
    paint(tree / "test" / "cat" / "1.png", 78)
    assert dataset(f"folder:{tree}").test_size == 4
    with pytest.raises(RunError, match="the test images are 4x3x8x8, not 3x3x8x8"):
        loading.load_test(before)


def test_order_is_that_of_torchvision(tree: Path) -> None:
    from torchvision.datasets import ImageFolder

    paint(tree / "train" / "bee" / "deep" / "er.PNG", 33)
    theirs = ImageFolder(str(tree / "train"))
    train, _ = loading.load(f"folder:{tree}")
    assert train.labels.tolist() == theirs.targets
    assert torch.equal(train.images[:, 0, 0, 0], torch.tensor([np.asarray(image)[0, 0, 0] for image, _ in theirs]))


@pytest.mark.parametrize("part", ["", "test"])
def test_the_guard_watches_a_folder_once_it_was_named(tree: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through its path, a link to it and a relative name; but not what else lies beside the images."""
    named = tree / part
    dataset(f"folder:{named}")
    file = tree / "test" / "ant" / "0.png"
    (tree.parent / "link").symlink_to(tree)
    monkeypatch.chdir(tree.parent)
    for path in (file, str(file), os.fsencode(file), "own images/test/ant/0.png", "link/test/ant/0.png"):
        with pytest.raises(PrivilegeError, match=r"opened 0.png, a file of dataset folder:/"), guard.data_blocked():
            Image.open(path)
    with guard.data_blocked(), open(tree / "record.json", "w"):
        pass
    with guard.data_blocked(), open(tree.parent / "own images.txt", "w"):
        pass


def test_the_guard_watches_the_arrays_of_a_folder(tree: Path, own_home: Path) -> None:
    loading.load(f"folder:{tree}")
    (array,) = own_home.glob(".decoded/folder-own images-????????-*/test-images.npy")
    with (
        pytest.raises(PrivilegeError, match=r"opened test-images.npy, a file of dataset folder-own images-"),
        guard.data_blocked(),
    ):
        np.load(array, mmap_mode="r")
