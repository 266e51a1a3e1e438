"""Rules about the class: settings, presets, pinned settings, card, flags and recipe."""

from __future__ import annotations

import dataclasses
import math
from itertools import chain
from typing import Any, get_args, get_type_hints

from dfkd_bench.addon import AddOn
from dfkd_bench.conformance.report import Report
from dfkd_bench.data.terms import Pinned
from dfkd_bench.method import Flags, Method, Mode, Network, StudentRecipe, TaskFacts
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.cards import SettingInfo, card_of_class
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.protocol import BUDGETS
from dfkd_bench.runs.spec import matches

MIXED = ({"eval"}, {"train"}, {"eval", "train"})  # of a tuple; train_keep_stats restores only after the whole round
PLAIN = (bool, int, float, str, tuple)  # types that the command line and a run's specification support


def check_class(kind: type[Method], entry: Entry, report: Report) -> None:
    """Every rule that needs no instance."""
    with report.rule("frozen-config"):
        check_frozen(kind, report)
    with report.rule("settings"):
        check_settings(kind, report)
    with report.rule("presets"):
        check_presets(kind, report)
    with report.rule("pinned"):
        check_pinned(kind, report)
    with report.rule("card"):
        check_card(kind, entry, report)


def check_addon(entry: Entry, report: Report) -> bool:
    """The rules about the class of an add-on; failures name the add-on. Returns True if it can be imported."""
    own = Report()
    kind: type[AddOn] | None = None
    with own.rule("import"):
        kind = registry.load_addon(entry)
    if kind is not None:
        with own.rule("frozen-config"):
            check_frozen(kind, own)
        with own.rule("settings"):
            check_settings(kind, own)
        with own.rule("card"):
            check_card(kind, entry, own)
    for rule, expected, seen in own.failures():
        report.fail(rule, f"add-on {entry.name}: {seen}", expected)
    return kind is not None


def check_frozen(kind: type[Method] | type[AddOn], report: Report) -> None:
    """Rule frozen-config: `Config` is a frozen dataclass."""
    config = kind.Config
    if report.expect("frozen-config", dataclasses.is_dataclass(config), f"{config!r}, which is no dataclass"):
        frozen = getattr(config, "__dataclass_params__").frozen  # noqa: B009  (mypy does not know the attribute)
        name = config.__name__
        report.expect("frozen-config", frozen, f"{name} is not frozen", f"@dataclass(frozen=True) before {name}")


def check_settings(kind: type[Method] | type[AddOn], report: Report) -> None:
    """Rule settings: every field has a help text, a plain default among its choices, and a declared privilege."""
    if not dataclasses.is_dataclass(kind.Config):
        return
    allowed = ", ".join(k.__name__ for k in PLAIN)
    for f in dataclasses.fields(kind.Config):
        help = f.metadata.get("help")
        one_line = isinstance(help, str) and bool(help.strip()) and "\n" not in help
        expected = f"{f.name} made with setting(default, help)"
        report.expect("settings", one_line, f"{f.name} has no one-line help", expected)
        kind_of = type(f.default).__name__
        expected = f"a default of one of the types {allowed}"
        report.expect("settings", isinstance(f.default, PLAIN), f"{f.name} has a default of type {kind_of}", expected)
        choices = f.metadata.get("choices")
        known = not choices or f.default in choices
        expected = f"one of {', '.join(map(repr, choices or ()))}"
        report.expect("settings", known, f"the default of {f.name} is {f.default!r}", expected)
        privilege = f.metadata.get("privilege")
        declared = [*kind.privileges.declared(), *chain.from_iterable(getattr(kind, "preset_privileges", {}).values())]
        seen = f"{f.name} switches {privilege!r}, which is not declared"
        report.expect("settings", not privilege or privilege in declared, seen, f"one of {', '.join(declared)}")
    kind.Config()


def check_presets(kind: type[Method], report: Report) -> None:
    """Rule presets: presets, task_settings, budget_settings and search have known settings and valid values."""
    infos = {s.name: s for s in card_of_class(kind).settings}
    presets = ", ".join(map(repr, kind.presets))
    default = kind.default_preset
    report.expect("presets", default in kind.presets, f"default_preset is {default!r}", f"one of {presets}")
    layers = [(f"preset {name}", layer) for name, layer in kind.presets.items()]
    for preset, task, layer in kind.task_settings:
        known_preset = any(matches(name, preset) for name in kind.presets)
        seen = f"task_settings name the preset {preset!r}"
        report.expect("presets", known_preset, seen, f"one of {presets}, or a glob")
        layers.append((f"task_settings of {preset}, {task}", layer))
    for budget, layer in kind.budget_settings.items():
        known = f"one of {', '.join(BUDGETS)}"
        report.expect("presets", budget in BUDGETS, f"budget_settings name the budget {budget!r}", known)
        layers.append((f"budget_settings of {budget}", layer))
    for where, layer in layers:
        for name, value in layer.items():
            check_value(infos, name, value, f"{where} sets", report)
    for name, candidates in kind.search.items():
        for value in candidates:
            check_value(infos, name, value, "search sets", report)
    least = kind.least_label_consistency
    percent = type(least) in (int, float) and 0 <= least <= 100
    report.expect("presets", percent, f"least_label_consistency is {least!r}", "label agreement in %: from 0 to 100")


