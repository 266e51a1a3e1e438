"""`dfkd-bench data`: list, fetch (from a server of the test's own) and verify."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from commands import Command, Refused, snoop
from small_datasets import small, tiny_tree, write_idx

from dfkd_bench.cli.options import DATA_DIR
from dfkd_bench.data.base import Dataset, Download
from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.data.datasets import tiny_imagenet
from dfkd_bench.data.home import find_folder


class Quiet(SimpleHTTPRequestHandler):
    """A server that says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    one = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{one.server_port}"
    one.shutdown()
    one.server_close()


def serve_tiny(server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve a small Tiny-ImageNet in place of the real one."""
    top, facts = tiny_tree(tmp_path / "made")
    archive = server[0] / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(top.rglob("*")):
            file.write(path, path.relative_to(top.parent))
    address = f"{server[1]}/{archive.name}"
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    serve(facts, address, md5, monkeypatch)
    return address


def serve(facts: Dataset, address: str, md5: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Tiny-ImageNet come from `address`."""
    bring = partial(tiny_imagenet.download, address=address, md5=md5)
    monkeypatch.setitem(DATASETS, "tiny-imagenet", replace(facts, download=Download(address, 248, bring)))


def test_fetch_brings_a_dataset_whole(server, tmp_path: Path, monkeypatch, command: Command) -> None:
    address = serve_tiny(server, tmp_path, monkeypatch)
    place = tmp_path / "new" / "home"
    status, out, err = command("data", "fetch", "tiny-imagenet", "--data-dir", place)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"fetching tiny-imagenet from {address} (about 248 MB)"
    assert lines[1].startswith(f"tiny-imagenet is in {place}/tiny-imagenet; Stanford CS231n")
    assert len(lines) == 2
    assert not list(place.rglob("*.zip"))  # unpacked and not kept twice
    assert sorted(p.name for p in place.iterdir() if p.name[0] != ".") == ["tiny-imagenet"]
    status, out, _ = command("data", "verify", "tiny-imagenet", "--data-dir", place)
    assert status == 0
    assert "tiny-imagenet: 6 + 4 images, readable; the catalog has no digest for it\n  SHA-256 " in out
    status, out, _ = command("data", "fetch", "tiny-imagenet", "--data-dir", place)
    assert (status, out) == (0, f"tiny-imagenet is already there: {place}/tiny-imagenet\n")


def test_bytes_of_another_checksum_are_refused_and_fetched_anew(
    server, tmp_path, monkeypatch, command: Command
) -> None:
    address = serve_tiny(server, tmp_path, monkeypatch)
    archive = server[0] / "tiny-imagenet-200.zip"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    place = tmp_path / "home"
    words = ("data", "fetch", "tiny-imagenet", "--data-dir", place)
    status, _, err = command(*words)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"error: the download from {address} has a wrong checksum for tiny-imagenet: ")
    assert not (place / "tiny-imagenet").exists()
    archive.write_bytes(whole)
    assert command(*words)[0] == 0
    assert find_folder(replace(DATASETS["tiny-imagenet"])) is None  # the option was for that command alone


def test_a_network_that_fails_is_one_line_that_says_what_to_do(server, tmp_path, monkeypatch, command: Command) -> None:
    for address, why in ((f"{server[1]}/none.zip", "404"), ("http://127.0.0.1:9/t.zip", "refused")):
        serve(tiny_imagenet.DATASET, address, tiny_imagenet.MD5, monkeypatch)
        status, _, err = command("data", "fetch", "tiny-imagenet", "--data-dir", tmp_path / "home")
        assert (status, err.count("\n")) == (1, 1)
        assert err.startswith(f"error: cannot fetch tiny-imagenet from {address}: ")
        assert why in err
        assert err.endswith(
            f"; or put tiny-imagenet-200/train (and 2 more) into {tmp_path}/home/tiny-imagenet yourself\n"
        )


def test_a_half_filled_folder_of_the_users_is_left_alone(tmp_path, command: Command) -> None:
    (tmp_path / "home" / "mnist" / "MNIST").mkdir(parents=True)
    status, _, err = command("data", "fetch", "mnist", "--data-dir", tmp_path / "home")
    assert status == 1
    assert "is incomplete (it needs MNIST/raw/train-images-idx3-ubyte (and 3 more)): move it away" in err


def test_a_disk_that_refuses_is_not_called_a_network(tmp_path, monkeypatch, command: Command) -> None:
    def full(root: Path) -> None:
        raise OSError(28, "No space left on device", str(root / "a.gz"))

    facts = DATASETS["mnist"]
    monkeypatch.setitem(DATASETS, "mnist", replace(facts, download=replace(facts.download, function=full)))
    status, _, err = command("data", "fetch", "mnist", "--data-dir", tmp_path / "home")
    said = f"error: cannot write below {tmp_path}/home: No space left on device; choose another --data-dir\n"
    assert (status, err) == (1, said)


