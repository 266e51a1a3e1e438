"""Downloads of datasets; nothing else in the package downloads. A dataset's folder appears only when it is complete."""

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

TIMEOUT = 60.0  # seconds without data before a download fails
ARCHIVES = (".gz", ".tgz", ".zip", ".tar")


def check_fetchable(name: str) -> Dataset:
    """Facts of a downloadable dataset; raises `UsageError` if it needs no download or has none."""
    if name.startswith(FOLDER):
        raise UsageError(f"{name} is your own folder: there is nothing to fetch")
    facts = dataset(name)
    if not facts.needs:
        raise UsageError(f"{name} comes with the package: there is nothing to fetch")
    if not (facts.made_of or facts.download):
        raise UsageError(f"{name} cannot be downloaded: put {_needed(facts)} into {data_home() / name} yourself")
    return facts


def fetch(name: str, report: Callable[[str], None] = lambda line: None) -> Path:
    """Download a dataset into the data home and return its folder; does nothing if it is already there.

    For a dataset derived from another one, that one is downloaded. `report` is called with one line before and one line
    after. Raises `UsageError` for a dataset without a download, `RunError` for a network or disk error and for a wrong
    checksum.
    """
    from filelock import FileLock, Timeout

    facts = check_fetchable(name)
    if facts.made_of:
        return fetch(facts.made_of, report)
    if folder := find_folder(facts):
        report(f"{name} is already there: {folder}")
        return folder
    home, download = data_home(), facts.download
    assert download is not None  # checked above
    root, part = home / name, home / f".{name}.part"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise RunError(f"{root} is incomplete (it needs {_needed(facts)}): move it away and fetch it again")
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / f".{name}.lock", timeout=0)
        with lock:
            report(f"fetching {name} from {download.address} (about {download.megabytes} MB)")
            part.mkdir(exist_ok=True)  # after an interruption, an archive that is complete is used again
            _download(facts, download, part, root)
            _drop_archives(part)
            if root.exists():
                root.rmdir()
            part.rename(root)
    except Timeout:
        raise RunError(f"another process is fetching {name} into {home}: wait for it") from None
    except OSError as error:
        raise RunError(f"cannot write below {home}: {error.strerror or error}; choose another --data-dir") from error
    report(f"{name} is in {root}; {facts.source}; `dfkd-bench data verify {name}` checks it")
    return root


def _download(facts: Dataset, download: Download, part: Path, root: Path) -> None:
    """Run the downloader without output; raise a `RunError` of one line if it fails."""
    by_hand = f"; or put {_needed(facts)} into {root} yourself"
    try:
        with _quiet():
            download.function(part)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        if isinstance(error, OSError) and _is_local(error):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if any("corrupted" in line for line in lines):
            raise RunError(
                f"the download from {download.address} has a wrong checksum for {facts.name}: it was cut short "
                f"or is another file; try again{by_hand}"
            ) from error
        raise RunError(f"cannot fetch {facts.name} from {download.address}: {lines[-1][:160]}{by_hand}") from error


def _needed(facts: Dataset) -> str:
    first, *others = facts.needs
    return first + (f" (and {len(others)} more)" if others else "")


def _is_local(error: OSError) -> bool:
    """Whether an error comes from the disk, not the network: only disk errors name a local file."""
    return error.filename is not None and os.path.isabs(str(error.filename))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No output (progress bars) within, and `TIMEOUT` for sockets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _drop_archives(folder: Path) -> None:
    """Delete the archives, which are unpacked already."""
    for path in folder.rglob("*"):
        if path.suffix in ARCHIVES and path.is_file():
            path.unlink()
