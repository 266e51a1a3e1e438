"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from dfkd_bench.data.home import VARIABLE
from dfkd_bench.errors import UsageError
from dfkd_bench.runs.settings import SETTINGS

F = TypeVar("F", bound=Callable[..., Any])


def _data_dir(help_text: str, create: bool) -> Callable[[F], F]:
    """`--data-dir DIR`: sets the data folder for this command and for the processes that it starts."""

    def set_folder(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
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

        ctx.call_on_close(restore)  # one process may run several commands

    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=set_folder,
        help=help_text,
    )


DATA_DIR = _data_dir(f"Folder of the datasets. Default: {VARIABLE}, else a per-user folder.", create=False)
DATA_DIR_CREATED = _data_dir(
    f"Folder of the datasets, created if missing. Default: {VARIABLE}, else a per-user folder.", create=True
)


def _protocol_option(help_text: str) -> Callable[[F], F]:
    """`--protocol VERSION`, passed on as `version`."""

    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        from dfkd_bench.protocol import check_version

        return check_version(value)

    return click.option("--protocol", "version", metavar="VERSION", callback=check, help=help_text)


PROTOCOL = _protocol_option("Only records of this protocol version, such as 1.1. Default: all, shown separately.")
ONE_PROTOCOL = _protocol_option("Records of this protocol version. Default: the latest found.")
JOBS = click.option("-j", "--jobs", type=int, metavar="N", help="Number of parallel workers.")


def setting_option(name: str, **changes: Any) -> Callable[[F], F]:
    """The click option of one setting of a run. `changes` replace arguments of `click.option`."""
    setting = SETTINGS[name]
    arguments: dict[str, Any] = {"metavar": setting.metavar, "help": setting.help}
    if setting.type in (int, bool):
        arguments |= {"type": setting.type, "default": None}
    if setting.type in (tuple[str, ...], dict[str, Any]):
        arguments["multiple"] = True
    return click.option(*setting.flags, name, **{**arguments, **changes})


def setting_options(*first: str, without: Collection[str] = (), **changes: Mapping[str, Any]) -> Callable[[F], F]:
    """The options of all settings of a run except `without`: the `first` ones, then the order of `SETTINGS`.

    `changes`: for each setting, arguments of `click.option` to replace.
    """
    names = [name for name in dict.fromkeys((*first, *SETTINGS)) if name not in without]
    return many([setting_option(name, **changes.get(name, {})) for name in names])


def settings_given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `Request` from the options that were given. Raises `UsageError` for a wrong value."""
    given = {name: options[name] for name in SETTINGS if options.get(name) not in (None, ())}
    if "overrides" in given:
        given["overrides"] = pairs_of(given["overrides"])
    return {name: SETTINGS[name].read(value) for name, value in given.items()}


def pairs_of(texts: Iterable[str]) -> dict[str, str]:
    """The values of --set KEY=VALUE by key. Raises `UsageError` for another form."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set takes KEY=VALUE, got {text!r}")
        pairs[key.strip()] = value
    return pairs


def many(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """One decorator that applies several options, in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


PATH = click.Path(path_type=Path)
# run file or suite, settings that override it, and the results folder: for every command that makes a plan
plan_options = many([
    click.argument("file", required=False, type=PATH),
    click.option("--suite", metavar="NAME", help="The runs of a suite; `dfkd-bench list suites` shows the suites."),
    setting_options(),
    click.option("--results", type=PATH, default=Path("runs"), show_default=True, help="Results folder to write to."),
])  # fmt: skip


def engine_options(command: F) -> F:
    """Options of the engine and of its limits for each run, for every command that runs a plan."""
    from dfkd_bench.engines import DEFAULT, OPTIONS, engines, taking

    names = ", ".join(name + " (default with --jobs)" * (name == DEFAULT) for name in engines())
    engines_with = {option: " or ".join(taking(option)) for option in OPTIONS}
    return many([
        click.option("--engine", metavar="NAME", help=f"Engine that executes the runs: {names}."),
        JOBS,
        click.option(
            "--address", metavar="ADDRESS",
            help=f"Address of an existing cluster, for --engine {engines_with['address']}.",
        ),
        click.option(
            "--engine-config", type=PATH, metavar="FILE",
            help=f"TOML file with a table for --engine {engines_with['config']}.",
        ),
        click.option("--retry-failed", is_flag=True, help="Run failed runs again; otherwise they stay failed."),
        click.option(
            "--run-timeout", type=float, metavar="SECONDS", help="Stop a run after this time and record it as failed."
        ),
        click.option(
            "--memory-limit", type=float, metavar="GIB",
            help="Stop a run whose process uses more memory and record it as failed.",
        ),
    ])(command)  # fmt: skip
