"""One run in one archive: record, curves, predictions, networks, samples, configuration, environment, source.

<name>.zip
    <name>/README.txt           what is in it, how to check it, how to repeat the run
    <name>/SHA256SUMS           of all the rest, as sha256sum writes it
    <name>/run.toml             the run file: `dfkd-bench run run.toml` makes the same specification
    <name>/environment.json     as recorded by the run, and as found when it was exported
    <name>/teacher.json         name, SHA-256 and origin; the weights are not in the archive
    <name>/method/              the method's source files
    <name>/results/...          the run's folder where a results folder has it: `verify` and `merge` take it
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dfkd_bench import protocol
from dfkd_bench.errors import BenchError, RunError, UsageError
from dfkd_bench.plugins import registry
from dfkd_bench.results.verify import integrity
from dfkd_bench.results.verify.case import LARGE, Case
from dfkd_bench.results.verify.identity import LocalPlugins
from dfkd_bench.results.verify.sums import FILE as SUMS
from dfkd_bench.results.verify.sums import lines_of
from dfkd_bench.runs import records
from dfkd_bench.runs.runfile import CONFIG, run_file
from dfkd_bench.utils.hashing import sha256
from dfkd_bench.utils.zips import pack

RECORDED = ("dfkd_bench", "git_commit", "git_dirty", "python", "platform", "packages", "cuda", "device", "threads")


@dataclass(frozen=True)
class Exported:
    """An archive that was written, and what it lacks, in words."""

    path: Path
    files: int
    lacks: tuple[str, ...]


def export(run: Path, out: Path | None = None, method: str | None = None) -> Exported:
    """Write the archive of one run (its folder or record) to `out`, by default a name of its own in this folder.

    `method` says where the source of a method in a file is. Raises `UsageError` for a run that has not come to its end
    and for another method, `RunError` for one that is damaged.
    """
    folder = Path(records.read(run)["path"]).parent
    case, findings = integrity(folder, folder)
    wrong = [f for f in findings if f.severity == "problem"]
    if wrong or case is None:
        raise RunError(f"{folder} is not whole, {wrong[0]}: `dfkd-bench verify --results {folder}` shows all")
    if not case.ended:
        raise UsageError(f"the run in {folder} failed: there is nothing to export")
    name = "-".join(case.spec.folder.split("/")[1:]).removesuffix(case.spec.hash) + case.record["hash"]
    out = out or Path(f"{name}.zip")
    if out.suffix.lower() != ".zip":
        raise UsageError(f"--out names a .zip file, got {out.name!r}")
    if not out.parent.is_dir():
        raise UsageError(f"no folder {out.parent} to write to")
    source, lacks = source_of(case, method)
    others = case.record["manifest"].get("plugins", ())
    named = {**case.result["files"], **case.record.get("artifacts", {})}
    place = "/".join(case.folder.resolve().parts[-len(case.spec.folder.split("/")) :])
    there = [n for n in (records.FILE, *named) if (folder / n).is_file()]
    files = {f"results/{place}/{n}": (folder / n).read_bytes() for n in there}
    files |= {f"method/{n}": payload for n, payload in source.items()}
    files[CONFIG] = run_file(case.record).encode()
    files["environment.json"] = as_json(environment(case.record))
    files["teacher.json"] = as_json(teacher_reference(case.record))
    lacks += tuple(f"no source of {p['kind']} {p['name']}: it is of {p['owner']} {p['version']}" for p in others)
    lacks = (*lacks, *(f"{n} is not here" for n in LARGE if n in named and n not in there), *no_generator(case))
    files["README.txt"] = readme(name, f"results/{place}", case.record, lacks).encode()
    digests = ((n, sha256(files[n])) for n in sorted(files))
    files[SUMS] = lines_of(digests).encode()
    pack(out, {f"{name}/{n}": payload for n, payload in files.items()})
    return Exported(out, len(files), lacks)


def no_generator(case: Case) -> tuple[str, ...]:
    """Why there is no generator, where there is none."""
    if records.GENERATOR in case.record.get("artifacts", {}):
        return ()
    if not case.result["generator_parameters"]:
        return ("no generator: the method registers no network",)
    return ("no generator: the run was made before runs kept it",)


def source_of(case: Case, method: str | None) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The source files of the run's method, or none and why. Raises `UsageError` where `method` is another one."""
    spec = case.spec
    try:
        entry = registry.resolve(method or spec.method)
        digest = registry.code_digest(entry)
    except BenchError as error:
        if method:
            raise
        hint = "; name its file with --method" if ":" in spec.method else ""
        return {}, (f"no source: {error}{hint}",)
    if entry.name != spec.method or (method and digest != spec.code):
        raise UsageError(f"{method} is not the method of this run, which was made with {spec.method} {spec.code[:12]}")
    if digest != spec.code:
        commit = case.record["manifest"].get("git_commit") or "unknown"
        return {}, (f"no source: that of {spec.method} is another here than in the run (commit {commit})",)
    return registry.source_files(entry), ()


def environment(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the run recorded of its environment, and all that is installed where it is exported."""
    import torch

    about = record["manifest"]
    installed = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"]}
    return {
        "run": {key: about.get(key) for key in RECORDED},
        "export": {
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "distributions": [f"{n}=={installed[n]}" for n in sorted(installed, key=str.lower)],
            "torch": torch.__config__.show().splitlines(),
        },
    }


def teacher_reference(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the teacher: as the record says, and how it was made where it is registered here."""
    found = LocalPlugins().teacher(record["spec"]["teacher"])
    known = ("dataset", "arch", "seed", "recipe", "origin")
    return {**record["manifest"]["teacher"], **({k: getattr(found, k) for k in known} if found else {})}


def with_code(version: str) -> str:
    """Which code repeats a run of this protocol, where a git tag keeps it."""
    kept = protocol.tag(version)
    return f", with the code of git tag {kept}" if kept else ""


def as_json(tree: Mapping[str, Any]) -> bytes:
    """JSON for people."""
    return (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode()


def readme(name: str, place: str, record: Mapping[str, Any], lacks: tuple[str, ...]) -> str:
    """What the archive says of itself."""
    spec, accuracy = record["spec"], record["result"]["accuracy"]
    last = "not a number" if accuracy["last"] is None else f"{accuracy['last']:.2f} %"
    missing = "".join(f"  {what}\n" for what in lacks)
    return f"""One run of dfkd-bench {record["manifest"]["dfkd_bench"]}, protocol {spec["protocol"]}.

  {spec["method"]} (preset {spec["preset"]}) on {spec["task"]}, {spec["track"]}/{spec["budget"]}, seed {spec["seed"]}
  test top-1 of the last checkpoint: {last}

In this archive
  {place}/   the run: record.json names every other file of it by SHA-256
  run.toml   its configuration
  method/    the source of the method
  environment.json, teacher.json
{f"What it lacks{chr(10)}{missing}" if lacks else ""}
To check it (the student is evaluated again)
  dfkd-bench verify {name}.zip
  sha256sum -c SHA256SUMS              digests alone, without dfkd-bench

To repeat it, in this folder{with_code(spec["protocol"])}
  dfkd-bench run run.toml --results again
  dfkd-bench run --like {place} --results again     and compare, byte for byte

To take it into a results folder
  dfkd-bench merge results --into RESULTS

Sums are no signature: they find damage, and every number follows from the files beside it, but who made them they do
not say.
"""
