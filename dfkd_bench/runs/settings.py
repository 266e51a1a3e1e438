"""The settings of a run: for each one the field, type, default, option, key in a run file, help and check.

`Request` has one field per setting. The options of commands (`cli/options.py`), run files and printed commands
(`runfile.py`), and the columns by which results are split into tables are generated from these fields. A new setting
that changes what a run computes is a field of `LaterSettings`, and so also of `RunSpec` (`spec.py`); another one is a
field of `Request`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_type_hints

from dfkd_bench.errors import UsageError
from dfkd_bench.protocol import DEFAULT_TASK, DEVICES, PRECISIONS, TRACKS, check_budget, check_word
from dfkd_bench.utils.parse import check

DEFAULT_THREADS = 2  # fixed, not the machine's number: the number of threads is part of a run
# runs that differ in the setting appear in different tables, or in different rows of one table; "" if the
# specification holds the setting in another form: task, seed, digest of the teacher, add-ons
Parts = Literal["tables", "rows", ""]


@dataclass(frozen=True)
class Setting:
    """Everything about one setting except its default."""

    name: str  # of the field of `Request`
    type: Any
    flags: tuple[str, ...]  # of its option
    help: str
    metavar: str | None = None
    check: Callable[[Any], Any] = lambda value: value  # returns the canonical value, or raises `UsageError`
    choices: tuple[str, ...] = ()  # allowed values in a specification; empty: any
    parts: Parts = ""

    @property
    def key(self) -> str:
        """Its key in a run file: the option's name."""
        return self.flags[-1].partition("/")[0].removeprefix("--")

    @property
    def takes(self) -> str:
        """The expected type, for error messages."""
        return _WORDS.get(self.type) or str(getattr(self.type, "__name__", "str"))

    def read(self, value: Any) -> Any:
        """A value of a run file or option, converted to the type of the field; a wrong value is returned unchanged."""
        if self.type == tuple[str, ...] and isinstance(value, str):
            return (value,)
        if self.type == tuple[int, ...]:
            return _seeds(value)
        if self.type == dict[str, Any] and isinstance(value, Mapping):  # TOML reads ema.decay = 0.9 as a nested table
            return {k: v for key, part in value.items() for k, v in _flat(key, part).items()}
        return value

    def written(self, value: Any) -> Any:
        """The inverse of `read`: a value of the field as a run file writes it; None if it is left out."""
        if self.name in LATER_DEFAULTS and value == LATER_DEFAULTS[self.name]:
            return None
        if self.type == tuple[int, ...]:
            return ",".join(map(str, value))
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value


_WORDS = {tuple[str, ...]: "a name or a list of names", tuple[int, ...]: "whole numbers", dict[str, Any]: "a table"}


def parse_seeds(text: str) -> tuple[int, ...]:
    """`3`, `0-4` or `0,2,5-7` as seeds. Raises `UsageError` for anything else."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise UsageError(f"seeds are whole numbers from 0 on, such as 0, 0-4 or 0,2,5; got {text!r}")
    return tuple(dict.fromkeys(seeds))


def _seeds(value: Any) -> Any:
    if type(value) is int:
        value = (value,)
    if isinstance(value, list | tuple | range):
        value = ",".join(map(str, value))
    return parse_seeds(value) if isinstance(value, str) else value


def _flat(key: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": 1}}` under `key` as `{"key.a.b": 1}`."""
    if not isinstance(value, Mapping):
        return {key: value}
    return {k: v for name, part in value.items() for k, v in _flat(f"{key}.{name}", part).items()}


def _from_one(option: str, value: int) -> int:
    if value < 1:
        raise UsageError(f"{option} takes a whole number from 1 on")
    return value


def _setting(*flags: str, kw_only: Any = dataclasses.MISSING, **about: Any) -> Any:  # missing: as its class
    of_field = {name: about.pop(name) for name in ("default", "default_factory") if name in about}
    return field(kw_only=kw_only, metadata={"flags": flags, **about}, **of_field)


@dataclass(frozen=True, kw_only=True)
class LaterSettings:
    """Settings that came after the first records: fields of `Request` and of `RunSpec`.

    Each says `parts`. A default is left out of specifications, run files and printed commands, so that a run that does
    not use the setting keeps its hash.
    """


