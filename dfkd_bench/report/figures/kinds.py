"""All kinds of figures: one file of this folder each, and plug-ins of other packages."""

from __future__ import annotations

from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import FIGURE, Entry

# files of this folder, whose `KIND` has the same name; in the order in which they are drawn
BUILT_IN = ("cost", "curves", "bars", "ranks", "published", "losses", "schedules", "confusion")


def kinds() -> dict[str, Entry]:
    """Every declared kind by name, those of this package first. Nothing is imported."""
    return registry.with_own(FIGURE, {name: f"{__package__}.{name}:KIND" for name in BUILT_IN})
