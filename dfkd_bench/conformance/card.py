"""Rules about the class alone: settings, presets, what is pinned, the card, flags and recipe."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args, get_type_hints

from dfkd_bench import registry
from dfkd_bench.cards import SettingInfo, card_of_class
from dfkd_bench.conformance.report import Report
from dfkd_bench.method import Flags, Method, Network, StudentRecipe, TaskFacts
from dfkd_bench.protocol import BUDGETS, Pinned
from dfkd_bench.registry import Entry
from dfkd_bench.spec import matches

PLAIN = (bool, int, float, str, tuple)  # what the command line and a run's specification can carry


def check_class(kind: type[Method], entry: Entry, report: Report) -> None:
    """Every rule that needs no instance."""
    with report.rule("config"):
        check_config(kind, report)
    with report.rule("presets"):
        check_presets(kind, report)
    with report.rule("pinned"):
        check_pinned(kind, report)
    with report.rule("card"):
        check_card(kind, entry, report)


def check_config(kind: type[Method], report: Report) -> None:
    """A frozen dataclass whose fields explain themselves."""
    config = kind.Config
    if not report.expect("config", dataclasses.is_dataclass(config), f"{config!r} is no dataclass"):
        return
    frozen = getattr(config, "__dataclass_params__").frozen  # noqa: B009  (mypy does not know the attribute)
    report.expect("config", frozen, f"{config.__name__} is not frozen")
    for f in dataclasses.fields(config):
        help = f.metadata.get("help")
        one_line = isinstance(help, str) and bool(help.strip()) and "\n" not in help
        report.expect("config", one_line, f"{f.name} has no one-line help: make it with setting(default, help)")
        plain = isinstance(f.default, PLAIN)
        report.expect("config", plain, f"{f.name} has a default of type {type(f.default).__name__}")
        choices = f.metadata.get("choices")
        report.expect("config", not choices or f.default in choices, f"the default of {f.name} is not a choice")
    config()


def check_presets(kind: type[Method], report: Report) -> None:
    """Presets and task settings can be applied."""
    infos = {s.name: s for s in card_of_class(kind).settings}
    report.expect(
        "presets", kind.default_preset in kind.presets, f"default_preset {kind.default_preset!r} is no preset"
    )
    layers = [(f"preset {name}", layer) for name, layer in kind.presets.items()]
    for preset, task, layer in kind.task_settings:
        found = any(matches(name, preset) for name in kind.presets)
        report.expect("presets", found, f"task_settings name a preset {preset!r} that there is not")
        layers.append((f"task_settings of {preset}, {task}", layer))
    for budget, layer in kind.budget_settings.items():
        report.expect("presets", budget in BUDGETS, f"budget_settings name a budget {budget!r} that there is not")
        layers.append((f"budget_settings of {budget}", layer))
    for where, layer in layers:
        for name, value in layer.items():
            if report.expect("presets", name in infos, f"{where} sets {name!r}, which Config lacks"):
                seen = f"{where} sets {name} to {value!r}, which its type or choices do not allow"
                report.expect("presets", fits(infos[name], value), seen)
    check_search(kind, infos, report)


def check_search(kind: type[Method], infos: dict[str, SettingInfo], report: Report) -> None:
    """Candidates for tuning are values that their settings take."""
    for name, candidates in kind.search.items():
        if report.expect("presets", name in infos, f"search names a setting {name!r}, which Config lacks"):
            for value in candidates:
                report.expect("presets", fits(infos[name], value), f"search has {value!r} for {name}")


def fits(info: SettingInfo, value: Any) -> bool:
    """Whether `value` has the type of the setting's default (a whole number may stand for a float) and is a choice."""
    kinds = (float, int) if type(info.default) is float else (type(info.default),)
    return type(value) in kinds and (not info.choices or value in info.choices)


def check_pinned(kind: type[Method], report: Report) -> None:
    """What the pinned track fixes exists on both sides."""
    infos = {s.name: s for s in card_of_class(kind).settings}
    facts = {f.name for f in dataclasses.fields(TaskFacts)} & {f.name for f in dataclasses.fields(Pinned)}
    for name, fact in kind.pinned.items():
        report.expect("pinned", name in infos, f"pinned names a setting {name!r}, which Config lacks")
        known = ", ".join(sorted(facts))
        report.expect("pinned", fact in facts, f"the pinned track fixes no {fact!r}; it fixes {known}")


def check_card(kind: type[Method], entry: Entry, report: Report) -> None:
    """The card read from the source text is the one of the class."""
    report.expect("card", bool((kind.__doc__ or "").strip()), "the class has no docstring")
    static = registry.static_card(entry)
    if static is None:
        report.fail("card", "the source can be understood only by importing it")
        return
    imported = card_of_class(kind)
    for f in dataclasses.fields(static):
        text, value = getattr(static, f.name), getattr(imported, f.name)
        if f.name == "privileges":
            text, value = sorted(text), sorted(value)
        report.expect("card", text == value, f"{f.name} in the source text differ from those of the class")


def check_flags(flags: Flags, recipe: StudentRecipe, teacher: Network, student: Network, report: Report) -> None:
    """Values in range, words known, taps that exist."""
    if not report.expect("flags", isinstance(flags, Flags), f"flags are a {type(flags).__name__}, not Flags"):
        return
    least = {"synthesis_steps": 0, "student_steps": 1, "rounds_per_epoch": 1, "warmup_rounds": 0}
    for name, low in least.items():
        value = getattr(flags, name)
        report.expect("flags", type(value) is int and value >= low, f"{name} is {value!r}, expected a count from {low}")
    share = flags.warmup_fraction
    report.expect("flags", 0.0 <= share < math.inf, f"warmup_fraction is {share!r}, expected a share from 0")
    hints = get_type_hints(Flags)
    for name in ("order", "student_mode"):
        value = getattr(flags, name)
        report.expect("flags", value in get_args(hints[name]), f"{name} is {value!r}")
    for name in ("rowwise", "teacher_in_distillation"):
        report.expect("flags", type(getattr(flags, name)) is bool, f"{name} is {getattr(flags, name)!r}")
    for tap in flags.distill_taps:
        known = tap == "stages" or (tap in teacher.tap_names and tap in student.tap_names)
        report.expect("flags", known, f"distill_taps name {tap!r}, which teacher or student lacks")
    if report.expect("flags", isinstance(recipe, StudentRecipe), f"recipe is a {type(recipe).__name__}"):
        rates = [recipe.rate(step, 100, 10) for step in range(100)]
        positive = all(math.isfinite(r) and r >= 0 for r in rates) and recipe.batch_size > 0 and recipe.epochs > 0
        report.expect("flags", positive, "the recipe's rates, batch size and epochs are not all finite and positive")
