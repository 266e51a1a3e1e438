"""One run's folder, read for verification, and checks of its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_bench.errors import BenchError
from dfkd_bench.protocol import PROTOCOL
from dfkd_bench.results.verify.findings import Finding, note, problem
from dfkd_bench.runs import curves, records
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.utils import checkpoint
from dfkd_bench.utils.hashing import file_sha256
from dfkd_bench.utils.locks import LOCK
from dfkd_bench.utils.parse import parse_json

CURVES, PREDICTIONS = curves.FILE, "predictions.safetensors"
STUDENT, SAMPLES, GENERATOR = "student.safetensors", "samples.safetensors", records.GENERATOR
DRAWN = {"samples.png"}  # pictures that may be in the folder and are not in the record
NEEDED, LARGE = (CURVES, PREDICTIONS), (STUDENT, SAMPLES, GENERATOR)  # large files are often not in a repository


@dataclass(frozen=True, eq=False)
class Case:
    """A run's folder and its record: the content of the file (`raw`), and in the current schema (`record`)."""

    root: Path
    folder: Path
    raw: dict[str, Any]
    record: dict[str, Any]

    @property
    def spec(self) -> RunSpec:
        """The run's specification. Raises `RunError` if it is incomplete."""
        return RunSpec.from_json(self.record["spec"])

    @property
    def result(self) -> dict[str, Any]:
        """The record's part `result`."""
        result: dict[str, Any] = self.record["result"]
        return result

    @property
    def ended(self) -> bool:
        """True if the run is complete or diverged, and so has numbers."""
        return self.result.get("status") in ("complete", "diverged")

    @property
    def protocol(self) -> str:
        """The protocol version in the record."""
        return str(self.record["spec"].get("protocol"))

    @property
    def version(self) -> str:
        """The version of dfkd-bench in the record."""
        return str(self.record["manifest"].get("dfkd_bench"))

    @property
    def of_today(self) -> bool:
        """True if the record has the current protocol version."""
        return self.protocol == PROTOCOL

    def name(self, file: str = records.FILE) -> str:
        """The name of a file of this run in findings."""
        return relative(self.folder / file, self.root)

    def problem(self, what: str, file: str = records.FILE) -> Finding:
        """A problem with a file of this run."""
        return problem(self.name(file), what)

    def note(self, what: str, file: str = records.FILE) -> Finding:
        """A note on a file of this run."""
        return note(self.name(file), what)


def relative(path: Path, root: Path) -> str:
    """The name of `path` in findings: relative to `root`, or only the file name for a file in `root` itself."""
    return (path.relative_to(root) if path.parent != root else Path(path.name)).as_posix()


def read_case(folder: Path, root: Path) -> tuple[Case | None, list[Finding]]:
    """The run in `folder` (None if its record cannot be read), and findings about the record file."""
    path = folder / records.FILE
    name = relative(path, root)
    try:
        text = path.read_bytes().decode()
        raw = parse_json(text)
        record = records.read(path)
    except OSError as error:
        return None, [problem(name, f"cannot be read: {error.strerror}")]
    except (BenchError, ValueError, AttributeError, KeyError, TypeError) as error:
        return None, [
            problem(name, f"is not a record of dfkd-bench: {str(error).splitlines()[0].replace(str(path), name)}")
        ]
    parts = [k for k in ("spec", "manifest", "result", "measurement") if not isinstance(record.get(k), dict)]
    if parts or not isinstance(record.get("hash"), str):
        return None, [problem(name, f"is not a complete record: no {(parts or ['hash'])[0]}")]
    case = Case(root, folder, raw, record)
    return case, [*check_format(case, text), *check_seal(case)]


def check_format(case: Case, text: str) -> Iterator[Finding]:
    """The file must equal, byte for byte, what `records.write` makes of its content."""
    expected = json.dumps(case.raw, indent=1) + "\n"
    if text != expected:
        pairs = zip(text.split("\n"), expected.split("\n"), strict=False)
        line = next((k for k, (a, b) in enumerate(pairs, 1) if a != b), 1 + min(text.count("\n"), expected.count("\n")))
        yield case.problem(f"line {line} is not as dfkd-bench writes it: the file was edited or damaged")


def check_seal(case: Case) -> Iterator[Finding]:
    """The record's seal must match its content."""
    schema, stored = case.raw.get("schema"), case.raw.get("seal")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        yield case.problem(f"schema {schema!r} is not one of dfkd-bench")
    elif schema == 1:
        if "settings" in case.raw["spec"]:
            yield case.problem("says schema 1, and its specification has the settings of schema 2")
        yield case.note("is of schema 1, which has no seal")
        return
    try:
        computed = records.seal(case.raw)
    except ValueError:
        yield case.problem("contains a number that is not finite, and dfkd-bench writes none")
        return
    if stored is None:
        yield case.problem("has no seal: it was removed, or the record was not written by dfkd-bench")
    elif computed != stored:
        yield case.problem("its seal does not match its content: the record was changed after it was written")


def check_files(case: Case) -> Iterator[Finding]:
    """The files of the folder must be those of the record, with the recorded digests."""
    named: dict[str, str] = {**case.result.get("files", {}), **case.record.get("artifacts", {})}
    if case.ended:
        expected = {CURVES, PREDICTIONS, STUDENT} | ({SAMPLES} if case.result.get("samples") is not None else set())
        for name in sorted(expected - set(case.result.get("files", {}))):
            yield case.problem(f"result.files does not name {name}")
    for name, digest in named.items():
        path = case.folder / name
        if Path(name).name != name:
            yield case.problem(f"names a file {name!r} outside of its folder")
        elif not path.is_file():
            if name in LARGE:
                yield case.note(f"{name} is not here: numbers that need it were not computed again")
            else:
                yield case.problem("is missing, and the record names it", name)
        elif (actual := file_sha256(path)) != digest:
            yield case.problem(f"has SHA-256 {actual[:12]}, the record says {shown_digest(digest)}", name)
    for path in sorted(case.folder.iterdir()):
        if path.name in named or path.name in (records.FILE, LOCK, *DRAWN):
            continue
        if path.name in (*NEEDED, *LARGE):
            yield case.problem("is here, and the record does not name it", path.name)
        elif path.name in (checkpoint.NAME, records.PACE, "snapshots") and not case.ended:
            continue
        else:
            yield case.note("is not a file of a finished run", path.name)


def shown_digest(digest: Any) -> str:
    """The first 12 digits of a digest, or the `repr` of another value."""
    return digest[:12] if isinstance(digest, str) else repr(digest)


def without_record(root: Path) -> Iterator[Finding]:
    """Folders with files of a run but without a record."""
    known = {*NEEDED, *LARGE, checkpoint.NAME}
    for folder in sorted({p.parent for p in root.rglob("*") if p.name in known}):
        if (folder / records.FILE).exists() or folder.name == "snapshots":
            continue
        if not any((folder / name).exists() for name in NEEDED):
            yield note(relative(folder, root), "is a run that is not finished")
        else:
            yield problem(relative(folder / records.FILE, root), "is missing: its folder contains the files of a run")
