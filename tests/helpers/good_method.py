"""The text of the method in conformance/good.py, and places in it to put code into: the first line of each verb."""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).parents[1] / "conformance" / "good.py"
TEXT = PATH.read_text()
SETUP = '        """A generator with its optimiser, and a count."""\n'
SYNTHESIZE = '        """One step of Adam."""\n'
SAMPLE = '        """Fresh images, shifted by a count that only a whole checkpoint restores."""\n'
LOSS = '        """Mean squared error of logits."""\n'
PREVIEW = '        """As `sample`, from `stream`."""\n'


def changed(*changes: tuple[str, str], text: str = TEXT) -> str:
    """`text` with something else in place of each part, of which it holds one."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text
