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
from dfkd_bench.report.docs import LEADERBOARD, OURS, ROBUSTNESS, THROUGHPUT, TUNING, check_document, documents
from dfkd_bench.report.privileges import PRIVILEGES
from dfkd_bench.report.tables.published import published
from dfkd_bench.results.verify import verify
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.runfile import read_run_file

ROOT = Path(__file__).parents[2]
WRITTEN = ("README.md", "BENCHMARKS.md", "methods/README.md", "CONTRIBUTING.md", "results/README.md")
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
FILLED = [
    path.relative_to(ROOT).as_posix() for path in documents([ROOT / "README.md", ROOT / "BENCHMARKS.md", ROOT / "docs"])
]
OF_RECORDS = (LEADERBOARD, THROUGHPUT, OURS, TUNING, ROBUSTNESS)  # kinds of blocks with numbers of ours


def text(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(name), flags=re.S)


def test_the_run_file_of_the_first_steps_is_valid(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(blocks("docs/start.md", "toml")[0])
    fields = read_run_file(tmp_path / "study.toml")
    assert len(make_plan(Request(**fields), tmp_path)) == 4 * 5


@pytest.mark.parametrize("name", [*WRITTEN, *PAGES])
def test_commands_in_documents_exist(name: str) -> None:
    code = "\n".join(re.findall(r"```.*?```|`[^`]+`", text(name), flags=re.S))
    assert set(re.findall(r"dfkd-bench ([a-z]+)\b", code)) <= set(COMMANDS)


def test_the_page_of_benchmarks_is_one_page() -> None:
    assert len(text("BENCHMARKS.md").encode()) <= 15_000


def test_the_budgets_of_the_document_are_the_protocol_s() -> None:
    pinned = task(DEFAULT_TASK).pinned
    for budget in BUDGETS:
        images = pinned.student_images[budget]
        row = rf"\| {budget}[^|]*\| {images:,} \| {images // pinned.batch_size:,} \| {pinned.evaluations[budget]} \|"
        assert re.search(row, text("docs/protocol.md")), row


def test_the_document_names_the_protocol_and_every_privilege() -> None:
    assert f"## Protocol {PROTOCOL}" in text("docs/protocol.md")
    table = text("docs/protocol.md").partition("| mark | privilege |")[2].partition("\n\n")[0]
    marks = [line.split("|")[1].strip() for line in table.strip().splitlines()[1:]]
    assert marks == [mark for mark, _ in PRIVILEGES.values()]
    assert len(marks) == len(Privileges.__dataclass_fields__)


def test_every_method_has_its_page_and_what_is_published_of_it() -> None:
    names = [n for n, e in registry.entries().items() if e.owner == "dfkd-bench"]
    printed = set(published()["method"])
    index, bounds = text("docs/methods/index.md"), text("docs/methods/bounds.md")
    for name in names:
        page = bounds if name in BOUNDS else text(f"docs/methods/{name}.md")
        assert f"(`{name}`)\n" in page, name
        assert f"<!-- begin:settings {name} -->" in page, name
        assert name not in printed or f"<!-- begin:published {name} -->" in page, name
        assert name in BOUNDS or f"]({name}.md) `{name}`" in index, name


def test_results_and_documents_are_what_the_records_give() -> None:
    """Every table, page and sum in results/, and every block of the documents."""
    docs = (ROOT / "README.md", ROOT / "BENCHMARKS.md", ROOT / "docs")
    found = verify(ROOT / "results", quick=True, docs=docs)
    assert found.problems == []
    assert {*(str(ROOT / name) for name in FILLED), *bundle.RENDERINGS} <= set(found.renderings)


@pytest.mark.parametrize("name", FILLED)
def test_every_block_of_our_numbers_names_its_protocol(name: str) -> None:
    lines = text(name).split("\n")
    for block in check_document(ROOT / name):
        if block.kind not in OF_RECORDS:
            continue
        (version,) = (word.partition("=")[2] for word in block.words if word.startswith("protocol="))
        shown = [line for line in lines[block.begin + 1 : block.end] if re.search(r"\bprotocol \d", line)]
        assert shown, block.name
        assert all(titled(version) in line for line in shown), block.name


@pytest.mark.parametrize("name", [*WRITTEN, *PAGES, "CHANGELOG.md", "dfkd_bench/reference/README.md"])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)[)#]", text(name)):
        assert ((ROOT / name).parent / target).is_file(), f"{name} links to {target}"
