"""Datasets of JPEG files in folders, made small: splits, labels, resizing, and the arrays that are kept of them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_datasets import picture, small, tiny_tree

from dfkd_bench.data import array_cache, loading
from dfkd_bench.data.base import Dataset
from dfkd_bench.data.datasets import caltech101
from dfkd_bench.errors import RunError


def test_the_stock_layout_of_tiny_imagenet_yields_the_right_labels(own_home: Path) -> None:
    from torchvision.datasets import ImageFolder

    top, facts = tiny_tree(own_home)
    train, test = loading.load(facts)
    assert test.labels.tolist() == [1, 2, 0, 2]  # n02, n03, n01, n03 in the order of sorted names
    for k in range(4):
        stored = np.asarray(Image.open(top / "val" / "images" / f"val_{k}.JPEG"))
        assert np.array_equal(test.images[k].numpy().transpose(1, 2, 0), stored)
    reference = ImageFolder(str(top / "train"))
    assert train.labels.tolist() == [label for _, label in reference.samples]
    assert np.array_equal(train.images[1].numpy().transpose(1, 2, 0), np.asarray(reference[1][0]))  # a grey file


def test_validation_files_moved_into_class_folders_keep_their_labels(own_home: Path) -> None:
    top, facts = tiny_tree(own_home)
    before = loading.load_test(facts)
    (top / "val" / "n02" / "images").mkdir(parents=True)
    shutil.move(top / "val" / "images" / "val_0.JPEG", top / "val" / "n02" / "images")
    after = loading.load_test(facts)
    assert torch.equal(before.images, after.images)
    assert torch.equal(before.labels, after.labels)


def test_a_tiny_imagenet_that_is_not_whole_is_refused(own_home: Path) -> None:
    top, facts = tiny_tree(own_home)
    with pytest.raises(RunError, match=r"has 3 classes, not 200: it is incomplete$"):
        loading.load("tiny-imagenet")
    (top / "val" / "images" / "val_2.JPEG").unlink()
    with pytest.raises(RunError, match=r"lists 'val_2.JPEG' of class 'n01', which is missing$"):
        loading.load(facts)
    shutil.rmtree(top / "train" / "n01")
    with pytest.raises(RunError, match=r"there is no folder \S+/train/n01$"):
        loading.load(facts)


def caltech_tree(home_: Path) -> Dataset:
    top = home_ / "caltech101" / "caltech101" / "101_ObjectCategories"
    for name, count in {"BACKGROUND_Google": 3, "Faces": 5, "ant": 3, "beaver": 21}.items():
        for k in range(count):
            picture(top / name / f"image_{k + 1:04d}.jpg", k, (150, 140), mode="L" if k == 0 else "RGB")
    return replace(small("caltech101", 21, 8, classes=3), image_shape=(3, 16, 16))


def test_caltech_is_split_class_by_class_with_at_least_two_for_testing(own_home: Path) -> None:
    facts = caltech_tree(own_home)
    train, test = loading.load(facts)
    assert [int((test.labels == k).sum()) for k in range(3)] == [2, 2, 4]  # of 5, 3 and 21: max(floor(0.2 n), 2)
    assert [int((train.labels == k).sum()) for k in range(3)] == [3, 1, 17]  # the background is no class
    seen = {image.numpy().tobytes() for image in train.images[train.labels == 2]}
    held = {image.numpy().tobytes() for image in test.images[test.labels == 2]}
    assert (len(seen), len(held), seen & held) == (17, 4, set())


def test_the_split_of_caltech_is_the_same_everywhere(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    monkeypatch.setattr(array_cache, "source_of", lambda facts, root, samples: found.update(samples))
    caltech101.read(caltech_tree(own_home))
    names = [f"{path.parent.name}/{path.stem[-2:]}" for path, _ in found["test"]]
    assert names == ["Faces/01", "Faces/05", "ant/01", "ant/03", "beaver/08", "beaver/09", "beaver/12", "beaver/17"]


def test_imagenette_is_read_in_the_order_of_torchvision(own_home: Path) -> None:
    from torchvision.datasets import Imagenette

    names = list(Imagenette._WNID_TO_CLASS)[:3]
    top = own_home / "imagenette" / "imagenette2-160"
    for split, count in (("train", 2), ("val", 1)):
        for name in names:
            for k in range(count):
                picture(top / split / name / f"{name}_{k}.JPEG", k, (200, 160))
    train, test = loading.load(small("imagenette", 6, 3, classes=3))
    theirs = Imagenette(own_home / "imagenette", split="train", size="160px")
    assert train.labels.tolist() == [theirs[k][1] for k in range(6)]
    assert test.images.shape == (3, 3, 128, 128)


@pytest.mark.parametrize("size", [(150, 140), (140, 150), (128, 300), (64, 40), (128, 128), (61, 67)])
def test_images_are_resized_and_cropped_as_torchvision_does(tmp_path: Path, size: tuple[int, int]) -> None:
    from torchvision.transforms import v2

    picture(tmp_path / "a.jpg", 3, size)
    theirs = v2.Compose([v2.Resize(128), v2.CenterCrop(128), v2.PILToTensor()])(Image.open(tmp_path / "a.jpg"))
    assert np.array_equal(array_cache.decode(tmp_path / "a.jpg", (3, 128, 128)), theirs.numpy())


def test_an_oblong_shape_is_covered(tmp_path: Path) -> None:
    for size in ((100, 40), (40, 100), (33, 21)):
        picture(tmp_path / "a.jpg", 3, size)
        image = array_cache.decode(tmp_path / "a.jpg", (1, 20, 32))
        assert image.shape == (1, 20, 32)
        assert image[0, 0].min() > 0 or image[0, -1].min() > 0  # no black bar of a crop that reached beyond


# -- decoded arrays ---------------------------------------------------------------------------------------------------


def test_images_are_decoded_once_and_anew_when_a_file_changes(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, facts = tiny_tree(own_home)
    first, decode, count = loading.load_test(facts), array_cache.decode, []
    monkeypatch.setattr(array_cache, "decode", lambda path, shape: count.append(path) or decode(path, shape))
    assert torch.equal(loading.load_test(facts).images, first.images)
    loading.load(facts)
    assert not count
    (kept,) = (own_home / ".decoded").glob("tiny-imagenet-*")
    picture(top / "val" / "images" / "val_3.JPEG", 999)
    second = loading.load_test(facts)
    assert len(count) == 10
    assert (second.images != first.images).flatten(1).any(1).tolist() == [False, False, False, True]
    (now,) = (own_home / ".decoded").glob("tiny-imagenet-*")  # what is stale is not kept
    assert now != kept
    assert not list((own_home / ".decoded").glob(".*tmp*"))


def test_a_failure_while_decoding_leaves_nothing_behind(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, facts = tiny_tree(own_home)
    bad = top / "val" / "images" / "val_1.JPEG"
    whole = bad.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no image at all", b""):
        bad.write_bytes(damaged)
        with pytest.raises(RunError, match=r"^\S+val_1.JPEG is not a readable image: "):
            loading.load(facts)
        assert [p.suffix for p in (own_home / ".decoded").iterdir()] == [".lock"]
    bad.write_bytes(whole)
    assert len(loading.load_test(facts).labels) == 4


def test_a_data_home_that_cannot_be_written_to_sends_the_arrays_to_the_users_folder(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, facts = tiny_tree(own_home)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(own_home)) and access(path, mode))
    assert len(loading.load_test(facts).labels) == 4
    assert list((tmp_path / "user" / "data" / ".decoded").glob("tiny-imagenet-*"))
    assert not list((own_home / ".decoded").glob("tiny-imagenet-*"))


def test_a_damaged_array_says_what_to_delete(own_home: Path) -> None:
    _, facts = tiny_tree(own_home)
    loading.load(facts)
    (kept,) = (own_home / ".decoded").glob("tiny-imagenet-*")
    (kept / "test-images.npy").write_bytes(b"x")
    with pytest.raises(RunError, match=rf"^{kept} is damaged: delete it"):
        loading.load(facts)
