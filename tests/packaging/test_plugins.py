"""Somebody else's package: found by its entry point, run and checked like ours."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Refused, finding, python
from plugin_file import declare
from smoke_runs import GOOD_FILE

from dfkd_bench.conformance import check_method
from dfkd_bench.errors import UsageError
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import GROUP
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request, make_plan

GOOD = GOOD_FILE.read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good plugin, two that break on import, and two that claim one name."""
    root = tmp_path_factory.mktemp("site")
    helper = "from surprise_dfkd.helper import SHIFT\n\n\n@dataclass"
    helped = GOOD.replace("\n\n@dataclass", f"\n{helper}", 1).replace("0.01 * self", "SHIFT * self")
    for owner, version, names, text in (
        ("surprise-dfkd", "1.2.3", ["surprise"], helped),
        ("raising-dfkd", "0.1", ["raising"], "raise OSError('no licence\\nfound')\n" + GOOD),
        ("leaving-dfkd", "0.2", ["leaving"], GOOD + "\nimport sys\nsys.exit(0)\n"),
        ("rival-one", "1.0", ["rival"], GOOD),
        ("rival-two", "2.0", ["rival", "noise"], GOOD),
    ):
        module = owner.replace("-", "_")
        declare(root, owner, version, GROUP, dict.fromkeys(names, f"{module}.method:Good"))
        (root / module).mkdir()
        (root / module / "__init__.py").touch()
        (root / module / "method.py").write_text(text)
    (root / "surprise_dfkd" / "helper.py").write_text("SHIFT = 0.01\n")
    return root


@pytest.fixture
def here(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, importable in this process."""
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return site


def outside(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`dfkd-bench` in a process of its own, with the plugins on its path."""
    code = "import sys; from dfkd_bench.cli import main; sys.argv[0] = 'dfkd-bench'; main()"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=finding(site))


def test_it_is_listed_with_owner_and_version_and_nothing_is_imported(site: Path) -> None:
    code = (
        "import json, sys\n"
        "from dfkd_bench.plugins import registry\n"
        "found = registry.entries()\n"
        "card = registry.card(found['surprise'])\n"
        "heavy = ('torch', 'surprise_dfkd', 'raising_dfkd', 'dfkd_methods')\n"
        "imported = [n for n in sys.modules if n.startswith(heavy)]\n"
        "print(json.dumps([{n: [e.owner, e.version, *e.rivals] for n, e in found.items()}, imported, card.doc]))\n"
    )
    found, imported, doc = json.loads(python(code, env=finding(site)))
    assert found["surprise"] == ["surprise-dfkd", "1.2.3"]
    assert found["raising"] == ["raising-dfkd", "0.1"]
    assert found["real-kd"][0] == "dfkd-bench"
    assert len(found["rival"]) == len(found["noise"]) == 3
    assert imported == []
    assert doc == "A one-layer generator that looks for images of high teacher entropy."


def test_it_runs_and_its_record_says_whose_it_is(site: Path, tmp_path: Path) -> None:
    words = ["run", "--method", "surprise", "--budget", "smoke", "--threads", "1", "--device", "cpu", "--quiet"]
    done = outside(site, *words, "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (record,) = records.read_all(tmp_path)
    assert record["result"]["status"] == "complete"
    plugin = record["manifest"]["plugin"]
    assert (plugin["owner"], plugin["version"], plugin["target"]) == (
        "surprise-dfkd",
        "1.2.3",
        "surprise_dfkd.method:Good",
    )


def test_it_passes_check_and_a_broken_one_fails_it(site: Path) -> None:
    done = outside(site, "check", "surprise", "raising", "leaving")
    assert done.returncode == 1
    assert done.stderr == "error: 2 of 3 checks failed\n"
    assert "surprise (surprise-dfkd 1.2.3): all" in done.stdout
    assert "no licence" in done.stdout
    assert "Traceback" not in done.stdout


def test_its_helpers_are_part_of_its_code(here: Path) -> None:
    entry = registry.resolve("surprise")
    before = registry.code_digest(entry)
    helper = here / "surprise_dfkd" / "helper.py"
    helper.write_text("SHIFT = 0.02\n")
    changed = registry.code_digest(entry)
    helper.write_text("SHIFT = 0.01\n")
    assert changed != before
    assert registry.code_digest(entry) == before


@pytest.mark.parametrize(
    ("name", "owner", "what"),
    [("raising", "raising-dfkd 0.1", "OSError: no licence"), ("leaving", "leaving-dfkd 0.2", "SystemExit: 0")],
)
def test_one_that_breaks_on_import_harms_nobody_and_is_named(
    here: Path, tmp_path: Path, refused: Refused, name: str, owner: str, what: str
) -> None:
    assert {"surprise", "scratch", name} <= set(registry.entries())
    planned = make_plan(Request((name, "surprise", "scratch"), budget="smoke"), tmp_path)
    assert len(planned) == 3
    words = ("-m", name, "--budget", "smoke", "-q", "--device", "cpu", "--results", tmp_path)
    said = f"error: method {name!r} of {owner} cannot be imported: {what}\n"
    assert refused("run", *words, status=1) == said
    assert registry.load(planned[1].method).__name__ == "Good"
    first, *_ = check_method(planned[0].method)
    assert (first.name, first.passed) == ("import", False)


@pytest.mark.parametrize(
    ("name", "claims"), [("rival", {"rival-one 1.0", "rival-two 2.0"}), ("noise", {"rival-two 2.0"})]
)
def test_two_with_one_name_are_refused_by_name(here: Path, name: str, claims: set[str]) -> None:
    with pytest.raises(
        UsageError, match=rf"^method name {name!r} is claimed by several packages \(.*: uninstall all but one$"
    ) as caught:
        registry.resolve(name)
    assert all(claim in str(caught.value) for claim in claims)
    assert registry.resolve("surprise").rivals == ()


def test_a_name_of_a_bound_brings_no_real_data(here: Path) -> None:
    """`noise` is claimed by a foreign package too; whoever it is, only our own package's bounds are granted data."""
    from dfkd_bench.training.build import allowed_privileges

    ours = registry.entries()["real-kd"]
    assert allowed_privileges(ours) == {"real_data"}
    foreign = registry.Entry(ours.name, ours.target, "rival-two", "2.0")
    assert allowed_privileges(foreign) == frozenset()


# -- a file beside which other files lie ------------------------------------------------------------------------------


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    shifts = []
    for folder, shift in (("a", "0.5"), ("b", "0.25")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "beside.py").write_text(f"SHIFT = {shift}\n")
        (tmp_path / folder / "mine.py").write_text("import beside\n" + GOOD + "\n    shift = beside.SHIFT\n")
        entry = registry.resolve(f"{tmp_path / folder / 'mine.py'}:Good")
        shifts.append(registry.load(entry).shift)
    assert shifts == [0.5, 0.25]
    assert str(tmp_path / "a") not in sys.path
