"""For `mkdocs build`: pages that lie elsewhere in the repository, links between them, and the help of every command.

A link in a document is a path in the repository, so that it works on a code host. On the site, a document of `PAGES`
has the address given there, and any other file outside `docs/` that a page links to or shows is copied below `files/`.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {  # document in the repository -> page of the site
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "dfkd_bench/reference/README.md": "results/reference.md",
    "methods/README.md": "tutorial.md",
    "results/README.md": "results/files.md",
}
HOMES = {page: path for path, page in PAGES.items()}
LINK = re.compile(r"(\]\()([^)#:\s]+)(?=[)#])")
COMMANDS = "<!-- commands -->"  # in cli.md


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Turn paths in the repository into addresses on the site, outside code; put in the help of the commands."""
    here = page.file.src_uri
    folder = posixpath.dirname(HOMES.get(here, f"docs/{here}"))

    def address(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[2]))
        target = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}")
        if target.startswith("files/") and files.get_file_from_path(target) is None and (ROOT / path).is_file():
            files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
        return link[1] + posixpath.relpath(target, posixpath.dirname(here) or ".")

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.S | re.M)
    text = "".join(part if part.startswith("```") else LINK.sub(address, part) for part in parts)
    return text.replace(COMMANDS, "\n".join(commands())) if COMMANDS in text else text


def commands() -> Iterator[str]:
    """What `dfkd-bench --help` prints, and `--help` of each command, as Markdown."""
    sys.path[:0] = [str(ROOT)]  # the package need not be installed
    from dfkd_bench.cli.main import cli

    yield from shown("dfkd-bench", cli, None, 2)


def shown(name: str, command: click.Command, above: click.Context | None, level: int) -> Iterator[str]:
    """The help of one command and of those below it."""
    context = click.Context(command, info_name=name, parent=above, terminal_width=100, max_content_width=100)
    yield from (f"{'#' * level} {context.command_path.removeprefix('dfkd-bench ')}", "", "```text")
    yield from (command.get_help(context), "```", "")
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            inner = command.get_command(context, word)
            assert inner is not None
            yield from shown(word, inner, context, min(level + 1, 4))
