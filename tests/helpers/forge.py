"""Real results, made once per session, and tools to falsify them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from smoke_runs import GOOD, plan, start

from dfkd_bench.report.tables.leaderboard import leaderboard, write_csv
from dfkd_bench.report.tables.runs import load_results
from dfkd_bench.results.verify import Report
from dfkd_bench.runs import records
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.utils import checkpoint
from dfkd_bench.utils.hashing import file_sha256


def make_results(root: Path) -> Path:
    """Two seeds of a bound that ships and one run of a method in a file that has a generator, and their table."""
    for planned in [*plan(root, "scratch", seeds=(0, 1)), *plan(root, GOOD)]:
        start(planned, root)
    write_csv(leaderboard(load_results(root)), root / "leaderboard.csv")
    return root


class Forger:
    """A copy of results that may be changed."""

    def __init__(self, original: Path, root: Path) -> None:
        shutil.copytree(original, root)
        self.root = root

    def folder(self, method: str = "scratch", seed: int = 0) -> Path:
        """The folder of a run."""
        (found,) = self.root.glob(f"*/*/{method}/pinned-smoke-s{seed}-*")
        return found

    def empty(self, folder: Path, *kept: str) -> None:
        """Remove all files of a run but those called `kept`."""
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()

    def edit(self, change: Callable[[dict[str, Any]], Any], folder: Path | None = None, seal: bool = True) -> Path:
        """Change a record, and renew its seal unless `seal` is False; returns its folder."""
        folder = folder or self.folder()
        record = json.loads((folder / records.FILE).read_text())
        change(record)
        if seal and "seal" in record:
            record["seal"] = records.seal(record)
        (folder / records.FILE).write_text(json.dumps(record, indent=1) + "\n")
        return folder

    def settle(self, folder: Path | None = None, move: bool = False) -> Path:
        """Make all digests of a record fit its files; with `move`, also its hash and folder fit its specification."""
        folder = folder or self.folder()

        def digests(record: dict[str, Any]) -> None:
            for part in (record["result"]["files"], record["artifacts"]):
                part.update({n: file_sha256(folder / n) for n in part if (folder / n).is_file()})
            with suppress(SafetensorError, FileNotFoundError):  # an unreadable student has no digest
                record["result"]["digests"]["student"] = checkpoint.digest(load_file(folder / "student.safetensors"))
            if move:
                record["hash"] = RunSpec.from_json(record["spec"]).hash

        self.edit(digests, folder)
        if not move:
            return folder
        place = self.root / RunSpec.from_json(json.loads((folder / records.FILE).read_text())["spec"]).folder
        place.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(folder, place))

    def curves(self, change: Callable[[list[dict[str, str]]], Any], folder: Path | None = None) -> None:
        """Change the rows of a run's curves."""
        path = (folder or self.folder()) / "curves.csv"
        rows = list(csv.DictReader(path.open()))
        columns = list(rows[0])
        change(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue())

    def tensors(self, name: str, change: Callable[[dict[str, torch.Tensor]], Any], folder: Path | None = None) -> None:
        """Change a file of tensors."""
        path = (folder or self.folder()) / name
        held = {k: v.clone() for k, v in load_file(path).items()}
        change(held)
        save_file(held, path)

    def table(self) -> None:
        """Write the leaderboard again, from the changed records."""
        write_csv(leaderboard(load_results(self.root)), self.root / "leaderboard.csv")


def said(report: Report) -> str:
    """The problems of a verification, a line each."""
    return "\n".join(map(str, report.problems))


def flip(path: Path, at: float = 0.6, bit: int = 0) -> None:
    """Flip one bit of a file, at a share of its length."""
    payload = bytearray(path.read_bytes())
    payload[int(at * len(payload))] ^= 1 << bit
    path.write_bytes(payload)
