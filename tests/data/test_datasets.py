"""The datasets of the catalog: what is read, with which labels, and what is refused. Small ones are made here."""

from __future__ import annotations

import ast
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import needs_data, unpacked
from small_datasets import small, write_idx

from dfkd_bench.data import array_cache, home, loading
from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.data.find import dataset
from dfkd_bench.errors import PrivilegeError, RunError, UsageError
from dfkd_bench.utils import guard

# -- real files -------------------------------------------------------------------------------------------------------

REAL = {
    "mnist": ("mnist", [5, 0, 4, 1, 9], [7, 2, 1, 0, 4]),
    "fashion-mnist": ("fashion", [9, 0, 0, 3, 0], [9, 2, 1, 1, 6]),
    "cifar10": ("cifar10", [6, 9, 9, 4, 1], [3, 8, 8, 0, 6]),
    "cifar10-16": ("cifar10", [6, 9, 9, 4, 1], [3, 8, 8, 0, 6]),
}


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where real datasets are unpacked, once."""
    return tmp_path_factory.mktemp("real")


@pytest.mark.long
@needs_data
@pytest.mark.parametrize("name", REAL)
def test_real_datasets_have_the_bytes_of_the_catalog(name: str, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, first_train, first_test = REAL[name]
    monkeypatch.setenv("DFKD_BENCH_DATA", str(unpacked(real, folder)))
    facts = dataset(name)
    assert facts.sha256
    train, test = loading.load(name)
    assert train.images.shape == (facts.train_size, *facts.image_shape)
    assert test.images.shape == (10000, *facts.image_shape)
    assert (train.labels[:5].tolist(), test.labels[:5].tolist()) == (first_train, first_test)
    assert (train.images.dtype, train.labels.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(loading.load_test(name).images, test.images)
    with pytest.raises(RunError, match=r"^dataset \S+ has SHA-256 [0-9a-f]{12}, the protocol's is 111111111111"):
        loading.load_test(replace(facts, sha256="1" * 64))
    if name != "cifar10":  # whose deviations are the customary ones
        mean, std = array_cache.mean_and_std(train.images.numpy())
        assert (mean, std) == (facts.mean, facts.std)  # of the padded or halved images
    if name == "cifar10-16":
        whole = loading.load_test("cifar10").images.float()
        assert torch.equal(test.images, (torch.nn.functional.avg_pool2d(whole, 2) + 0.5).floor().byte())
    if facts.image_shape[0] == 1:
        raw = (real / folder / facts.needs[2]).read_bytes()[16:]
        assert test.images[1, 0, 2:-2, 2:-2].numpy().tobytes() == raw[784:1568]
        assert int(test.images.sum()) == int(test.images[:, :, 2:-2, 2:-2].sum())


# -- whole-array datasets, made small ---------------------------------------------------------------------------------


def test_mnist_gets_a_black_margin(own_home: Path) -> None:
    write_idx(own_home / "mnist")
    train, test = loading.load(small("mnist", 5, 3))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 3, 4], [0, 1, 2])
    assert torch.equal(train.images[4, 0, 2:30, 2:30], torch.full((28, 28), 5, dtype=torch.uint8))
    assert int(train.images[4].sum()) == 5 * 784


@pytest.mark.parametrize("place", ["fashion-mnist", "fashion", "."])
def test_a_dataset_is_looked_for_by_name_by_alias_and_in_the_home_itself(own_home: Path, place: str) -> None:
    facts = small("fashion-mnist", 5, 3)
    assert not home.is_present(facts)
    write_idx(own_home / place, kind="FashionMNIST")
    assert home.is_present(facts)
    assert len(loading.load_test(facts).labels) == 3


def test_a_missing_dataset_says_where_it_was_looked_for_and_how_to_get_it(own_home: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loading.load("cifar100")
    for words in (
        f"cifar100 is not in {own_home}",
        "`dfkd-bench data fetch cifar100`",
        "--data-dir",
        "DFKD_BENCH_DATA",
    ):
        assert words in str(caught.value)


def test_without_a_data_dir_the_users_own_folder_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DFKD_BENCH_DATA")
    assert home.data_home() == tmp_path / "user" / "data"
    monkeypatch.delenv("DFKD_BENCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert home.data_home() == Path("/x/dfkd-bench/data")


def test_damaged_and_incomplete_files_are_refused(own_home: Path) -> None:
    raw = write_idx(own_home / "mnist", train=4)
    with pytest.raises(
        RunError, match=r"^dataset mnist: the train images are 4x1x32x32, not 5x1x32x32: it is incomplete"
    ):
        loading.load(small("mnist", 5, 3))
    write_idx(own_home / "mnist", label=11)
    with pytest.raises(RunError, match=r"^dataset mnist: a train label is outside of its 10 classes$"):
        loading.load(small("mnist", 5, 3))
    for damage in (lambda old: old[: len(old) // 2], lambda old: b"", lambda old: b"<html>not an image</html>" * 99):
        write_idx(own_home / "mnist")
        file = raw / "train-images-idx3-ubyte"
        file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(RunError, match=r"^dataset mnist in \S+ cannot be read \(.*data fetch mnist`$"):
            loading.load(small("mnist", 5, 3))


def trust(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Let torchvision take files of any checksum."""
    monkeypatch.setattr(f"torchvision.datasets.{kind}._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)


def test_svhn_has_the_digit_ten_as_class_zero(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    (own_home / "svhn").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    for split in ("train", "test"):
        savemat(own_home / "svhn" / f"{split}_32x32.mat", {"X": images, "y": np.array([[1], [10], [9], [5]], np.uint8)})
    facts = small("svhn", 4, 4)
    with pytest.raises(RunError, match=r"^dataset svhn in \S+ cannot be read \(Dataset not found or corrupted"):
        loading.load(facts)  # torchvision knows the checksums of the real files
    trust(monkeypatch, "SVHN")
    train, _ = loading.load(facts)
    assert train.labels.tolist() == [1, 0, 9, 5]
    assert np.array_equal(train.images[2].numpy(), images[:, :, :, 2].transpose(2, 0, 1))


def test_cifar100_has_its_fine_labels(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_home / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    rows = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    for split in ("train", "test"):
        table = {"data": rows, "fine_labels": [99, 0, 42], "coarse_labels": [1, 2, 3]}
        (folder / split).write_bytes(pickle.dumps(table))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a"]}))
    facts = small("cifar100", 3, 3)
    with pytest.raises(RunError, match="corrupted"):
        loading.load(facts)  # a pickle of another checksum is never unpickled
    trust(monkeypatch, "CIFAR100")
    train, test = loading.load(facts)
    assert test.labels.tolist() == [99, 0, 42]
    assert np.array_equal(train.images[1].numpy(), rows[1].reshape(3, 32, 32))


def test_cifar10_is_halved_by_means_of_four_pixels(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the files of CIFAR-10 where those lie; a half is rounded up, and 4 x 255 does not overflow."""
    folder = own_home / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rows = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    rows[0, 0, :2, :8] = [[0, 0, 0, 0, 0, 1, 255, 255], [0, 1, 1, 1, 1, 1, 255, 255]]
    for number, file in enumerate((*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")):
        (folder / file).write_bytes(pickle.dumps({"data": rows.reshape(1, 3072), "labels": [number]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"]}))
    trust(monkeypatch, "CIFAR10")
    train, test = loading.load(small("cifar10-16", 5, 1))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 3, 4], [5])
    assert test.images.shape == (1, 3, 16, 16)
    assert test.images[0, 0, 0, :4].tolist() == [0, 1, 1, 255]  # means 1/4, 2/4, 3/4 and 255
    by_hand = [[int(rows[0, c, 2 * i : 2 * i + 2, 14:16].sum()) for i in range(16)] for c in range(3)]
    assert [[(total + 2) // 4 for total in column] for column in by_hand] == test.images[0, :, :, 7].tolist()
    assert not home.is_present(replace(facts := dataset("cifar10-16"), made_of=""))
    assert home.is_present(facts)


# -- what is known of the bytes ---------------------------------------------------------------------------------------


def test_files_read_before_are_not_read_again_and_changed_ones_are(own_home: Path, monkeypatch) -> None:
    raw = write_idx(own_home / "mnist")
    facts, read = small("mnist", 5, 3), []
    from torchvision.datasets import mnist as reader

    real = reader.read_image_file
    monkeypatch.setattr(reader, "read_image_file", lambda path: read.append(Path(path).name[:5]) or real(path))
    loading.load_test(facts)
    assert sorted(read) == ["t10k-", "train"]  # the first time all is read, to be verified
    loading.load_test(facts), loading.digest(facts)
    assert sorted(read) == ["t10k-", "t10k-", "train"]
    before = loading.digest(facts)
    labels = raw / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x07")
    assert loading.digest(facts) != before
    with pytest.raises(RunError, match="the protocol's is"):
        loading.load_test(replace(facts, sha256=before))
    assert all(isinstance(value, str) for value in loading._digests.values())  # no image stays behind


def test_the_fingerprint_is_over_types_shapes_and_bytes() -> None:
    images, labels, none = np.zeros((2, 1, 3, 4), np.uint8), np.array([0, 1]), np.zeros((0, 1, 3, 4), np.uint8)
    same = loading.fingerprint((images, labels, none, labels))
    for other in (images + 1, images.reshape(2, 1, 4, 3), images.astype(np.int8)):
        assert loading.fingerprint((other, labels, none, labels)) != same
    assert loading.fingerprint((images[:, :, ::-1][:, :, ::-1], labels, none, labels)) == same


# -- the guard --------------------------------------------------------------------------------------------------------

WATCHED = {
    "mnist": ["/d/MNIST/raw/train-images-idx3-ubyte", "/d/mnist/t10k-images-idx3-ubyte.gz"],
    "fashion-mnist": ["/d/FashionMNIST/raw/t10k-labels-idx1-ubyte", "/d/fashion/train-images-idx3-ubyte"],
    "svhn": ["/d/train_32x32.mat", "/d/extra_32x32.mat"],
    "cifar10": ["/d/cifar-10-batches-py/data_batch_3", "/d/cifar-10-python.tar.gz"],
    "cifar100": ["/d/cifar-100-python/test"],
    "tiny-imagenet": ["/d/tiny-imagenet-200/val/images/val_0.JPEG", "/d/tiny-imagenet-200.zip",
                      "/d/.decoded/tiny-imagenet-0123456789abcdef0123/test-images.npy"],
    "caltech101": ["/d/101_ObjectCategories/ant/image_0001.jpg", "/d/101_ObjectCategories.tar.gz"],
    "imagenette": ["/d/imagenette2-160/train/n01440764/a.JPEG"],
}  # fmt: skip


@pytest.mark.parametrize("name", WATCHED)
def test_opening_any_file_of_a_dataset_is_a_violation(name: str) -> None:
    for path in WATCHED[name]:
        with (
            pytest.raises(PrivilegeError, match=rf"opened {Path(path).name}, a file of dataset {name}$"),
            guard.data_blocked(),
        ):
            Path(path).read_bytes()


def test_files_that_only_sound_like_a_dataset_are_no_violation(tmp_path: Path) -> None:
    for name in ("runs/MNIST/record.json", "runs/cifar10/resnet34-resnet18/a.pt", "caltech101/tv_resnet34/a.json",
                 "imagenette/a.json", "tiny-imagenet/resnet50-resnet18/curves.csv", "mnist/lenet5/a.npy"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        with guard.data_blocked(), open(path, "w") as file:
            file.write("x")


def test_a_shut_door_loads_nothing_at_all(own_home: Path) -> None:
    write_idx(own_home / "mnist")
    for way in (loading.load, loading.load_test, loading.digest):
        with pytest.raises(PrivilegeError, match="tried to load a dataset"), guard.data_blocked():
            way(small("mnist", 5, 3))


def test_nothing_but_fetch_can_download() -> None:
    """torchvision is asked to download in functions `download` of datasets' files, and `fetch` alone calls these."""
    package = Path(guard.__file__).parents[1]
    asking, calling = set(), set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        allowed = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "download"]
        inside = {node for function in allowed for node in ast.walk(function)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name, place = ast.unparse(node.func), path.relative_to(package).as_posix()
            if "download_" in name or any(
                k.arg == "download" and ast.unparse(k.value) == "True" for k in node.keywords
            ):
                asking.add(place if node in inside else f"{place}, outside of download()")
            if name == "download" or name.endswith((".function", ".download")):
                calling.add(place)
    assert calling == {"data/fetch.py"}
    assert {place.rpartition("/")[0] for place in asking} == {"data/datasets"}
    assert not [place for place in asking if "outside" in place]
    assert len(asking) == sum(facts.download is not None for facts in DATASETS.values())
