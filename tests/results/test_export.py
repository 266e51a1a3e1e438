"""`dfkd-bench export`: an archive holds all of a run, comes out the same twice, and shows what was changed in it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Printed, Refused
from forge import GOOD, Forger
from forgeries import of_another_protocol
from safetensors.torch import load_file

from dfkd_bench.results.archive import export
from dfkd_bench.results.verify import verify_archive
from dfkd_bench.results.verify.sums import lines_of
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.runfile import read_run_file, run_file
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.utils import zips


@pytest.fixture(scope="module")
def archive(real_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a method in a file, with its source."""
    (run,) = real_results.glob("*/*/good_Good/*")
    return export(run, tmp_path_factory.mktemp("archive") / "a.zip", GOOD).path


def inside(path: Path) -> dict[str, bytes]:
    """Files by their name below the archive's folder."""
    return {name.partition("/")[2]: payload for name, payload in zips.unpacked(path).items()}


@pytest.mark.long
def test_an_archive_holds_the_run_its_source_its_configuration_and_its_environment(
    archive: Path, real_results: Path
) -> None:
    files = inside(archive)
    (run,) = real_results.glob("*/*/good_Good/*")
    place = f"results/{run.relative_to(real_results).as_posix()}"
    assert {n for n in files if not n.startswith("results/")} == {
        "README.txt", "SHA256SUMS", "run.toml", "environment.json", "teacher.json", "method/good.py",
    }  # fmt: skip
    for path in run.iterdir():
        if path.name != ".lock":
            assert files[f"{place}/{path.name}"] == path.read_bytes()
    assert f"{place}/generator.safetensors" in files
    assert files["method/good.py"] == Path(GOOD.partition(".py")[0] + ".py").read_bytes()
    about = json.loads(files["environment.json"])
    assert about["run"]["packages"]["torch"] in {
        d.partition("==")[2] for d in about["export"]["distributions"] if d.startswith("torch==")
    }
    assert json.loads(files["teacher.json"])["arch"] == "cnn32"
    readme = files["README.txt"].decode()
    assert "Not in this archive" not in readme
    assert f"dfkd-bench run --like {place}" in readme
    assert verify_archive(archive).problems == []
    assert verify_archive(archive).students == 1


def test_the_generator_is_the_method_s_at_the_end(real_results: Path) -> None:
    (run,) = real_results.glob("*/*/good_Good/*")
    held = load_file(run / records.GENERATOR)
    assert {k: tuple(v.shape) for k, v in held.items()} == {
        "generator.0.weight": (16, 1, 3, 3), "generator.0.bias": (16,),
    }  # fmt: skip
    assert records.read(run)["result"]["generator_parameters"] == 16 * 9 + 16
    assert records.GENERATOR not in records.read(run)["result"]["files"]
    (other,) = real_results.glob("*/*/scratch/pinned-smoke-s0-*")
    assert not (other / records.GENERATOR).exists()
    assert records.read(other)["artifacts"] == {}


def test_the_same_run_gives_the_same_archive(archive: Path, real_results: Path, tmp_path: Path) -> None:
    (run,) = real_results.glob("*/*/good_Good/*")
    again = export(run / records.FILE, tmp_path / "b.zip", GOOD).path
    assert again.read_bytes() == archive.read_bytes()