@dataclass(frozen=True)
class Request(LaterSettings):
    """The runs that a user asks for. The fields are in the order of the options."""

    methods: tuple[str, ...] = _setting("-m", "--method", metavar="NAME", help="A method, file.py:Class, or `all`.")
    tasks: tuple[str, ...] = _setting(
        "-t", "--task", default=(DEFAULT_TASK,), metavar="TASK", help="dataset/teacher-student. Repeatable."
    )
    seeds: tuple[int, ...] = _setting(
        "-s", "--seeds", default=(0,), metavar="SEEDS", help="0, 0-4 or 0,2,5. Default: 0."
    )
    preset: str | None = _setting(
        "--preset", default=None, metavar="NAME", help="A method's preset. Default: the method's own.", parts="rows"
    )
    track: str = _setting(
        "--track", default=TRACKS[0], metavar="TRACK", help="pinned (default) or recipe.", parts="tables",
        choices=TRACKS, check=partial(check_word, "track", known=TRACKS),
    )  # fmt: skip
    budget: str = _setting(
        "--budget", default="quick", metavar="BUDGET", parts="tables", check=check_budget,
        help="smoke, quick (default), standard, full or seconds:N.",
    )  # fmt: skip
    overrides: dict[str, Any] = _setting(  # noqa: RUF009 (it is a field)
        "--set", default_factory=dict, kw_only=True, metavar="KEY=VALUE", parts="rows",
        help="Change a setting (ADDON.KEY of an add-on).",
    )  # fmt: skip
    addons: tuple[str, ...] = _setting(
        "--with", default=(), kw_only=True, metavar="ADDON",
        help="An add-on around the method. Repeatable, innermost first.",
    )  # fmt: skip
    teacher: str | None = _setting(
        "--teacher", default=None, kw_only=True, metavar="NAME",
        help="A registered teacher. Default: the first that fits the task.",
    )  # fmt: skip
    device: str = _setting(
        "--device", default="auto", metavar="DEVICE", help="auto (default), cpu or cuda.", parts="tables",
        choices=DEVICES, check=partial(check_word, "device", known=("auto", *DEVICES)),
    )  # fmt: skip
    precision: str = _setting(
        "--precision", default=PRECISIONS[0], metavar="PRECISION", help="fp32 (default) or bf16.", parts="tables",
        choices=PRECISIONS, check=partial(check_word, "precision", known=PRECISIONS),
    )  # fmt: skip
    compile: bool = _setting(
        "--compile/--no-compile", default=False, help="torch.compile the steps; worth it in long runs.", parts="rows"
    )
    threads: int = _setting(
        "--threads", default=DEFAULT_THREADS, metavar="N", parts="rows", check=partial(_from_one, "--threads"),
        help="CPU threads (default 2); part of a run, as it changes bits.",
    )  # fmt: skip


LATER_DEFAULTS: dict[str, Any] = {one.name: one.default for one in dataclasses.fields(LaterSettings)}
SETTINGS: dict[str, Setting] = {  # by the field of `Request`, later ones last
    one.name: Setting(one.name, get_type_hints(Request)[one.name], **one.metadata)
    for one in sorted(dataclasses.fields(Request), key=lambda one: one.name in LATER_DEFAULTS)
}
TERMS = tuple(name for name, one in SETTINGS.items() if one.parts == "tables")
VARIANTS = tuple(name for name, one in SETTINGS.items() if one.parts == "rows")


def request_fields(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a `Request` from the table of a run file. Raises `UsageError` for unknown keys and wrong types.

    Keys are the names of the options of `dfkd-bench run`. `method`, `task` and `with` take a name or a list; `seeds`
    takes "0-4", a number or a list; `set` is a table of settings, with `name.key` for those of add-ons.
    """
    known = {one.key: one for one in SETTINGS.values()}
    read = {key: known[key].read(value) if key in known else value for key, value in table.items()}
    values = check(read, {key: (one.type, one.takes) for key, one in known.items()}, where)
    return {known[key].name: value for key, value in values.items()}


def checked_request(request: Request) -> Request:
    """The request with every value checked and in its canonical form. Raises `UsageError` for a wrong value."""
    values = request_fields({one.key: getattr(request, one.name) for one in SETTINGS.values()}, "the request")
    return Request(**{name: SETTINGS[name].check(value) for name, value in values.items()})
