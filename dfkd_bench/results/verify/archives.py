"""Verification of an exported archive: its digests, its parts against the record, and its run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfkd_bench.errors import BenchError, RunError
from dfkd_bench.plugins import code_digest
from dfkd_bench.results.verify import sums
from dfkd_bench.results.verify.check import guarded, verify
from dfkd_bench.results.verify.findings import Finding, Report, note, problem
from dfkd_bench.runs import records
from dfkd_bench.runs.runfile import CONFIG, run_file
from dfkd_bench.utils import zips


def opened(path: Path, root: Path) -> tuple[Path | None, list[Finding]]:
    """Unpack an archive below `root`. Returns its top folder (None if it has none) and findings about its files.

    Raises `UsageError` for a file that is no archive.
    """
    try:
        files = zips.unpacked(path)
        zips.write_files(files, root)
    except RunError as error:
        return None, [problem(path.name, str(error).removeprefix(f"{path}: "))]
    tops = sorted({name.partition("/")[0] for name in files})
    if len(tops) != 1 or not (root / tops[0] / sums.FILE).is_file():
        return None, [problem(path.name, f"is no export of dfkd-bench: it has no {sums.FILE}")]
    top = root / tops[0]
    listed = [p for p in top.rglob("*") if p.is_file() and p != top / sums.FILE]
    findings = list(sums.check(top, listed))
    if not findings and zips.packed(files) != path.read_bytes():
        findings.append(note(path.name, "was packed by another program; its files are unchanged"))
    return top, findings


def parts(top: Path) -> Iterator[Finding]:
    """Compare run file and method source with the record."""
    paths = list(records.find(top / "results"))
    if len(paths) != 1:
        yield problem("results", f"contains {len(paths)} records, an export has one")
        return
    record = records.read(paths[0])
    if (top / CONFIG).read_text(encoding="utf-8") != run_file(record):
        yield problem(CONFIG, "is not the run file of the record")
    if (top / "method").is_dir():
        digest = code_of(top / "method", record)
        if digest != record["spec"]["code"]:
            yield problem(
                "method", f"its source has digest {digest[:12]}, the record says {record['spec']['code'][:12]}"
            )


def code_of(folder: Path, record: dict[str, Any]) -> str:
    """The digest of a method's source in an archive. Raises `RunError` if it cannot be read."""
    plugin = record["manifest"]["plugin"]
    module, _, name = plugin["target"].rpartition(":")
    if plugin["owner"] == "file":
        return code_digest.digest_of(folder / module, folder, "", name)
    package, *rest = module.split(".")
    stem = folder.joinpath(package, *rest)
    start = stem.with_suffix(".py") if stem.with_suffix(".py").is_file() else stem / "__init__.py"
    return code_digest.digest_of(start, folder / package, package, name)


def verify_archive(path: Path, **options: Any) -> Report:
    """`verify` for an archive of `dfkd-bench export`; `options` are those of `verify`.

    Raises `UsageError` for a file that is no archive.
    """
    with tempfile.TemporaryDirectory(prefix="dfkd-bench-") as folder:
        top, findings = opened(path, Path(folder))
        if top is None or not (top / "results").is_dir():
            return Report((*findings, *([problem("results", "is missing")] if top else [])))
        findings += guarded(top.name, lambda: parts(top))
        try:
            report = verify(top / "results", **options)
        except BenchError as error:
            return Report((*findings, problem("results", str(error))))
        inside = tuple(replace(f, file=f"results/{f.file}") for f in report.findings)
        return replace(report, findings=(*findings, *inside)).below(path.name)
