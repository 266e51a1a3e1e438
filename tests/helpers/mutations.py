"""Which errors the tests catch: thirty small errors, put into a clone of the repository one at a time.

    python tests/helpers/mutations.py OUT.json [--repository FOLDER] [--only NUMBER ...]

An error is a text in the package and another in its place. The clone is tested first by the test files that import the
changed module (at most one test fails: it stops at the first), and only where these pass by the full tier. OUT.json
gets a row for each as it comes; rows that are in it already are not made again. At the end a Markdown table is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import structure

MUTATIONS = (  # area, text, text in its place; the text stands in one place of the package
    ("loop", "== 0 or round + 1 == plan.rounds:", "== 0:"),
    ("loop", "job.optimiser.zero_grad(set_to_none=True)", "pass"),
    ("loop", "job.context.streams.reseed(round)", "job.context.streams.reseed(0)"),
    ("loop", 'job.student.train(flags.mode(call) != "eval")', "job.student.train()"),
    ("loop", "images = rounds * job.schedule.student_steps * job", "images = rounds * job"),
    ("losses", "return divergence.mean() * temperature**2", "return divergence.mean() * temperature"),
    ("losses", "positive = (y[:, None] == y[None, :]) & ~itself", "positive = y[:, None] == y[None, :]"),
    ("losses", "terms.append(torch.linalg.vector_norm(variance - stored_variance))", "pass"),
    ("losses", "m = 0.5 * (p_s + p_t)", "m = 0.5 * (p_s + p_t).detach()"),
    ("losses", "layer.momentum = 1.0 - (1.0 - share) ** times", "layer.momentum = share * times"),
    ("losses", "agree = (s.argmax(1) == t.argmax(1)).to(s.dtype)", "agree = torch.ones_like(s[:, 0])"),
    ("registry", "sys.modules.pop(name, None)", "pass"),
    ("registry", "base = path.parents[node.level - 1]", "base = path.parent"),
    ("registry", "if len(fitting) != 1:", "if not fitting:"),
    ("records", 'return record if record["result"]["status"] in ("complete", "diverged") else None', "return record"),
    ("records", "isinstance(node, float) and not math.isfinite(node):", "isinstance(node, float) and node != node:"),
    ("records", "if info.choices and result not in info.choices:", "if False:"),
    ("records", 'if k not in ("seal", "path")}', 'if k not in ("seal", "path", "measurement")}'),
    ("verification", "if counts[less] > counts[more]:", "if False:"),
    ("verification", "if marks[-1] > trained + 1e-6:", "if False:"),
    ("verification", "or any(b < a for a, b in pairwise(marks)):", "or False:"),
    (
        "verification",
        "near = (np.abs(confidence[:, None] - borders[1:-1]) < ROUNDED).any(1)",
        "near = np.zeros(len(hits))",
    ),
    ("statistics", "np.maximum(sd, rounding_spread(resolution))", "sd"),
    ("statistics", "max(difference - step, 0)", "difference"),
    ("statistics", "cut = pooled.shape[-1] // 4", "cut = pooled.shape[-1] // 5"),
    ("statistics", "p = 2 * stdtr(freedom, -t)", "p = stdtr(freedom, -t)"),
    ("engines", "tries.get(work.spec.hash, 0) < ", "tries.get(work.spec.hash, 0) <= "),
    ("engines", "if error.exitcode == OUT_OF_MEMORY:", "if False:"),
    ("engines", "gpus[number % len(gpus)]", "gpus[0]"),
    ("engines", "if hung and work.limits.seconds:", "if False:"),
)
HERE = Path(__file__).resolve()


def source_of(text: str, package: Path) -> Path:
    """The one file of the package that has `text`. Raises `SystemExit` where it is not once in one file."""
    found = [path for path in sorted(package.rglob("*.py")) for _ in range(path.read_text().count(text))]
    if len(found) != 1:
        raise SystemExit(f"{text!r} stands in {len(found)} places of {package}, not in one")
    return found[0]


def importers(source: Path, repository: Path) -> list[str]:
    """Test files that import the module `source` themselves or by a module of helpers."""
    package = repository / "dfkd_bench"
    known = structure.modules(package)
    (name,) = (name for name, path in known.items() if path == source)
    tests = sorted((repository / "tests").rglob("*.py"))
    direct = {path for path in tests if name in structure.imports(path, known, package.name)}
    helpers = {path.stem for path in direct if not path.stem.startswith("test_")}
    by_helper = {path for path in tests if any(f"import {h}\n" in path.read_text() or f"from {h} " in path.read_text()
                                               for h in helpers)}  # fmt: skip
    found = [path for path in sorted(direct | by_helper) if path.stem.startswith("test_")]
    found.sort(key=lambda path: len(set(structure.imports(path, known, package.name))))  # the most specific first
    return [str(path.relative_to(repository)) for path in found]


def tested(repository: Path, words: list[str]) -> tuple[str, float]:
    """The first test that fails, or nothing, and seconds."""
    begun = time.monotonic()
    path = os.pathsep.join(map(str, (repository, repository / "methods")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words], cwd=repository, check=False,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    failed = [line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode not in (0, 5) and not failed:
        failed = ["ERROR " + (done.stdout + done.stderr).strip().splitlines()[-1]]
    return " ".join(failed[:1]), time.monotonic() - begun


def one(number: int, repository: Path, full: list[str]) -> dict[str, Any]:
    """The row of one error."""
    area, text, instead = MUTATIONS[number]
    source = source_of(text, repository / "dfkd_bench")
    whole = source.read_text()
    files = importers(source, repository)
    try:
        source.write_text(whole.replace(text, instead))
        failed, seconds, more = "", 0.0, 0.0
        if files:
            failed, seconds = tested(repository, [*full, *files])
        by = "its own tests" if failed else ""
        if not failed:
            failed, more = tested(repository, full)
            by = "the full tier" if failed else "nothing"
    finally:
        source.write_text(whole)
    where = source.relative_to(repository / "dfkd_bench").as_posix()
    return {"number": number, "area": area, "file": where, "text": text, "instead": instead, "caught_by": by,
            "test": failed, "seconds": round(seconds + more, 1)}  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repository", type=Path, default=HERE.parents[2])
    parser.add_argument("--only", type=int, nargs="*", default=range(len(MUTATIONS)))
    parser.add_argument("--full", default="-m full", help="words for pytest that choose the full tier")
    given = parser.parse_args()
    rows = json.loads(given.out.read_text()) if given.out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "clone", "--quiet", str(given.repository), str(copy)], check=True)
        for number in given.only:
            if any(row["number"] == number for row in rows):
                continue
            rows.append(one(number, copy, given.full.split(" ", 1)))
            given.out.write_text(json.dumps(rows, indent=1) + "\n")
            print(rows[-1], flush=True)
    print("| area | file | text | in its place | caught by |\n| :-- | :-- | :-- | :-- | :-- |")
    for row in rows:
        print(f"| {row['area']} | {row['file']} | `{row['text']}` | `{row['instead']}` | {row['caught_by']} |")
    print(f"{sum(row['caught_by'] != 'nothing' for row in rows)} of {len(rows)} caught")


if __name__ == "__main__":
    main()
