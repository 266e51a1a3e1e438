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


def _results(what: str) -> Callable[[F], F]:
    """`--results PATH`; `what` is its help."""
    return click.option("--results", type=PATH, metavar="PATH", default=Path("runs"), show_default=True, help=what)


RESULTS = _results("Where records lie.")
RESULTS_WRITTEN = _results("Where records go.")


def results_of(archive: str = "") -> Callable[[F], F]:
    """`--results PATH`. The path may also be an argument, as before there was the option: then a note says so.

    `archive`: how help names that argument where it may be an archive, which needs no note.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def asked(*passed: Any, path: Path | None, **options: Any) -> Any:
            if path is not None:
                given = click.get_current_context().get_parameter_source("results") is not ParameterSource.DEFAULT
                if given:
                    raise UsageError(f"results are named twice, {path} and --results {options['results']}: drop one")
                if not (archive and path.is_file()):
                    click.echo(f"note: name the results with --results {path}", err=True)
                options["results"] = path
            return command(*passed, **options)

        return many([RESULTS, click.argument("path", type=PATH, required=False, metavar=archive)])(cast(F, asked))

    return decorate


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
        type=PATH,
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


@dataclass(frozen=True)
class Terms:
    """The records that a command is asked to look at; what is empty or None leaves the choice open."""

    tasks: tuple[str, ...]
    track: str | None
    budget: str | None
    protocol: str | None

    def of(self, runs: pd.DataFrame, whose: str, methods: tuple[str, ...] = ()) -> pd.DataFrame:
        """The rows of a table of records that are of these terms. Raises `UsageError` where none is, naming `whose`."""
        wanted = {
            "task": self.tasks, "track": (self.track,), "budget": (self.budget,), "protocol": (self.protocol,),
            "method": methods,
        }  # fmt: skip
        kept = runs
        for column, values in wanted.items():
            if any(values):
                kept = kept[kept[column].isin(values)]
        if kept.empty:
            what = "task, track, budget, protocol and method" if methods else "task, track, budget and protocol"
            raise UsageError(f"none of the {len(runs)} records {whose} is of that {what}")
        return kept


def of_terms(protocol: Callable[..., Any]) -> Callable[[F], F]:
    """`--task`, `--track`, `--budget` and the option `protocol`, given to the command as `terms`, checked."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def asked(*, tasks: Any, track: Any, budget: Any, version: Any, **options: Any) -> Any:
            from dfkd_bench.protocol import check_terms
            from dfkd_bench.runs.records import tasks_in

            tasks, budget = check_terms(tasks, track, budget, functools.partial(tasks_in, options["results"]))
            return command(terms=Terms(tasks, track, budget, version), **options)

        for option in (
            protocol,
            click.option(
                "--budget", metavar="BUDGET", help="This budget only: smoke, quick, standard, full or seconds:N."
            ),
            click.option("--track", metavar="TRACK", help="This track only: pinned or recipe."),
            click.option("-t", "--task", "tasks", multiple=True, metavar="TASK", help="This task only. Repeatable."),
        ):
            asked = option(asked)
        return cast(F, asked)

    return decorate


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


def setting_option(name: str, **changed: Any) -> Callable[[F], F]:
    """The option of one setting of a run; `changed`: what a command says otherwise of it to click."""
    one = SETTINGS[name]
    about: dict[str, Any] = {"metavar": one.metavar, "help": one.help}
    if one.type in (int, float, bool):
        about |= {"type": one.type, "default": None}
    if one.type in (tuple[str, ...], dict[str, Any]):
        about["multiple"] = True
    return click.option(*one.flags, name, **{**about, **changed})


def setting_options(*first: str, without: Collection[str] = (), **changed: Mapping[str, Any]) -> Callable[[F], F]:
    """The options of all settings of a run but those `without`, in the order of the table after the `first` ones.

    `changed`: what a command says otherwise to click of an option, by the name of the setting.
    """
    names = [name for name in dict.fromkeys((*first, *SETTINGS)) if name not in without]
    return many([setting_option(name, **changed.get(name, {})) for name in names])


def settings_given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `Request` from the options of the command line that were given. Raises `UsageError`."""
    given = {name: options[name] for name in SETTINGS if options.get(name) not in (None, ())}
    if "overrides" in given:
        given["overrides"] = pairs_of(given["overrides"])
    return {name: SETTINGS[name].read(value) for name, value in given.items()}


def pairs_of(texts: Iterable[str]) -> dict[str, str]:
    """The words of --set by their keys. Raises `UsageError` for one of another form."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set takes KEY=VALUE, got {text!r}")
        pairs[key.strip()] = value
    return pairs


def many(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Several options as one decorator, in their order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# a run file or a suite, the options over it, and the results folder; the same words wherever a plan is made
what_to_run = many([
    click.argument("file", required=False, type=PATH),
    click.option("--suite", metavar="NAME", help="What a suite holds; `dfkd-bench list suites` shows them."),
    setting_options(),
    RESULTS_WRITTEN,
])  # fmt: skip


def engine_options(command: F) -> F:
    """Where the runs of a plan execute and what each may take; the same words in every command that runs plans."""
    from dfkd_bench.engines import DEFAULT, OPTIONS, engines, taking

    names = ", ".join(name + " (default with --jobs)" * (name == DEFAULT) for name in engines())
    by = {option: " or ".join(taking(option)) for option in OPTIONS}
    return many([
        click.option("--engine", metavar="NAME", help=f"Where runs execute: {names}."),
        JOBS,
        click.option("--address", metavar="ADDRESS", help=f"Of an existing cluster, for --engine {by['address']}."),
        click.option(
            "--engine-config", type=PATH, metavar="FILE", help=f"TOML with a table for --engine {by['config']}."
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
    ])(command)  # fmt: skip
