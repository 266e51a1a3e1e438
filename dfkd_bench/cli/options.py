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


def _of_protocol(what: str) -> Callable[[F], F]:
    """`--protocol VERSION`, as `version`; `what` is its help."""

    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        from dfkd_bench.protocol import check_version

        return check_version(value)

    return click.option("--protocol", "version", metavar="VERSION", callback=check, help=what)


OF_PROTOCOL = _of_protocol("Records of this version of the protocol only, such as 1.1. Default: all, each apart.")
OF_ONE_PROTOCOL = _of_protocol("Records of this version of the protocol. Default: the latest found.")
JOBS = click.option("-j", "--jobs", type=int, metavar="N", help="Runs at the same time, each in a worker of its own.")


def what_to_run(command: F) -> F:
    """A run file or a suite, the options over it, and the results folder; the same words wherever a plan is made."""
    path = click.Path(path_type=Path)
    for option in reversed([
        click.argument("file", required=False, type=path),
        click.option("--suite", metavar="NAME", help="What a suite holds; `dfkd-bench list suites` shows them."),
        click.option(
            "-m", "--method", "methods", multiple=True, metavar="NAME", help="A method, file.py:Class, or `all`."
        ),
        click.option(
            "-t", "--task", "tasks", multiple=True, metavar="TASK", help="dataset/teacher-student. Repeatable."
        ),
        click.option("-s", "--seeds", metavar="SEEDS", help="0, 0-4 or 0,2,5. Default: 0."),
        click.option("--preset", metavar="NAME", help="A method's preset. Default: the method's own."),
        click.option("--track", metavar="TRACK", help="pinned (default) or recipe."),
        click.option("--budget", metavar="BUDGET", help="smoke, quick (default), standard, full or seconds:N."),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting (ADDON.KEY of an add-on)."
        ),
        click.option(
            "--with", "addons", multiple=True, metavar="ADDON",
            help="An add-on around the method. Repeatable, innermost first.",
        ),
        click.option("--teacher", metavar="NAME", help="A registered teacher. Default: the first that fits the task."),
        click.option("--device", metavar="DEVICE", help="auto (default), cpu or cuda."),
        click.option("--precision", metavar="PRECISION", help="fp32 (default) or bf16."),
        click.option(
            "--compile/--no-compile", "compiled", default=None, help="torch.compile the steps; worth it in long runs."
        ),
        click.option(
            "--threads", type=int, metavar="N", help="CPU threads (default 2); part of a run, as it changes bits."
        ),
        click.option("--results", type=path, default=Path("runs"), show_default=True, help="Where records go."),
    ]):  # fmt: skip
        command = option(command)
    return command


def engine_options(command: F) -> F:
    """Where the runs of a plan execute and what each may take; the same words in every command that runs plans."""
    from dfkd_bench.engines import DEFAULT, OPTIONS, engines, taking

    names = ", ".join(name + " (default with --jobs)" * (name == DEFAULT) for name in engines())
    by = {option: " or ".join(taking(option)) for option in OPTIONS}
    path = click.Path(path_type=Path)
    for option in reversed([
        click.option("--engine", metavar="NAME", help=f"Where runs execute: {names}."),
        JOBS,
        click.option("--address", metavar="ADDRESS", help=f"Of an existing cluster, for --engine {by['address']}."),
        click.option(
            "--engine-config", type=path, metavar="FILE", help=f"TOML with a table for --engine {by['config']}."
        ),
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
