"""SHA-256 as hexadecimal text."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256(content: bytes | str) -> str:
    """SHA-256 of bytes, or of text in UTF-8."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file. Raises `OSError` if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
