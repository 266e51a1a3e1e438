"""Options that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from dfkd_bench.data.home import VARIABLE
from dfkd_bench.errors import UsageError
from dfkd_bench.runs.settings import SETTINGS

if TYPE_CHECKING:
    import pandas as pd

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def _results(help_text: str) -> Callable[[F], F]:
    """`--results PATH`."""
    return click.option("--results", type=PATH, metavar="PATH", default=Path("runs"), show_default=True, help=help_text)


RESULTS = _results("Results folder.")
RESULTS_WRITTEN = _results("Results folder to write to.")


def results_of(archive: str = "") -> Callable[[F], F]:
    """`--results PATH`. The path may also be an argument, as in earlier versions; a note then names the option.

    `archive`: name of that argument in the help of a command that also accepts an archive, for which there is no note.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(*args: Any, path: Path | None, **options: Any) -> Any:
            if path is not None:
                if click.get_current_context().get_parameter_source("results") is not ParameterSource.DEFAULT:
                    raise UsageError(f"results are named twice, {path} and --results {options['results']}: drop one")
                if not (archive and path.is_file()):
                    click.echo(f"note: name the results with --results {path}", err=True)
                options["results"] = path
            return command(*args, **options)

        return many([RESULTS, click.argument("path", type=PATH, required=False, metavar=archive)])(cast(F, wrapped))

    return decorate


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
        type=PATH,
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


@dataclass(frozen=True)
class Terms:
    """A selection of records by task, track, budget and protocol version; empty or None selects all."""

    tasks: tuple[str, ...]
    track: str | None
    budget: str | None
    protocol: str | None

    def of(self, runs: pd.DataFrame, source: str, methods: tuple[str, ...] = ()) -> pd.DataFrame:
        """The selected rows of a table of records. Raises `UsageError` with `source` if there are none."""
        selected = {
            "task": self.tasks, "track": (self.track,), "budget": (self.budget,), "protocol": (self.protocol,),
            "method": methods,
        }  # fmt: skip
        kept = runs
        for column, values in selected.items():
            if any(values):
                kept = kept[kept[column].isin(values)]
        if kept.empty:
            what = "task, track, budget, protocol and method" if methods else "task, track, budget and protocol"
            raise UsageError(f"none of the {len(runs)} records {source} is of that {what}")
        return kept


def of_terms(protocol: Callable[..., Any]) -> Callable[[F], F]:
    """`--task`, `--track`, `--budget` and the option `protocol`, checked and passed on as `terms`."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(*, tasks: Any, track: Any, budget: Any, version: Any, **options: Any) -> Any:
            from dfkd_bench.protocol import check_filters
            from dfkd_bench.runs.records import tasks_in

            tasks, budget = check_filters(tasks, track, budget, functools.partial(tasks_in, options["results"]))
            return command(terms=Terms(tasks, track, budget, version), **options)

        for option in (
            protocol,
            click.option(
                "--budget", metavar="BUDGET", help="This budget only: smoke, quick, standard, full or seconds:N."
            ),
            click.option("--track", metavar="TRACK", help="This track only: pinned or recipe."),
            click.option("-t", "--task", "tasks", multiple=True, metavar="TASK", help="This task only. Repeatable."),
        ):
            wrapped = option(wrapped)
        return cast(F, wrapped)

    return decorate


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
    if setting.type in (int, float, bool):
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


# run file or suite, settings that override it, and the results folder: for every command that makes a plan
plan_options = many([
    click.argument("file", required=False, type=PATH),
    click.option("--suite", metavar="NAME", help="The runs of a suite; `dfkd-bench list suites` shows the suites."),
    setting_options(),
    RESULTS_WRITTEN,
])  # fmt: skip


def engine_options(command: F) -> F:
    """Options of the engine and of its limits for each run, for every command that runs a plan."""
    from dfkd_bench.engines import DEFAULT, OPTIONS, engines, engines_with

    names = ", ".join(name + " (default with --jobs)" * (name == DEFAULT) for name in engines())
    by_option = {option: " or ".join(engines_with(option)) for option in OPTIONS}
    return many([
        click.option("--engine", metavar="NAME", help=f"Engine that executes the runs: {names}."),
        JOBS,
        click.option(
            "--address", metavar="ADDRESS",
            help=f"Address of an existing cluster, for --engine {by_option['address']}.",
        ),
        click.option(
            "--engine-config", type=PATH, metavar="FILE",
            help=f"TOML file with a table for --engine {by_option['config']}.",
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
