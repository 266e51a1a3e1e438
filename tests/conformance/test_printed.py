"""What `check` prints, and what a failing `assert_conforms` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import dfkd
from good_method import changed

from dfkd_bench.conformance import RULES, assert_conforms

SHORT = changed(("return Batch(batch.images + 0.01", "return Batch(batch.images[1:] + 0.01"))


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A method whose batches lack an image: the run cannot go on."""
    path = tmp_path / "short.py"
    path.write_text(SHORT)
    return path


def test_every_rule_is_printed_by_name_and_a_failure_on_lines_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, short: Path
) -> None:
    status, out, err = dfkd(monkeypatch, capsys, "check", short, columns=140)
    assert (status, err) == (1, "error: 1 of 1 checks failed\n")
    title, *rows = [line.rstrip() for line in out.splitlines()]
    assert title.startswith("short:Good (file -): 1 of ")
    words = [row.split(maxsplit=2) for row in rows]
    at = words.index(next(w for w in words if w[0] == "FAIL"))
    assert words[at] == ["FAIL", "shapes", RULES["shapes"]]
    assert rows[at + 1].split(maxsplit=1) == ["expected", "images (16, 1, 16, 16)"]
    assert rows[at + 2].split(maxsplit=1) == ["seen", "sample(16) returned images (15, 1, 16, 16)"]
    others = words[:at] + words[at + 3 :]
    assert [w[1] for w in others] == [name for name in RULES if name != "shapes"]
    marks = {w[1]: w[0] for w in others}
    assert (marks["frozen-config"], marks["setup"], marks["resume"]) == ("pass", "pass", "-")
    assert all(w[2] == RULES[w[1]] for w in others if w[0] == "pass")
    assert all(w[2] == "not reached: the run stopped at rule shapes" for w in others if w[0] == "-")


def test_quiet_prints_what_is_broken_alone(monkeypatch: pytest.MonkeyPatch, capsys: Any, short: Path) -> None:
    status, out, _ = dfkd(monkeypatch, capsys, "check", "--quiet", short, columns=140)
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["FAIL", "expected", "seen"]


def test_an_assertion_says_what_is_broken_and_how_much_was_not_reached(short: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_conforms(str(short))
    head, *rest = str(caught.value).splitlines()
    assert head.startswith(f"1 of {len(RULES)} conformance rules are broken, ")
    assert head.endswith(" more were not reached: the run stopped at rule shapes")
    assert rest == [
        f"  shapes: {RULES['shapes']}",
        "    expected  images (16, 1, 16, 16)",
        "    seen      sample(16) returned images (15, 1, 16, 16)",
    ]
