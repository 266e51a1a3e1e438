"""`SHA256SUMS`: digests of a results folder in the format of coreutils; `sha256sum -c SHA256SUMS` checks it too.

Weights and synthetic images are not listed: records contain their digests, and a repository may leave them out.
README.md and the files of running processes are not listed either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dfkd_bench.results.verify.case import LARGE
from dfkd_bench.results.verify.findings import Finding, problem
from dfkd_bench.utils import checkpoint
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.hashing import file_sha256

FILE = "SHA256SUMS"
UNLISTED = {FILE, "README.md", checkpoint.NAME, *LARGE}


def covered(root: Path) -> list[Path]:
    """The files to list, sorted."""
    paths = []
    for path in root.rglob("*"):
        inside = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in inside)
        if path.is_file() and not hidden and path.name not in UNLISTED and not {"snapshots", "plans"} & set(inside):
            paths.append(path)
    return sorted(paths, key=lambda p: p.relative_to(root).as_posix())


def write_sums(results: Path) -> Path:
    """Write `SHA256SUMS`, after all other files. Raises `RunError` if it cannot be written."""
    target = results / FILE
    sums = ((path.relative_to(results).as_posix(), file_sha256(path)) for path in covered(results))
    write_atomic(target, lines_of(sums).encode())
    return target


def lines_of(digests: Iterable[tuple[str, str]]) -> str:
    """Lines in the format of sha256sum from (name, digest), with its escapes in names."""
    text = ""
    for name, digest in digests:
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        text += f"{chr(92) * (escaped != name)}{digest}  {escaped}\n"
    return text


def parse(text: str) -> dict[str, str]:
    """Digest by name. Raises `ValueError` with the line number for another format."""
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        escaped, line = line.startswith("\\"), line.removeprefix("\\")
        digest, gap, name = line[:64], line[64:66], line[66:]
        if len(digest) != 64 or set(digest) - set("0123456789abcdef") or gap not in ("  ", " *") or not name:
            raise ValueError(f"line {number} is not in the format of sha256sum")
        if escaped:
            name = re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), name)
        digests[name] = digest
    return digests


def check(root: Path, paths: Iterable[Path] | None = None) -> Iterator[Finding]:
    """Compare the listed digests with the files, and the list with `paths` (default: `covered`)."""
    try:
        listed = parse((root / FILE).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        yield problem(FILE, f"cannot be read: {error}")
        return
    existing = {p.relative_to(root).as_posix() for p in (covered(root) if paths is None else paths)}
    for name in sorted({*listed, *existing}):
        if name not in existing and not (root / name).is_file():
            yield problem(name, f"is missing, and {FILE} lists it")
        elif name not in listed:
            yield problem(name, f"is not listed in {FILE}")
        elif (digest := file_sha256(root / name)) != listed[name]:
            yield problem(name, f"has SHA-256 {digest[:12]}, {FILE} says {listed[name][:12]}")
