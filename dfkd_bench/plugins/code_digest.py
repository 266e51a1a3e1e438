"""`code_digest`: the hash of a plug-in's source code, which is part of a run's identity.

A changed formula changes the digest, and so makes new runs. Comments, docstrings and declared settings (presets,
settings for a task) do not: the settings of a run are part of its specification (`RunSpec.settings`).
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.errors import RunError
from dfkd_bench.plugins.entry import ADDON, METHOD

if TYPE_CHECKING:
    from dfkd_bench.plugins.entry import Entry

# class attributes of a method that are not part of the digest: they give values of settings, or are text
DECLARED = frozenset({"presets", "default_preset", "task_settings", "budget_settings", "search", "paper"})
Span = tuple[tuple[int, int], tuple[int, int]]  # start and exclusive end, each (line from 1, column in bytes)


def code_digest(entry: Entry) -> str:
    """SHA-256 over the `digest_text` of a plug-in's file and of every file of its package (or folder) that it imports.

    For a plug-in that is an object (a dataset, an architecture), a text `module:callable` counts as an import. Raises
    `RunError` if there is no source or it is not Python.
    """
    start, root, package = _roots(entry)
    try:
        return digest_of(start, root, package, entry.class_name, entry.kind not in (METHOD, ADDON))
    except RunError as error:
        raise RunError(f"{entry.who}: {error}") from error


def source_files(entry: Entry) -> dict[str, bytes]:
    """The files that `code_digest` covers: path relative to the package (or the file's folder) -> content.

    Raises `RunError` as `code_digest` does.
    """
    start, root, package = _roots(entry)
    return {
        "/".join([*([package] if package else []), path.relative_to(root).as_posix()]): path.read_bytes()
        for path in sorted(_digest_texts(start, root, package, entry.class_name))
    }


def digest_of(start: Path, root: Path, package: str, class_name: str, texts: bool = False) -> str:
    """`code_digest` of the class in file `start` of `package` (empty for a single file) with folder `root`.

    With `texts`, a text `module:callable` counts as an import. Raises `RunError`, naming the file, if a file cannot be
    read or is not Python.
    """
    contents = _digest_texts(start, root, package, class_name, texts)
    digest = hashlib.sha256()
    for path in sorted(contents):
        digest.update(f"{path.relative_to(root).as_posix()}\0{contents[path]}\0".encode())
    return digest.hexdigest()


def _roots(entry: Entry) -> tuple[Path, Path, str]:
    start = entry.path
    if start is None:
        raise RunError(f"the source of {entry.who} ({entry.target}) cannot be found: reinstall {entry.owner}")
    root, package = start.parent, ""
    if entry.owner != "file":
        package = entry.target.split(":")[0].split(".")[0]
        while (root / "__init__.py").exists() and root.name != package:
            root = root.parent
    return start, root, package


def _digest_texts(start: Path, root: Path, package: str, class_name: str, texts: bool = False) -> dict[Path, str]:
    contents: dict[Path, str] = {}
    todo = [start]
    while todo:
        path = todo.pop()
        if path in contents:
            continue
        try:
            text = path.read_text(encoding="utf-8")
            todo += _local_imports(path, ast.parse(text), root, package, texts)
            contents[path] = digest_text(text, class_name if path == start else "")
        except (SyntaxError, ValueError, OSError) as error:
            raise RunError(f"{path.name} cannot be read: {error}") from error
    return contents


def _local_imports(path: Path, tree: ast.AST, root: Path, package: str, texts: bool) -> list[Path]:
    names: list[tuple[Path, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(root, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = root
            if node.level:
                base = path.parents[node.level - 1]
            module = node.module or ""
            names.append((base, module))
            names += [(base, f"{module}.{alias.name}".strip(".")) for alias in node.names]
        elif texts and isinstance(node, ast.Constant) and isinstance(node.value, str):
            names += [(root, m[1]) for m in [re.fullmatch(r"([\w.]+):\w+", node.value)] if m]
    # a single-module package has no folder: the files next to it in site-packages belong to other packages
    alone = package and root.name != package and any(root.glob("*.dist-info"))
    files = []
    for base, name in names:
        parts = [p for p in name.split(".") if p]
        if base == root and alone:
            continue
        if base == root and package and parts[:1] == [package]:
            parts = parts[1:]
        if not parts:
            continue
        stem = base.joinpath(*parts)
        files += [f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()]
    return files


def digest_text(text: str, class_name: str = "") -> str:
    """`text` without comments, docstrings, blank lines, and without the attributes `DECLARED` of class `class_name`.

    It is cut out by position, not printed from the syntax tree, so all versions of Python give the same result. Raises
    `SyntaxError`.
    """
    lines = [line.encode() for line in text.split("\n")]
    for (first, start), (last, end) in sorted(
        {*_ignored_statements(text, class_name), *_comments(text, lines)}, reverse=True
    ):
        head, tail = lines[first - 1][:start], lines[last - 1][end:]
        lines[first - 1 : last] = [head + tail, *[b""] * (last - first)]
    kept = (line.decode().rstrip() for line in lines)
    return "\n".join(line for line in kept if line)


def _ignored_statements(text: str, class_name: str) -> Iterator[Span]:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                yield _span(first)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for item in node.body:
                targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
                if all(isinstance(t, ast.Name) and t.id in DECLARED for t in targets):
                    yield _span(item)


def _span(node: ast.stmt) -> Span:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _comments(text: str, lines: list[bytes]) -> Iterator[Span]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            start = len(lines[line - 1].decode()[:column].encode())
            yield (line, start), (line, start + len(token.string.encode()))
