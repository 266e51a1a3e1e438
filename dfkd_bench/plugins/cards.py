"""The card of a method or an add-on (paper, presets, privileges, settings), read from its source text if possible.

Reading a card from source text imports neither torch nor the method; it needs class attributes that are literals.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfkd_bench.addon import AddOn
    from dfkd_bench.method import Method


@dataclass(frozen=True)
class SettingInfo:
    """One field of a method's config."""

    name: str
    default: Any
    help: str
    choices: tuple[Any, ...] | None
    unit: str
    privilege: str = ""  # the privilege that is needed only if this setting is not 0


@dataclass(frozen=True)
class Card:
    """The declarations of a method or an add-on; an add-on has one preset and no settings for tasks."""

    doc: str  # docstring of the class
    paper: str
    presets: dict[str, dict[str, Any]]
    default_preset: str
    privileges: tuple[str, ...]
    settings: tuple[SettingInfo, ...] = field(default=())
    task_settings: tuple[tuple[str, str, dict[str, Any]], ...] = ()  # (preset glob, task glob, settings)
    budget_settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # budget -> settings
    pinned: dict[str, str] = field(default_factory=dict)  # settings that the pinned track fixes -> name in TaskFacts
    about: str = ""  # docstring of the file
    preset_privileges: dict[str, tuple[str, ...]] = field(default_factory=dict)  # preset -> additional privileges
    search: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # setting to tune -> candidate values
    least_label_consistency: float = 0.0  # label agreement in %; tuning does not select a trial below it

    def privileges_of(self, preset: str) -> tuple[str, ...]:
        """Privileges of the method, then those of `preset`."""
        return tuple(dict.fromkeys((*self.privileges, *self.preset_privileges.get(preset, ()))))

    def needs(self, preset: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """`privileges_of` without those that `settings` disable."""
        off = {s.privilege for s in self.settings if s.privilege and not settings[s.name]}
        return tuple(p for p in self.privileges_of(preset) if p not in off)

    def switch_of(self, privilege: str) -> str:
        """Name of the setting that disables `privilege` if it is 0; empty for none."""
        return next((s.name for s in self.settings if s.privilege == privilege), "")


def static_card(path: Path, class_name: str) -> Card | None:
    """The card of `class_name` in the file `path`; None if its attributes are not literals.

    Raises `SyntaxError` or `ValueError` for a file that is not Python.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    try:
        return _read(tree, class_name)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def static_about(path: Path, name: str) -> str:
    """The argument `about` (by keyword or the second) in the call that creates the object `name` in the file `path`.

    Empty if it is not a literal. Raises `SyntaxError` or `ValueError` for a file that is not Python.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    call = _assigned(tree.body).get(name)
    if not isinstance(call, ast.Call):
        return ""
    given = [k.value for k in call.keywords if k.arg == "about"] or call.args[1:2]
    try:
        return str(_literal(given[0], _literals(tree.body)))
    except (ValueError, IndexError):
        return ""


UNKNOWN = ("...", "described in code only", "")  # a column that is not a literal


def static_columns(path: Path, name: str) -> tuple[tuple[str, str, str], ...]:
    """Name, meaning and unit of each column of the metric `name` in the file `path`; `UNKNOWN` if it is not a literal.

    Raises `SyntaxError` or `ValueError` for a file that is not Python.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    call, constants = _assigned(tree.body).get(name), _literals(tree.body)
    if not isinstance(call, ast.Call):
        return (UNKNOWN,)
    given = [k.value for k in call.keywords if k.arg == "columns"] or call.args[2:3]
    columns = given[0].elts if given and isinstance(given[0], ast.Tuple | ast.List) else [None]
    return tuple(_column(node, constants) for node in columns)


def card_of_class(method: type[Method] | type[AddOn]) -> Card:
    """The same card from the imported class."""
    import dataclasses

    def value(name: str, default: Any) -> Any:
        return getattr(method, name, default)

    settings = tuple(
        SettingInfo(
            f.name,
            f.default,
            f.metadata.get("help", ""),
            f.metadata.get("choices"),
            f.metadata.get("unit", ""),
            f.metadata.get("privilege", ""),
        )
        for f in dataclasses.fields(method.Config)
    )
    return Card(
        doc=inspect.cleandoc(method.__doc__ or ""),
        paper=method.paper,
        privileges=tuple(method.privileges.declared()),
        settings=settings,
        about=inspect.cleandoc(sys.modules[method.__module__].__doc__ or ""),
        **_optional(value),
    )


def _optional(value: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Fields of a card that a class need not declare; `value` gives what it declares, or else the default."""
    return {
        "presets": {k: dict(v) for k, v in value("presets", {"default": {}}).items()},
        "default_preset": value("default_preset", "default"),
        "task_settings": tuple((p, t, dict(s)) for p, t, s in value("task_settings", ())),
        "budget_settings": {k: dict(v) for k, v in value("budget_settings", {}).items()},
        "pinned": dict(value("pinned", {})),
        "preset_privileges": {k: tuple(v) for k, v in value("preset_privileges", {}).items()},
        "search": {k: tuple(v) for k, v in value("search", {}).items()},
        "least_label_consistency": value("least_label_consistency", 0.0),
    }


# -- reading source text ----------------------------------------------------------------------------------------------


def _read(tree: ast.Module, class_name: str) -> Card:
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    constants = _literals(tree.body)
    node = classes[class_name]
    values = _assigned(node.body)

    def value(name: str, default: Any) -> Any:
        return _literal(values[name], constants) if name in values else default

    privileges: tuple[str, ...] = ()
    if "privileges" in values:
        call = values["privileges"]
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("privileges are not literal")
        privileges = tuple(k.arg for k in call.keywords if k.arg and _literal(k.value, constants))
    return Card(
        doc=ast.get_docstring(node) or "",
        paper=value("paper", ""),
        privileges=privileges,
        settings=_settings(classes[ast.unparse(values["Config"])], constants),
        about=ast.get_docstring(tree) or "",
        **_optional(value),
    )


def _assigned(body: list[ast.stmt]) -> dict[str, ast.expr]:
    values = {}
    for item in body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            values[item.targets[0].id] = item.value
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            values[item.target.id] = item.value
    return values


def _literals(body: list[ast.stmt]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for name, value in _assigned(body).items():
        try:
            known[name] = ast.literal_eval(value)
        except ValueError:
            continue
    return known


def _literal(node: ast.expr, constants: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    return ast.literal_eval(node)


def _column(node: ast.expr | None, constants: dict[str, Any]) -> tuple[str, str, str]:
    if not isinstance(node, ast.Call):
        return UNKNOWN
    fields = ("name", "meaning", "unit")
    given = dict(zip(fields, node.args, strict=False)) | {k.arg: k.value for k in node.keywords if k.arg}
    try:
        name, meaning, unit = (str(_literal(given[f], constants)) if f in given else "" for f in fields)
    except ValueError:
        return UNKNOWN
    return name, meaning, unit


def _settings(node: ast.ClassDef, constants: dict[str, Any]) -> tuple[SettingInfo, ...]:
    settings = []
    for name, call in _assigned(node.body).items():
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).endswith("setting")):
            raise ValueError(f"{name} is not made with setting()")
        default, help = (_literal(a, constants) for a in call.args)
        extra = {k.arg: _literal(k.value, constants) for k in call.keywords}
        choices = tuple(extra["choices"]) if extra.get("choices") else None
        settings.append(SettingInfo(name, default, help, choices, extra.get("unit", ""), extra.get("privilege", "")))
    return tuple(settings)
