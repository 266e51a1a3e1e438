"""A distribution as pip leaves it: its modules and its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(
    site: Path, owner: str, version: str, points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]
) -> None:
    """`points`: group -> name -> target; `modules`: path below `site` -> text."""
    for name, text in modules.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    about = site / f"{owner.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {owner}\nVersion: {version}\n")
    lines = [line for group, of in points.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in of.items()))]
    (about / "entry_points.txt").write_text("\n".join([*lines, ""]))
