"""Loggers: the list of loggers, the option --log, and the callback that sends the events of a run to the loggers.

If a logger raises, one line is printed to stderr, the logger gets no further events, and the run continues.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import BenchError, UsageError, did_you_mean
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import LOGGER, Entry
from dfkd_bench.runs.progress import Callback, Logger, ProgressEvent, no_callback
from dfkd_bench.utils.text import error_line, one_line

if TYPE_CHECKING:
    from dfkd_bench.runs.spec import RunSpec

BUILT_IN = ("tensorboard", "jsonl")  # modules of this folder; the name of each one's `LOGGER` is the module's name
FOLDER = "logs"  # below the results folder: the default folder of loggers


@dataclass(frozen=True)
class Log:
    """A logger of the option --log. It writes below `where`, each run into `RunSpec.folder`."""

    name: str
    where: Path


def loggers() -> dict[str, Entry]:
    """Every declared logger by name, those of this package first. Imports no logger."""
    return registry.with_own(LOGGER, {name: f"{__name__}.{name}:LOGGER" for name in BUILT_IN})


def parse_logs(words: Sequence[str], results: Path) -> tuple[Log, ...]:
    """The loggers of `NAME` or `NAME=FOLDER` words, checked. Raises as `check` does."""
    logs = []
    for word in words:
        name, equals, where = word.partition("=")
        if equals and not where:
            raise UsageError(f"--log takes NAME or NAME=FOLDER, got {word!r}")
        log = Log(name, (Path(where) if where else results / FOLDER / name).absolute())
        check(log)
        logs.append(log)
    return tuple(dict.fromkeys(logs))


def check(log: Log) -> None:
    """Raise `UsageError` or `RunError` if the logger is unknown or cannot be used on this machine."""
    entry, logger = load(log.name)
    registry.call_plugin(entry, logger.check)


def load(name: str) -> tuple[Entry, Logger]:
    """The logger `name`.

    Raises `UsageError` if it is unknown or declared by two packages, `RunError` if it cannot be imported.
    """
    known = loggers()
    if name not in known:
        raise UsageError(f"unknown logger {name!r}{did_you_mean(name, list(known))}")
    entry = registry.without_clash(known[name])
    return entry, registry.load_object(entry, Logger)


@contextmanager
def with_loggers(logs: Sequence[Log], spec: RunSpec, callback: Callback) -> Iterator[Callback]:
    """One callback that calls `callback` and the loggers, for the run of `spec`."""
    with ExitStack() as stack:
        callbacks = [callback, *(stack.enter_context(_Guarded(log, spec)) for log in logs)]

        def call_all(event: ProgressEvent) -> None:
            for each in callbacks:
                each(event)

        yield call_all


class _Guarded:
    """One logger of one run. Its first exception is printed; after that it gets no events."""

    def __init__(self, log: Log, spec: RunSpec) -> None:
        self.log, self.spec = log, spec
        self.who, self.working = f"logger {log.name!r}", True
        self._context: AbstractContextManager[Callback] | None = None
        self._watch: Callback = no_callback

    def __enter__(self) -> _Guarded:
        self._try(self._open)
        return self

    def __call__(self, event: ProgressEvent) -> None:
        if self.working:
            self._try(self._watch, event)

    def __exit__(self, *error: Any) -> None:
        if self._context is not None:
            self._try(self._context.__exit__, *error)

    def _open(self) -> None:
        entry, logger = load(self.log.name)
        self.who = entry.who
        context = logger.open(self.log.where / self.spec.folder, self.spec)
        self._watch, self._context = context.__enter__(), context

    def _try(self, function: Callable[..., object], *args: Any) -> None:
        try:
            function(*args)
        except (Exception, SystemExit) as error:
            if self.working:
                what = one_line(str(error)) if isinstance(error, BenchError) else error_line(error)
                print(f"{self.who}: {what}; the run goes on without it", file=sys.stderr, flush=True)
            self.working = False
