"""Plug-ins as files: a method whose steps are given as text, and packages that declare entry points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

METHOD = """
from dataclasses import dataclass
import torch
from dfkd_bench.method import Batch, Method, setting

@dataclass(frozen=True)
class Config:
    size: int = setting(1, "a number")

class Mine(Method):
    Config = Config
    def synthesize(self):
        {synthesize}
    def sample(self, n):
        {sample}
"""


def write_method(
    path: Path, *, synthesize: str = "return {}", sample: str = "return Batch(torch.zeros(n, 1, 16, 16))"
) -> str:
    """A method `Mine` in a file, for digits16; returns the word for `--method`."""
    path.write_text(METHOD.format(synthesize=synthesize, sample=sample))
    return f"{path}:Mine"


def declare(site: Path, owner: str, version: str, group: str, points: Mapping[str, str]) -> None:
    """The metadata of a distribution with entry points, as pip leaves it; of one more group where it is there."""
    about = site / f"{owner.replace('-', '_')}-{version}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {owner}\nVersion: {version}\n")
    lines = [f"{name} = {target}" for name, target in points.items()]
    with (about / "entry_points.txt").open("a") as file:
        file.write("\n".join([f"[{group}]", *lines, ""]))
