"""`SHA256SUMS`: what lies in a results folder, in the format of coreutils (`sha256sum -c SHA256SUMS` reads it too).

Weights and synthetic images are not listed: each record names their digests, and a repository may leave them out.
Neither are README.md, which people write, and what only a running process needs.
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
    """The files that the sums of a results folder list, in their order."""
    found = []
    for path in root.rglob("*"):
        inside = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in inside)
        if path.is_file() and not hidden and path.name not in UNLISTED and not {"snapshots", "plans"} & set(inside):
            found.append(path)
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def write_sums(results: Path) -> Path:
    """Write the sums of everything in a results folder, last of all renderings. Raises `RunError`."""
    target = results / FILE
    sums = ((path.relative_to(results).as_posix(), file_sha256(path)) for path in covered(results))
    write_atomic(target, lines_of(sums).encode())
    return target


def lines_of(digests: Iterable[tuple[str, str]]) -> str:
    """Lines as sha256sum writes them, from (name, digest); odd characters in a name are escaped as it does."""
    text = ""
    for name, digest in digests:
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        text += f"{chr(92) * (escaped != name)}{digest}  {escaped}\n"
    return text


def parse(text: str) -> dict[str, str]:
    """Digest by name. Raises `ValueError`, naming the line, for a text that sha256sum does not write."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        escaped, line = line.startswith("\\"), line.removeprefix("\\")
        digest, gap, name = line[:64], line[64:66], line[66:]
        if len(digest) != 64 or set(digest) - set("0123456789abcdef") or gap not in ("  ", " *") or not name:
            raise ValueError(f"line {number} is not one of sha256sum")
        if escaped:
            name = re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), name)
        found[name] = digest
    return found


def check(root: Path, paths: Iterable[Path] | None = None) -> Iterator[Finding]:
    """Every listed file is here with its bytes, and every file that should be is listed (`paths`: `covered`)."""
    try:
        listed = parse((root / FILE).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        yield problem(FILE, f"cannot be read: {error}")
        return
    here = {p.relative_to(root).as_posix(): p for p in (covered(root) if paths is None else paths)}
    for name in sorted({*listed, *here}):
        if name not in here and not (root / name).is_file():
            yield problem(name, f"is missing, and {FILE} lists it")
        elif name not in listed:
            yield problem(name, f"is not listed in {FILE}")
        elif (found := file_sha256(root / name)) != listed[name]:
            yield problem(name, f"has SHA-256 {found[:12]}, {FILE} says {listed[name][:12]}")
