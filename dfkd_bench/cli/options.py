"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dfkd_bench.data.home import VARIABLE
from dfkd_bench.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def _data_dir(help_text: str, create: bool) -> Callable[[F], F]:
    """`--data-dir DIR`: sets the data home for this command, and for the processes that it starts."""

    def settle(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
        if value is None or ctx.resilient_parsing:
            return
        folder = value.expanduser().absolute()
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--data-dir {value} is a file, not a folder")
        if not (folder.exists() or create):
            raise UsageError(f"--data-dir {value}: there is no such folder")
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = str(folder)

        def restore() -> None:
            os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})

        ctx.call_on_close(restore)  # commands may be run one after another in one process

    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=settle,
        help=help_text,
    )


DATA_DIR = _data_dir(f"Where the datasets lie. Default: {VARIABLE}, else a per-user folder.", create=False)
DATA_DIR_MADE = _data_dir(
    f"Where to put it; made if need be. Default: {VARIABLE}, else a per-user folder.", create=True
)


def engine_options(command: F) -> F:
    """Where the runs of a plan execute and what each may take; the same words in every command that runs plans."""
    path = click.Path(path_type=Path)
    for option in reversed([
        click.option("--engine", metavar="NAME", help="Where runs execute: local (default with --jobs), ray, slurm."),
        click.option("-j", "--jobs", type=int, metavar="N", help="Runs at the same time, each in a worker of its own."),
        click.option("--address", metavar="ADDRESS", help="Of an existing cluster, for --engine ray."),
        click.option("--engine-config", type=path, metavar="FILE", help="TOML with a table for the engine."),
        click.option(
            "--retry-failed", is_flag=True, help="Try failed runs again; otherwise their rows stay as they are."
        ),
        click.option(
            "--run-timeout", type=float, metavar="SECONDS", help="A run that takes longer is stopped: failed."
        ),
        click.option(
            "--memory-limit", type=float, metavar="GIB", help="A run whose process takes more is stopped: failed."
        ),
    ]):  # fmt: skip
        command = option(command)
    return command
