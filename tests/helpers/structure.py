"""The structure of the package: which folder imports which, from the source text.

    python tests/helpers/structure.py [PACKAGE FOLDER [TESTS FOLDER]]     numbers, imports against the order, circles

A room is a folder or a module directly below the package. In `ORDER`, each room imports only from rooms before it.
Imports inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dfkd_bench"
MODULES = ("__init__", "__main__", "_version", "addon", "api", "errors", "method", "protocol", "recipe")
ORDER = (
    "_version", "errors", "recipe", "method", "utils", "stats", "blocks", "addon", "plugins", "data", "models",
    "protocol", "teachers", "runs", "metrics", "training", "conformance", "engines", "studies", "report", "api",
    "profiling", "results", "distill", "cli", "__main__",
)  # fmt: skip
Graph = dict[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path], package: str) -> Iterator[str]:
    """The modules of the package that a file imports (absolute imports only).

    An import of a name from a package's `__init__` counts as an import of that package.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def file_graph(package: Path) -> Graph:
    """Which module imports which."""
    known = modules(package)
    return {name: set(imports(path, known, package.name)) - {name} for name, path in known.items()}


def room(module: str) -> str:
    """The folder or module directly below the package; `__init__` is the package's own file."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def room_graph(files: Graph) -> Graph:
    """Which room imports which. The package's `__init__` is left out: it imports names of higher rooms on demand."""
    found: Graph = {}
    for module, targets in files.items():
        here = room(module)
        if here != "__init__":
            found.setdefault(here, set()).update({room(t) for t in targets} - {here, "__init__"})
    return found


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected parts of more than one node (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found)


def backwards(graph: Graph) -> list[tuple[str, str]]:
    """Imports of a room from one that comes later in `ORDER`; rooms that are not in the order are ignored."""
    place = {name: k for k, name in enumerate(ORDER)}
    return sorted(
        (a, b) for a, targets in graph.items() for b in targets if place.get(b, -1) > place.get(a, len(place))
    )


def floors(graph: Graph) -> int:
    """Length, in rooms, of the longest chain of imports; the rooms of a circle count as one."""
    group = {node: min(circle) for circle in circles(graph) for node in circle}
    depth: dict[str, int] = {}

    def height(node: str) -> int:
        if node not in depth:
            members = [n for n in graph if group.get(n, n) == node]
            below = {group.get(t, t) for n in members for t in graph[n]} - {node}
            depth[node] = 1 + max((height(b) for b in below), default=0)
        return depth[node]

    return max(height(group.get(n, n)) for n in graph)


def lines(folder: Path) -> tuple[int, int]:
    """(files, lines) of the Python below a folder."""
    paths = list(folder.rglob("*.py"))
    return len(paths), sum(len(p.read_text(encoding="utf-8").splitlines()) for p in paths)


def main(package: Path = PACKAGE, tests: Path | None = None) -> None:
    """Print the numbers of a checkout."""
    files = file_graph(package)
    rooms = room_graph(files)
    against, round_files, round_rooms = backwards(rooms), circles(files), circles(rooms)
    own = [p.stem for p in package.glob("*.py") if p.stem not in ("__init__", "__main__")]
    print(f"modules at the root   {len(own)} (and __init__, __main__)")
    for what, folder in (("package", package), ("tests", tests or package.parent / "tests")):
        n, length = lines(folder)
        print(f"{what:21} {n} files, {length} lines")
    print(f"imports of files      {sum(map(len, files.values()))}")
    print(f"rooms                 {len(rooms)}, with {sum(map(len, rooms.values()))} imports between them")
    print(f"longest chain         {floors(rooms)} rooms")
    print(f"against the order     {len(against)}{''.join(f'{chr(10)}  {a} imports {b}' for a, b in against)}")
    print(f"circles of rooms      {len(round_rooms)}{''.join(f'{chr(10)}  ' + ' '.join(c) for c in round_rooms)}")
    print(f"circles of files      {len(round_files)}{''.join(f'{chr(10)}  ' + ' '.join(c) for c in round_files)}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
