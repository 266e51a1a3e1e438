"""Every number of the authors' code that one of our functions, presets or recipes computes is compared with ours.

    python tests/golden/test_official.py

prints the counts. Exactly two lists lead past the comparison: `DEVIATIONS`, what differs on purpose, with the number
under which the method's page in docs/methods says why, and `NOT_COMPUTED`, what nothing of ours computes.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))  # run as a script, there is no conftest

import pytest
from official import COMPUTED, ENTRIES, differences
from official_deviations import DEVIATIONS, NOT_COMPUTED

for module in sorted(Path(__file__).parent.glob("official_*.py")):
    importlib.import_module(module.stem)


def strayed(entry: str) -> set[str]:
    """Parts of an entry, without the numbers, that ours does not reproduce."""
    return {line.split(" ")[0] for line in differences(ENTRIES[entry], COMPUTED[entry](ENTRIES[entry]))}


@pytest.mark.long
@pytest.mark.parametrize("entry", sorted(ENTRIES))
def test_official_value(entry: str) -> None:
    if entry in NOT_COMPUTED:
        assert entry not in COMPUTED, "it is computed: take it off the list"
        assert entry not in DEVIATIONS
        return
    assert entry in COMPUTED, "nothing of ours is compared with this entry"
    if entry not in DEVIATIONS:
        assert differences(ENTRIES[entry], COMPUTED[entry](ENTRIES[entry])) == []
    else:
        assert strayed(entry) == set(DEVIATIONS[entry].parts), "the list names other parts than those that deviate"


def test_lists_name_entries_of_the_file() -> None:
    assert set(DEVIATIONS) <= set(ENTRIES)
    assert set(NOT_COMPUTED) <= set(ENTRIES)


@pytest.mark.parametrize("entry", sorted(DEVIATIONS))
def test_a_deviation_stands_under_its_number_on_the_page_of_its_method(entry: str) -> None:
    declared = DEVIATIONS[entry]
    page = (Path(__file__).parents[2] / "docs" / "methods" / f"{declared.document}.md").read_text()
    listed = page.partition("\n## Deviations\n")[2].partition("\n## ")[0]
    assert re.search(rf"^{declared.number}\. ", listed, re.MULTILINE)


def main() -> None:
    """Print how many values hold."""
    for name in sorted(set(ENTRIES) - set(COMPUTED) - set(NOT_COMPUTED)):
        print(f"nothing compared: {name}")
    for name in sorted(COMPUTED):
        wrong = differences(ENTRIES[name], COMPUTED[name](ENTRIES[name]))
        if wrong and name not in DEVIATIONS:
            print(f"{name}: " + "; ".join(wrong[:4]) + (" ..." if len(wrong) > 4 else ""))
    declared = ", ".join(sorted({f"{d.document} {d.number}" for d in DEVIATIONS.values()}))
    hold = len(COMPUTED) - len(DEVIATIONS)
    print(
        f"{len(ENTRIES)} official entries: {len(COMPUTED)} compared, of which {hold} hold and {len(DEVIATIONS)} "
        f"deviate as declared ({declared}); {len(NOT_COMPUTED)} that nothing here computes"
    )


if __name__ == "__main__":
    main()
