"""The one place of the benchmark that downloads. Whole or absent: a dataset appears in its folder when all is there."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from dfkd_bench.data.base import FOLDER, Dataset, Download
from dfkd_bench.data.find import dataset
from dfkd_bench.data.home import data_home, find_folder
from dfkd_bench.errors import RunError, UsageError

TIMEOUT = 60.0  # seconds without a byte until a server counts as dead
ARCHIVES = (".gz", ".tgz", ".zip", ".tar")


def check_fetchable(name: str) -> Dataset:
    """Facts of a dataset that can be downloaded; raises `UsageError` for one that need not or cannot be."""
    if name.startswith(FOLDER):
        raise UsageError(f"{name} is a folder of your own: there is nothing to fetch")
    facts = dataset(name)
    if not facts.needs:
        raise UsageError(f"{name} comes with the package: there is nothing to fetch")
    if not (facts.made_of or facts.download):
        raise UsageError(f"{name} cannot be downloaded: place {_needed(facts)} in {data_home() / name} by hand")
    return facts


def fetch(name: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Download a dataset into the data home and return its folder; does nothing if it is there already.

    For one that is made of another dataset's files, those are fetched. `say` gets one line before and one after. Raises
    `UsageError` for a name that cannot be fetched, `RunError` for a network that fails, bytes with another checksum and
    a disk that refuses.
    """
    from filelock import FileLock, Timeout

    facts = check_fetchable(name)
    if facts.made_of:
        return fetch(facts.made_of, say)
    if there := find_folder(facts):
        say(f"{name} is there already: {there}")
        return there
    home, download = data_home(), facts.download
    assert download is not None  # checked above
    root, part = home / name, home / f".{name}.part"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise RunError(f"{root} is there but not whole (it needs {_needed(facts)}): move it away and fetch it anew")
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / f".{name}.lock", timeout=0)
        with lock:
            say(f"fetching {name} from {download.address} (about {download.megabytes} MB)")
            part.mkdir(exist_ok=True)  # of an interrupted one, a whole archive is used again
            _download(facts, download, part, root)
            _drop_archives(part)
            if root.exists():
                root.rmdir()
            part.rename(root)
    except Timeout:
        raise RunError(f"another process is fetching {name} into {home}: wait for it") from None
    except OSError as error:
        raise RunError(f"cannot write below {home}: {error.strerror or error}; choose another --data-dir") from error
    say(f"{name} is in {root}; {facts.source}; `dfkd-bench data verify {name}` reads it whole")
    return root


def _download(facts: Dataset, download: Download, part: Path, root: Path) -> None:
    """Run the downloader quietly, and say in one line why it failed."""
    by_hand = f"; or place {_needed(facts)} in {root} by hand"
    try:
        with _quiet():
            download.bring(part)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        if isinstance(error, OSError) and _is_local(error):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if any("corrupted" in line for line in lines):
            raise RunError(
                f"what came from {download.address} has not the checksum of {facts.name}: the download was cut short "
                f"or the file is another one; try again{by_hand}"
            ) from error
        raise RunError(f"cannot fetch {facts.name} from {download.address}: {lines[-1][:160]}{by_hand}") from error


def _needed(facts: Dataset) -> str:
    first, *others = facts.needs
    return first + (f" (and {len(others)} more)" if others else "")


def _is_local(error: OSError) -> bool:
    """Whether it is the disk that refuses, not the network: errors of the network name no file of ours."""
    return error.filename is not None and os.path.isabs(str(error.filename))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and with an end to waiting for a server."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _drop_archives(folder: Path) -> None:
    """What has been unpacked is not kept twice."""
    for path in folder.rglob("*"):
        if path.suffix in ARCHIVES and path.is_file():
            path.unlink()
