"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dfkd_bench.cli.main import COMMANDS
from dfkd_bench.method import Privileges
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import BOUNDS, BUDGETS, DEFAULT_TASK, PROTOCOL, task, titled
from dfkd_bench.report import bundle
from dfkd_bench.report.docs import PUBLISHED, RECIPES, check_document
from dfkd_bench.report.privileges import PRIVILEGES
from dfkd_bench.report.tables.published import published
from dfkd_bench.results.verify import verify
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.runfile import read_run_file

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(name), flags=re.S)


def test_the_run_file_of_the_readme_is_valid(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(blocks("README.md", "toml")[0])
    fields = read_run_file(tmp_path / "study.toml")
    assert len(make_plan(Request(**fields), tmp_path)) == 4 * 5


@pytest.mark.parametrize("name", ["README.md", "methods/README.md", "BENCHMARKS.md", "CONTRIBUTING.md"])
def test_commands_in_documents_exist(name: str) -> None:
    named = set(re.findall(r"dfkd-bench ([a-z]+)\b", text(name)))
    assert named <= {*COMMANDS, "makes", "is"}, named - set(COMMANDS)


def test_the_budgets_of_the_document_are_the_protocol_s() -> None:
    pinned = task(DEFAULT_TASK).pinned
    for budget in BUDGETS:
        images = pinned.student_images[budget]
        row = rf"\| {budget}[^|]*\| {images:,} \| {images // pinned.batch_size:,} \| {pinned.evaluations[budget]} \|"
        assert re.search(row, text("BENCHMARKS.md")), row


def test_the_document_names_the_protocol_and_every_privilege() -> None:
    assert f"## Protocol {PROTOCOL}" in text("BENCHMARKS.md")
    table = text("BENCHMARKS.md").partition("| mark | privilege |")[2].partition("\n\n")[0]
    marks = [line.split("|")[1].strip() for line in table.strip().splitlines()[1:]]
    assert marks == [mark for mark, _ in PRIVILEGES.values()]
    assert len(marks) == len(Privileges.__dataclass_fields__)


def test_every_method_has_its_section_and_what_is_published_of_it() -> None:
    names = [n for n, e in registry.entries().items() if e.owner == "dfkd-bench" and n not in BOUNDS]
    printed = set(published()["method"])
    for name in names:
        assert f"(`{name}`)\n" in text("BENCHMARKS.md"), name
        assert name not in printed or f"<!-- begin:published {name} -->" in text("BENCHMARKS.md"), name
        assert f"`{name}`" in text("README.md"), name


def test_results_and_documents_are_what_the_records_give() -> None:
    """Every table, page and sum in results/, and every block of the documents."""
    found = verify(ROOT / "results", quick=True, docs=(ROOT / "README.md", ROOT / "BENCHMARKS.md"))
    assert found.problems == []
    assert {"BENCHMARKS.md", "README.md", *bundle.RENDERINGS} <= set(found.renderings)


@pytest.mark.parametrize("name", ["README.md", "BENCHMARKS.md"])
def test_every_block_of_our_numbers_names_its_protocol(name: str) -> None:
    lines = text(name).split("\n")
    for block in check_document(ROOT / name):
        if block.kind in (PUBLISHED, RECIPES):
            continue
        (version,) = (word.partition("=")[2] for word in block.words if word.startswith("protocol="))
        shown = [line for line in lines[block.begin + 1 : block.end] if re.search(r"\bprotocol \d", line)]
        assert shown, block.name
        assert all(titled(version) in line for line in shown), block.name


def test_presets_in_the_document_exist() -> None:
    for entry in registry.entries().values():
        if entry.owner == "dfkd-bench" and entry.name not in BOUNDS:
            part = text("BENCHMARKS.md").partition(f"(`{entry.name}`)\n")[2].partition("\n### ")[0]
            for preset in registry.card(entry).presets:
                assert f"`{preset}`" in part or len(registry.card(entry).presets) == 1, (entry.name, preset)


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "methods/README.md", "BENCHMARKS.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", text(name)):
            assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"
