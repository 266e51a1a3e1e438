"""What makes a method another method: its formulas, not its comments, nor the settings it declares for a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_bench.plugins import registry
from dfkd_bench.plugins.code_digest import digest_text

SOURCE = '''"""About the file."""

import torch  # for tensors


class Mine(Base):
    """About the class."""

    presets = {"a": {}}  # words
    task_settings = (
        ("*", "digits16/*", {"lr": 0.01}),  # tuned
    )
    search: dict = {"lr": (1, 2)}
    paper = "Somebody, somewhere"
    pinned = {"width": "generator_width"}

    def f(self):
        """About f: é ü."""
        x = "# no comment"; y = 2  # a comment with é

        return f"{x}#{y}"


class Other:
    presets = {"a": 1}
'''
LEFT = """import torch
class Mine(Base):
    pinned = {"width": "generator_width"}
    def f(self):
        x = "# no comment"; y = 2
        return f"{x}#{y}"
class Other:
    presets = {"a": 1}"""


def test_words_and_declared_settings_are_no_part_of_it() -> None:
    assert digest_text(SOURCE, "Mine") == LEFT
    assert 'presets = {"a": {}}' in digest_text(SOURCE, "Other")
    assert digest_text(digest_text(SOURCE, "Mine"), "Mine") == LEFT


@pytest.mark.parametrize(
    ("old", "new", "other"),
    [
        ("y = 2", "y = 3", True),
        ("# no comment", "# a comment", True),  # it stands in a text
        ('"width": "gen', '"depth": "gen', True),
        ('    presets = {"a": 1}', '    presets = {"a": 2}', True),  # of a class that is no method
        ('presets = {"a": {}}', 'presets = {"a": {"lr": 1.0}}', False),
        ("0.01", "0.02", False),
        ("About f", "All about f", False),
        ("# a comment", "# another comment", False),
        ("Somebody", "Someone", False),
        ("\n\n    def", "\n\n\n    def", False),
    ],
)
def test_the_digest_of_a_file_follows_its_formulas(tmp_path: Path, old: str, new: str, other: bool) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    entry = registry.Entry("mine", f"{path}:Mine", "file", "-")
    before = registry.code_digest(entry)
    assert old in SOURCE
    path.write_text(SOURCE.replace(old, new))
    assert (registry.code_digest(entry) != before) is other


def test_a_form_feed_changes_nothing() -> None:
    assert digest_text(SOURCE.replace("\n\n    def", "\n\f\n    def"), "Mine") == LEFT