def test_its_run_file_makes_the_same_specification(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zips.write_files(inside(archive), tmp_path)
    monkeypatch.chdir(tmp_path)
    (planned,) = make_plan(Request(**read_run_file(Path("run.toml"))), tmp_path / "runs")
    (record,) = records.read_all(tmp_path / "results")
    assert planned.spec == RunSpec.from_json(record["spec"])


def test_a_run_file_says_every_kind_of_setting(real_results: Path, tmp_path: Path) -> None:
    (run,) = real_results.glob("*/*/scratch/pinned-smoke-s0-*")
    record = records.read(run)
    record["spec"]["overrides"] = {"a b": 'quo"te\n', "flag": True, "rate": 1e-05, "n": 3, "many": [0.5, 1.0], "é": "ü"}
    (tmp_path / "run.toml").write_text(run_file(record), encoding="utf-8")
    fields = read_run_file(tmp_path / "run.toml")
    assert fields["overrides"] == record["spec"]["overrides"]
    assert fields["methods"] == ("scratch",)
    assert (fields["seeds"], fields["threads"], fields["compile"]) == ((0,), 1, False)


def test_an_installed_method_s_source_has_its_package(real_results: Path, tmp_path: Path) -> None:
    (run,) = real_results.glob("*/*/scratch/pinned-smoke-s1-*")
    done = export(run, tmp_path / "x.zip")
    assert "method/dfkd_methods/scratch.py" in inside(done.path)
    assert done.lacks == ("no generator: the method registers no network",)
    report = verify_archive(done.path, quick=True)
    assert (report.problems, report.notes) == ([], [])


def test_a_run_of_an_earlier_protocol_says_which_code_repeats_it(forger: Forger, archive: Path, tmp_path: Path) -> None:
    of_another_protocol(forger)
    done = export(forger.folder(), tmp_path / "x.zip")
    first, second = (inside(path)["README.txt"].decode() for path in (done.path, archive))
    assert "To repeat it, in this folder, with the code of git tag protocol-1.1\n" in first
    assert "To repeat it, in this folder\n" in second
    report = verify_archive(done.path)
    assert (report.problems, report.students) == ([], 1)
    note = "1 record of protocol 1.1, an earlier version: checked only against its own files"
    assert sum(note in str(f) for f in report.notes) == 1


Change = Callable[[dict[str, bytes]], Any]


def put(name: str, payload: bytes) -> Change:
    return lambda files: files.update({n: payload for n in files if n.endswith(name)})


def bits(name: str) -> Change:
    def change(files: dict[str, bytes]) -> None:
        (found,) = (n for n in files if n.endswith(name))
        files[found] = files[found][:-1] + bytes([files[found][-1] ^ 1])

    return change


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(
    ("change", "file", "says"),
    [
        (bits("student.safetensors"), "student.safetensors", "has SHA-256"),
        (bits("generator.safetensors"), "generator.safetensors", "has SHA-256"),
        (put("run.toml", b'method = "noise"\n'), "run.toml", "is not the run file of the record"),
        (put("good.py", b"class Good: pass\n"), "method", "its source has digest"),
        (lambda files: files.pop(next(n for n in files if n.endswith("curves.csv"))), "curves.csv", "is missing"),
    ],
)
def test_what_is_changed_in_an_archive_is_named(
    archive: Path, tmp_path: Path, change: Change, file: str, says: str, fitted: bool
) -> None:
    import hashlib

    files = zips.unpacked(archive)
    top = next(iter(files)).partition("/")[0]
    change(files)
    if fitted:  # the sums are made to say the same
        digests = ((n.removeprefix(f"{top}/"), hashlib.sha256(files[n]).hexdigest()) for n in sorted(files))
        files[f"{top}/SHA256SUMS"] = lines_of(d for d in digests if d[0] != "SHA256SUMS").encode()
    zips.pack(tmp_path / "b.zip", files)
    report = verify_archive(tmp_path / "b.zip", quick=True)
    found = [f for f in report.problems if f.file.startswith("b.zip:") and file in f.file and says in f.what]
    assert found, report.problems
    assert any("SHA256SUMS" in f.what for f in report.problems) is not fitted


def test_a_damaged_archive_is_a_problem_and_another_packer_a_note(archive: Path, tmp_path: Path) -> None:
    payload = bytearray(archive.read_bytes())
    payload[payload.index(b"PNG") if b"PNG" in payload else len(payload) // 2] ^= 1
    (tmp_path / "bad.zip").write_bytes(payload)
    (found,) = verify_archive(tmp_path / "bad.zip", quick=True).problems
    assert (found.file, "is damaged" in found.what) == ("bad.zip", True)
    with zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_DEFLATED) as other:
        for name, content in zips.unpacked(archive).items():
            other.writestr(name, content)
    report = verify_archive(tmp_path / "other.zip", quick=True)
    assert report.problems == []
    assert any("was packed by another program" in f.what for f in report.notes)


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "a/../../out.txt", "a\\out.txt"])
def test_an_archive_cannot_write_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as evil:
        evil.writestr(zipfile.ZipInfo(name), "x")
        evil.filelist[0].filename = name
    (found,) = verify_archive(tmp_path / "evil.zip").problems
    assert "which is invalid in an export" in found.what
    assert not list(tmp_path.rglob("out.txt"))


def test_the_command(printed: Printed, monkeypatch: Any, forger: Forger, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run = forger.folder()
    out = printed("export", run)
    name = f"digits16_cnn32-cnn16-scratch-{run.name}.zip"
    assert out.splitlines() == ["without: no generator: the method registers no network", f"10 files: {name}"]
    assert printed("verify", name) == "1 record, 1 student evaluated again: all as recorded\n"
    (forger.folder("good_Good") / "student.safetensors").unlink()
    out = printed("export", forger.folder("good_Good"), "-o", "good.zip")
    assert "without: no source: unknown method 'good:Good'" in out
    assert "without: student.safetensors is not here" in out


def test_what_cannot_be_exported(
    refused: Refused, forger: Forger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = forger.folder()
    assert refused("export", "nowhere") == "error: no record at nowhere\n"
    assert refused("export", run, "-o", "run.tar") == "error: --out must name a .zip file, got 'run.tar'\n"
    assert refused("export", run, "-o", "no/run.zip") == "error: no folder no to write to\n"
    assert "is not the method of this run" in refused("export", run, "-m", GOOD)
    (run / "curves.csv").write_text("round\n")
    said = refused("export", run, status=1)
    assert ("curves.csv: has SHA-256" in said, "dfkd-bench verify" in said) == (True, True)
    forger.edit(lambda r: r.update(result={"status": "failed", "error": "no"}))
    forger.empty(run, records.FILE)
    assert "failed: there is nothing to export" in refused("export", run)
    assert not list(tmp_path.glob("*.zip"))
