"""The entry point of a plug-in, read without importing the plug-in."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in."""

    word: str
    group: str  # of entry points
    contract: str  # module:Class: the base class of a plug-in class, or the class of a plug-in object

    @property
    def base(self) -> str:
        """Name of the class in `contract`."""
        return self.contract.rpartition(":")[2]


METHOD = Kind("method", "dfkd_bench.methods", "dfkd_bench.method:Method")
ADDON = Kind("add-on", "dfkd_bench.addons", "dfkd_bench.addon:AddOn")
# plug-ins of these kinds are objects `module:NAME` of the contract's class; this package's own are in its tables
ARCHITECTURE = Kind("architecture", "dfkd_bench.architectures", "dfkd_bench.models:Architecture")
DATASET = Kind("dataset", "dfkd_bench.datasets", "dfkd_bench.data.base:Dataset")
METRIC = Kind("metric", "dfkd_bench.metrics", "dfkd_bench.metrics.base:Metric")
FIGURE = Kind("figure", "dfkd_bench.figures", "dfkd_bench.report.figures.base:FigureKind")
LOGGER = Kind("logger", "dfkd_bench.loggers", "dfkd_bench.runs.progress:Logger")
KINDS = {kind.word: kind for kind in (METHOD, ADDON, ARCHITECTURE, DATASET, METRIC, FIGURE, LOGGER)}
GROUP = METHOD.group


@dataclass(frozen=True)
class Entry:
    """One plug-in as declared in an entry point, or a class in a file."""

    name: str
    target: str  # module:Class, module:NAME, or path.py:Class
    owner: str  # distribution that contains it, or "file"
    version: str
    rivals: tuple[str, ...] = ()  # other owners of the same name
    kind: Kind = METHOD

    @property
    def word(self) -> str:
        """The word that `resolve` accepts: its name, or `path.py:Class` if it comes from a file."""
        return self.target if self.owner == "file" else self.name

    @property
    def who(self) -> str:
        """Kind, name, owner and version, for error messages."""
        return f"{self.kind.word} {self.name!r} of {self.owner} {self.version}"

    @property
    def clash(self) -> str:
        """The remark in lists if other packages have a plug-in of the same name; empty otherwise."""
        return f"clash: also claimed by {', '.join(self.rivals)}; uninstall all but one" if self.rivals else ""

    @property
    def path(self) -> Path | None:
        """The source file, found without importing it; None if there is none."""
        module, _, _ = self.target.rpartition(":")
        if self.owner == "file":
            return Path(module)
        return _source_of(module)

    @property
    def class_name(self) -> str:
        """Name of the class or object in that file."""
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