def check_value(infos: dict[str, SettingInfo], name: str, value: Any, where: str, report: Report) -> None:
    """Check one value of a preset, task, budget or search: the setting exists and accepts it."""
    known = ", ".join(infos)
    if report.expect("presets", name in infos, f"{where} {name!r}, which Config lacks", f"one of {known}"):
        info = infos[name]
        expected = f"one of {', '.join(map(repr, info.choices))}" if info.choices else type(info.default).__name__
        report.expect("presets", fits(info, value), f"{where} {name} to {value!r}", f"{name}: {expected}")


def fits(info: SettingInfo, value: Any) -> bool:
    """True if `value` has the type of the setting's default (int is allowed for float) and is among the choices."""
    kinds = (float, int) if type(info.default) is float else (type(info.default),)
    return type(value) in kinds and (not info.choices or value in info.choices)


def check_pinned(kind: type[Method], report: Report) -> None:
    """Rule pinned: the settings exist, and the pinned track fixes the values they are tied to."""
    infos = {s.name: s for s in card_of_class(kind).settings}
    facts = {f.name for f in dataclasses.fields(TaskFacts)} & {f.name for f in dataclasses.fields(Pinned)}
    for name, fact in kind.pinned.items():
        settings = f"one of {', '.join(infos)}"
        report.expect("pinned", name in infos, f"pinned names a setting {name!r}, which Config lacks", settings)
        known = f"one of {', '.join(sorted(facts))}"
        report.expect("pinned", fact in facts, f"pinned ties {name} to {fact!r}, which the track does not fix", known)


def check_card(kind: type[Method] | type[AddOn], entry: Entry, report: Report) -> None:
    """Rule card: the card read from the source text equals the card of the imported class."""
    report.expect("card", bool((kind.__doc__ or "").strip()), "the class has no docstring", "a docstring of one line")
    static = registry.static_card(entry)
    if static is None:
        report.fail("card", "the source can be understood only by importing it")
        return
    imported = card_of_class(kind)
    for f in dataclasses.fields(static):
        text, value = getattr(static, f.name), getattr(imported, f.name)
        if f.name == "privileges":
            text, value = sorted(text), sorted(value)
        seen = f"{f.name} in the source text differ from those of the class"
        report.expect("card", text == value, seen, f"{f.name} written once, as a literal, in the class")


def check_flags(flags: Flags, recipe: StudentRecipe, teacher: Network, student: Network, report: Report) -> None:
    """Rule flags: values of flags and recipe are in range, and the taps exist."""

    def expect(holds: bool, seen: str, expected: str) -> None:
        report.expect("flags", holds, seen, expected)

    report.require("flags", isinstance(flags, Flags), f"flags are a {type(flags).__name__}", "a Flags")
    least = {"student_steps": 1, "rounds_per_epoch": 1}
    least |= dict.fromkeys(("synthesis_steps", "warmup_synthesis_steps", "warmup_rounds"), 0)
    for name, low in least.items():
        value = getattr(flags, name)
        expect(type(value) is int and value >= low, f"{name} is {value!r}", f"{name}: a count from {low}")
    share = flags.warmup_fraction
    expect(0.0 <= share < math.inf, f"warmup_fraction is {share!r}", "warmup_fraction: a share from 0")
    words = get_args(get_type_hints(Flags)["order"])
    expect(flags.order in words, f"order is {flags.order!r}", f"order: {' or '.join(words)}")
    several, seen = isinstance(flags.student_mode, tuple), f"student_mode is {flags.student_mode!r}"
    expect(
        flags.student_mode in get_args(Mode) or (several and set(flags.student_mode) in MIXED),
        seen,
        f"student_mode: {' or '.join(get_args(Mode))}, or a tuple of eval and train",
    )
    for name in ("rowwise", "teacher_in_distillation"):
        value = getattr(flags, name)
        expect(type(value) is bool, f"{name} is {value!r}", f"{name}: True or False")
    named = [(*network.tap_names, *network.raw_taps.values()) for network in (teacher, student)]
    taps = ("stages", "stages_raw", *(tap for tap in named[0] if tap in named[1]))
    for tap in flags.distill_taps:
        expect(tap in taps, f"distill_taps name {tap!r}", f"what teacher and student have: {', '.join(taps)}")
    known, seen = isinstance(recipe, StudentRecipe), f"recipe is a {type(recipe).__name__}"
    report.require("flags", known, seen, "a StudentRecipe")
    rates = [recipe.rate(step, 100, 10) for step in range(100)]
    positive = all(math.isfinite(r) and r >= 0 for r in rates) and recipe.batch_size > 0 and recipe.epochs > 0
    expect(positive, f"{recipe}", "a recipe whose rates, batch size and epochs are finite and positive")
