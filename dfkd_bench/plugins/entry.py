"""One plugin as its package declares it, found without importing it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """One kind of plugin."""

    word: str
    group: str  # of entry points
    contract: str  # module:Class that a plugin is a subclass of, or that a plugin object is an instance of

    @property
    def base(self) -> str:
        """Name of that class."""
        return self.contract.rpartition(":")[2]


METHOD = Kind("method", "dfkd_bench.methods", "dfkd_bench.method:Method")
ADDON = Kind("add-on", "dfkd_bench.addons", "dfkd_bench.addon:AddOn")
# a plug-in of these kinds is an object of the contract's class, `module:NAME`; those of this package are in its tables
ARCHITECTURE = Kind("architecture", "dfkd_bench.architectures", "dfkd_bench.models:Architecture")
DATASET = Kind("dataset", "dfkd_bench.datasets", "dfkd_bench.data.base:Dataset")
METRIC = Kind("metric", "dfkd_bench.metrics", "dfkd_bench.metrics.base:Metric")
FIGURE = Kind("figure", "dfkd_bench.figures", "dfkd_bench.report.figures.base:FigureKind")
LOGGER = Kind("logger", "dfkd_bench.loggers", "dfkd_bench.runs.progress:Logger")
KINDS = {kind.word: kind for kind in (METHOD, ADDON, ARCHITECTURE, DATASET, METRIC, FIGURE, LOGGER)}
GROUP = METHOD.group


@dataclass(frozen=True)
class Entry:
    """One method or add-on as its package declares it."""

    name: str
    target: str  # module:Class, or path.py:Class
    owner: str  # distribution that brings it, or "file"
    version: str
    rivals: tuple[str, ...] = ()  # other owners of the same name
    kind: Kind = METHOD

    @property
    def word(self) -> str:
        """By which `resolve` finds it again: its name, or the file and class of one that no package brings."""
        return self.target if self.owner == "file" else self.name

    @property
    def who(self) -> str:
        """What to call it where something is wrong with it."""
        return f"{self.kind.word} {self.name!r} of {self.owner} {self.version}"

    @property
    def clash(self) -> str:
        """What lists say of it where other packages claim its name too; empty where none does."""
        return f"clash: also claimed by {', '.join(self.rivals)}; uninstall all but one" if self.rivals else ""

    @property
    def path(self) -> Path | None:
        """The source file, found without importing anything; None if there is none."""
        module, _, _ = self.target.rpartition(":")
        if self.owner == "file":
            return Path(module)
        return _source_of(module)

    @property
    def class_name(self) -> str:
        """Name of the class in that file."""
        return self.target.rpartition(":")[2]


def _source_of(module: str) -> Path | None:
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for location in spec.submodule_search_locations or []:
        base = Path(location).joinpath(*rest)
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
