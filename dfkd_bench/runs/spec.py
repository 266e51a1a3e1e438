"""`RunSpec`: everything that the result of a run depends on, with a hash that names the run's folder."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.plugins.objects import Codes
from dfkd_bench.plugins.registry import Card, SettingInfo
from dfkd_bench.protocol import PROTOCOL, Task, to_folder_name
from dfkd_bench.runs.settings import LATER_DEFAULTS, LaterSettings
from dfkd_bench.utils.hashing import file_sha256, sha256
from dfkd_bench.utils.parse import convert, parse_json

ROUND = "student_steps"  # the setting with the number of student steps per round


@dataclass(frozen=True)
class AddOnSpec:
    """One add-on around a run's method."""

    name: str
    code: str  # SHA-256 of its source, as for the method
    settings: tuple[tuple[str, Any], ...]  # resolved; the run's `overrides` hold the --set values as name.key

    def to_json(self) -> dict[str, Any]:
        """A plain dict, the inverse of `from_json`."""
        return {"name": self.name, "code": self.code, "settings": dict(self.settings)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> AddOnSpec:
        """Raises `TypeError`, `KeyError`, `AttributeError` or `ValueError` for invalid data."""
        return convert(vars(cls(**{**data, "settings": frozen_settings(data["settings"])})), cls)


@dataclass(frozen=True, kw_only=True)
class RunSpec(LaterSettings):
    """One run. `result` in its record is a pure function of this (on one machine)."""

    task: str
    method: str
    preset: str
    overrides: tuple[tuple[str, Any], ...]
    track: str
    budget: str
    seed: int
    device: str  # the kind: cpu or cuda
    precision: str
    compile: bool
    threads: int  # changes the order of additions on CPU, and so the bits of the result
    teacher: str  # SHA-256 of the teacher's file
    data: str  # SHA-256 of the dataset's arrays
    code: str  # SHA-256 of the method's source without comments and declared values: `plugins.code_digest`
    settings: tuple[tuple[str, Any], ...]  # of the method, resolved; see `resolve_settings`
    protocol: str = PROTOCOL
    addons: tuple[AddOnSpec, ...] = ()  # around the method, innermost first
    plugins: Codes = ()  # plug-ins of the task: its dataset and architectures, if from other packages

    def to_json(self) -> dict[str, Any]:
        """A plain dict, the inverse of `from_json`. Empty add-ons and plug-ins are left out, to keep older hashes."""
        plain = {**dataclasses.asdict(self), "overrides": dict(self.overrides), "settings": dict(self.settings)}
        del plain["addons"], plain["plugins"]
        plain = {
            key: value for key, value in plain.items() if key not in LATER_DEFAULTS or value != LATER_DEFAULTS[key]
        }
        plain |= {"addons": [a.to_json() for a in self.addons]} if self.addons else {}
        return plain | ({"plugins": dict(self.plugins)} if self.plugins else {})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunSpec:
        """Raises `RunError` for missing or unknown keys and wrong types."""
        try:
            addons = tuple(AddOnSpec.from_json(a) for a in data.get("addons", ()))
            values = {**data, **{key: frozen_settings(data[key]) for key in ("overrides", "settings")}}
            values |= {"addons": addons, "plugins": frozen_settings(data.get("plugins", {}))}
            return convert(vars(cls(**values)), cls)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise RunError(f"not a run specification: {error}") from error

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits over the canonical JSON."""
        return hash_of(self.to_json())

    @property
    def folder(self) -> str:
        """The run's folder below a results folder: protocol/task/method/track-budget-seed-hash."""
        method = "".join(c if c.isalnum() or c in "._-" else "_" for c in self.method)
        name = f"{self.track}-{to_folder_name(self.budget)}-s{self.seed}-{self.hash}"
        return "/".join([self.protocol, re.sub(r"[^\w.=@+-]", "_", self.task), method, name])


def hash_of(spec: dict[str, Any]) -> str:
    """Twelve hexadecimal digits over the canonical JSON of a specification, of any schema."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return sha256(text)[:12]


def coerce(info: SettingInfo, value: Any, where: str) -> Any:
    """`value` (a string from the command line, or a TOML value) converted to the type of the setting's default.

    Raises `UsageError` if it has another type or is not among the choices.
    """
    kind: type[Any] = type(info.default)
    wrong = UsageError(f"{where}: {info.name} takes {kind.__name__}, got {value!r:.200}")
    try:
        result = convert(value if kind is str or not isinstance(value, str) else parse_value(value, kind), kind)
    except ValueError as error:
        raise wrong from error
    if kind is float and result != result:
        raise UsageError(f"{where}: {info.name} is not a number")
    if info.choices and result not in info.choices:
        raise UsageError(f"{where}: {info.name} is one of {', '.join(map(str, info.choices))}, got {result!r}")
    return result


def parse_value(text: str, kind: type[Any]) -> Any:
    """A value of `kind` from its text on the command line. Raises `ValueError`."""
    if kind is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.strip().lower())
    return kind(text) if kind in (int, float) else parse_json(text)


def check_overrides(
    card: Card, overrides: dict[str, Any], method: str, where: str = "--set", kind: str = "method"
) -> dict[str, Any]:
    """Overrides converted to the types of the settings. Raises `UsageError` for an unknown setting or wrong value."""
    known = {s.name: s for s in card.settings}
    checked = {}
    for key, value in overrides.items():
        if key not in known:
            raise UsageError(f"{where}: {kind} {method} has no setting {key!r}{did_you_mean(key, list(known))}")
        checked[key] = coerce(known[key], value, where)
        if known[key].unit == "file" and checked[key]:
            checked[key] = with_digest(checked[key], f"{where}: {key}")
    return checked


def with_digest(path: str, where: str) -> str:
    """`path#sha256`, so that the content of a file setting is part of the specification.

    Raises `UsageError` if the file cannot be read, or if `path` has a digest already (as in a record) and differs.
    """
    name, _, sha = path.rpartition("#")
    if not re.fullmatch("[0-9a-f]{64}", sha):
        name, sha = "", ""
    try:
        digest = file_sha256(Path(name or path))
    except OSError as error:
        raise UsageError(f"{where}: cannot read {name or path}: {error.strerror}") from error
    if name and sha != digest:
        raise UsageError(f"{where}: {name} has changed (SHA-256 {digest[:12]}, not {sha[:12]})")
    return f"{name or path}#{digest}"


def frozen_settings(settings: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Settings as a specification holds them: sorted by name, lists as tuples."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

    return tuple(sorted((name, frozen(value)) for name, value in settings.items()))


def matches(name: str, globs: str) -> bool:
    """True if `name` matches one of the globs, which are separated by `|`."""
    return any(fnmatchcase(name, glob) for glob in globs.split("|"))


def apply_layer(layer: Mapping[str, Any], values: dict[str, Any], method: str) -> None:
    """Put the settings of `layer` into `values`. Raises `RunError` for an unknown one."""
    for key, value in layer.items():
        if key not in values:
            raise RunError(f"a preset, task or budget of {method} sets {key!r}, which its Config lacks")
        values[key] = value


def resolve_settings(
    card: Card, method: str, preset: str, task: Task, track: str, budget: str, overrides: dict[str, Any]
) -> tuple[tuple[str, Any], ...]:
    """The settings of a run; later layers replace earlier ones: defaults, preset, task, track, budget, --set.

    The pinned track also limits the setting `student_steps`, if a method has it: see `Task.longest_round`.

    Raises `UsageError` if --set changes a pinned setting, `RunError` if a layer has an unknown setting.
    """
    values = {s.name: s.default for s in card.settings}
    layers = [card.presets[preset]]
    layers += [s for p, t, s in card.task_settings if matches(preset, p) and matches(task.name, t)]
    for layer in layers:
        apply_layer(layer, values, method)
    if track == "pinned":
        for key in overrides:
            if key in card.pinned:
                raise UsageError(f"--set: track pinned fixes {key} for every method; use --track recipe to change it")
        apply_layer({name: getattr(task.pinned, fact) for name, fact in card.pinned.items()}, values, method)
        if ROUND in values:
            values[ROUND] = min(values[ROUND], task.longest_round(budget))
    for layer in (card.budget_settings.get(budget, {}), overrides):
        apply_layer(layer, values, method)
    for info in card.settings:
        if type(info.default) is float and type(values[info.name]) is int:
            values[info.name] = float(values[info.name])
    return frozen_settings(values)


def make_spec(
    method: str,
    card: Card,
    task: Task,
    *,
    preset: str,
    track: str,
    budget: str,
    overrides: Mapping[str, Any] | None = None,
    changed: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    compile: bool = False,
    threads: int = 1,
    teacher: str = "",
    data: str = "",
    code: str = "",
    addons: tuple[AddOnSpec, ...] = (),
    plugins: Codes = (),
    **later: Any,
) -> RunSpec:
    """The specification of a run of `method` on `task`, with resolved settings.

    `overrides` are the method's, from `check_overrides`; `changed` are those of add-ons, by `name.key`. Digests that
    are not known are empty. `later`: fields of `LaterSettings`. Raises as `resolve_settings` does.
    """
    own = dict(overrides or {})
    return RunSpec(
        task=task.name, method=method, preset=preset, overrides=frozen_settings(own | dict(changed or {})), track=track,
        budget=budget, seed=seed, device=device, precision=precision, compile=compile, threads=threads,
        teacher=teacher, data=data, code=code, addons=addons, plugins=plugins, **later,
        settings=resolve_settings(card, method, preset, task, track, budget, own),
    )  # fmt: skip
