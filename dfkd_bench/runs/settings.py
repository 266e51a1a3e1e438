"""The settings of a run, each in one place: field, type, default, option, key in a run file, help and check.

What a user asks for is a `Request`, which has a field for each. The options of commands (`cli/options.py`), run files
and printed commands (`runfile.py`), and the columns that part tables of results are made from these fields. A new
setting that changes what a run does is a field of `LaterSettings`, which `RunSpec` (`spec.py`) has too; one that does
not is a field of `Request`.
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

DEFAULT_THREADS = 2  # fixed, not the machine's: the number of threads is part of a run
# where results go that differ in a setting: to other tables, or to other rows of one table. Empty where a specification
# has it in another form: task, seed, digest of the teacher, add-ons
Parts = Literal["tables", "rows", ""]


@dataclass(frozen=True)
class Setting:
    """What is known of one setting beside its default."""

    name: str  # of the field of `Request`
    type: Any
    flags: tuple[str, ...]  # of its option
    help: str
    metavar: str | None = None
    check: Callable[[Any], Any] = lambda value: value  # a request's value in its one spelling, or `UsageError`
    choices: tuple[str, ...] = ()  # what a specification may say; empty: not a closed list
    parts: Parts = ""

    @property
    def key(self) -> str:
        """Its key in a run file: the option's name."""
        return self.flags[-1].partition("/")[0].removeprefix("--")

    @property
    def takes(self) -> str:
        """Its values in words."""
        return _WORDS.get(self.type) or str(getattr(self.type, "__name__", "str"))

    def read(self, value: Any) -> Any:
        """A value as run files and options may write it in the form of the field; a wrong one stays as it is."""
        if self.type == tuple[str, ...] and isinstance(value, str):
            return (value,)
        if self.type == tuple[int, ...]:
            return _seeds(value)
        if self.type == dict[str, Any] and isinstance(value, Mapping):  # ema.decay = 0.9 is a table of its own to TOML
            return {k: v for key, part in value.items() for k, v in _flat(key, part).items()}
        return value

    def written(self, value: Any) -> Any:
        """The inverse of `read`: a request's value as a run file has it; None where it is left out."""
        if self.name in LATER and value == LATER[self.name]:
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
    """What a user asked for. The fields stand in the order of the options, and after `methods` all have a default."""

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


LATER: dict[str, Any] = {one.name: one.default for one in dataclasses.fields(LaterSettings)}
SETTINGS: dict[str, Setting] = {  # by the field of `Request`, later ones last
    one.name: Setting(one.name, get_type_hints(Request)[one.name], **one.metadata)
    for one in sorted(dataclasses.fields(Request), key=lambda one: one.name in LATER)
}
TERMS = tuple(name for name, one in SETTINGS.items() if one.parts == "tables")
VARIANTS = tuple(name for name, one in SETTINGS.items() if one.parts == "rows")


def fields_of(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a `Request` from the table of a run file. Raises `UsageError` for unknown keys and wrong types.

    Keys are the names of the options of `dfkd-bench run`: method, task and with take a name or a list, seeds "0-4", a
    number or a list, `set` is a table of settings, an add-on's as name.key.
    """
    known = {one.key: one for one in SETTINGS.values()}
    read = {key: known[key].read(value) if key in known else value for key, value in table.items()}
    found = check(read, {key: (one.type, one.takes) for key, one in known.items()}, where)
    return {known[key].name: value for key, value in found.items()}


def checked(request: Request) -> Request:
    """The request with types right and every word in its one spelling. Raises `UsageError` for what cannot be."""
    found = fields_of({one.key: getattr(request, one.name) for one in SETTINGS.values()}, "the request")
    return Request(**{name: SETTINGS[name].check(value) for name, value in found.items()})