KINDS = {
    "mnist": ("MNIST", [{}]),
    "fashion-mnist": ("FashionMNIST", [{}]),
    "svhn": ("SVHN", [{"split": "train"}, {"split": "test"}]),
    "cifar10": ("CIFAR10", [{}]),
    "cifar100": ("CIFAR100", [{}]),
    "caltech101": ("Caltech101", [{}]),
    "imagenette": ("Imagenette", [{"split": "train", "size": "160px"}]),
}


def test_every_dataset_of_files_can_be_fetched() -> None:
    able = {name for name, facts in DATASETS.items() if facts.download}
    assert able == {facts.made_of or name for name, facts in DATASETS.items() if facts.needs}
    assert able == {*KINDS, "tiny-imagenet"}


@pytest.mark.parametrize("name", [*KINDS, "cifar10-16"])
def test_torchvision_is_asked_to_download_into_a_folder_aside(name, tmp_path, monkeypatch, command: Command) -> None:
    """A dataset that is made of another's files fetches those."""
    asked: list[tuple[Any, dict[str, Any]]] = []
    origin = DATASETS[name].made_of or name

    def stand_in(root: Path, **options: Any) -> None:
        asked.append((root, options))
        for path in DATASETS[origin].needs:
            (Path(root) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(root) / path).write_text("x")
        (Path(root) / "archive.tar.gz").write_text("x")
        print("noise")

    monkeypatch.setattr(f"torchvision.datasets.{KINDS[origin][0]}", stand_in)
    home = tmp_path / "home"
    status, out, _ = command("data", "fetch", name, "--data-dir", home)
    assert status == 0
    assert out.startswith(f"fetching {origin} from ")
    assert "noise" not in out
    assert asked == [(home / f".{origin}.part", {**options, "download": True}) for options in KINDS[origin][1]]
    assert [p.name for p in home.iterdir() if not p.name.endswith(".lock")] == [origin]
    assert not (home / origin / "archive.tar.gz").exists()
    assert (home / origin / DATASETS[origin].needs[0]).exists()
    assert command("data", "fetch", name, "--data-dir", home)[1] == f"{origin} is already there: {home}/{origin}\n"


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (["fetch", "minst"], 2, "did you mean 'mnist'"),
        (["fetch", "digits16"], 2, "comes with the package"),
        (["fetch", "folder:/x"], 2, "your own folder"),
        (["fetch", "mnist", "cifar11"], 2, "did you mean 'cifar10'"),
        (["fetch"], 2, "Missing argument"),
        (["verify", "imagenet"], 2, "did you mean 'imagenette'"),
        (["verify", "folder:/does/not/exist"], 2, "there is no such folder"),
        (["verify", "svhn"], 1, "svhn is not in "),
        (["list", "--data-dir", "/does/not/exist"], 2, "--data-dir /does/not/exist: there is no such folder"),
        (["list", "--data-dir", __file__], 2, "is a file, not a folder"),
        (["fetch", "mnist", "--data-dir", __file__], 2, "is a file, not a folder"),
    ],
)
def test_what_is_refused(refused: Refused, words: list[str], status: int, part: str) -> None:
    assert part in refused("data", *words, status=status)


def test_verify_names_every_dataset_that_is_wrong(own_home: Path, monkeypatch, command: Command) -> None:
    monkeypatch.setitem(DATASETS, "mnist", replace(small("mnist", 5, 3, classes=6), sha256="1" * 64))
    monkeypatch.setitem(DATASETS, "fashion-mnist", small("fashion-mnist", 5, 3, classes=6))
    write_idx(own_home / "mnist")
    write_idx(own_home / "fashion", kind="FashionMNIST")
    status, out, err = command("data", "verify")
    assert status == 1
    assert out.startswith("digits16: 1200 + 597 images, as in the catalog\n  SHA-256 2d5661a7b446c27b83eb6addaf118")
    wrong, empty = err.splitlines()
    assert wrong.startswith("error: dataset mnist has SHA-256 ")
    assert "the protocol's is 111111111111" in wrong
    assert empty == "error: dataset fashion-mnist: no test image of class 3"


def test_list_says_what_is_here_and_waits_for_nothing(own_home: Path) -> None:
    write_idx(own_home / "mnist")
    for words in (("data", "list"), ("list", "datasets")):
        out, loaded = snoop(*words)
        rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()[:1]}
        assert loaded == "[]"
        assert [rows[name][5] for name in ("digits16", "mnist", "cifar10")] == ["yes", "yes", "-"]
        assert rows["caltech101"][1:5] == ["101", "3x128x128", "6983", "1694"]
        assert f"or in {own_home};" in out


def test_the_option_holds_for_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    @click.command()
    @DATA_DIR
    def one() -> None:
        click.echo(os.environ.get("DFKD_BENCH_DATA"))

    for before in ("/somewhere", None):
        monkeypatch.setenv("DFKD_BENCH_DATA", before) if before else monkeypatch.delenv("DFKD_BENCH_DATA")
        assert CliRunner().invoke(one, ["--data-dir", str(tmp_path)]).output == f"{tmp_path}\n"
        assert os.environ.get("DFKD_BENCH_DATA") == before
    assert CliRunner().invoke(one, []).output == "\n"
