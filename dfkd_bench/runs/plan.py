"""Turns a request (methods x tasks x seeds) into a list of planned runs, and finds the state of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dfkd_bench.data.base import Dataset
from dfkd_bench.data.home import is_present, require_folder
from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.models import architecture
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.plugins.objects import plugin_digests
from dfkd_bench.plugins.registry import Card
from dfkd_bench.protocol import GRANTED, PROTOCOL, Task, tag, task
from dfkd_bench.runs.length import Length
from dfkd_bench.runs.planned import PlannedRun, State
from dfkd_bench.runs.settings import SETTINGS, checked_request
from dfkd_bench.runs.settings import Request as Request
from dfkd_bench.runs.spec import AddOnSpec, RunSpec, check_overrides, frozen_settings, make_spec
from dfkd_bench.runs.task_plugins import missing_plugins
from dfkd_bench.teachers.registry import Teacher, teacher_for, teachers

SHARED_FIELDS = tuple(one.name for one in fields(RunSpec) if one.name in SETTINGS)  # of `Request` and of `RunSpec`


def make_plan(
    request: Request, results: Path, *, anywhere: bool = False, say: Callable[[str], None] = lambda line: None
) -> list[PlannedRun]:
    """Every run of `request`, in order of task, method, seed. Raises `UsageError` if one is not possible.

    If the teacher of a task lacks something that a method needs (such as BatchNorm statistics): a method named in the
    request raises; a method of `all` is left out, and `say` gets a line about it. With `anywhere` the plan is only
    displayed: the dataset and the default teacher may be missing on this machine; their digests are then empty, and
    the state of the run is `missing`.
    """
    request = checked_request(request)
    device = pick_device(request.device)
    same = {name: getattr(request, name) for name in SHARED_FIELDS}
    words = expand_all(request.methods, GRANTED["real_data"] if request.addons else ())
    entries = [registry.resolve(word) for word in words]
    named = {entry.name for entry, word in zip(entries, words, strict=True) if word in request.methods}
    cards = {entry.name: registry.card(entry) for entry in entries}
    addon_entries = resolve_addons(request.addons)
    own, theirs = split_overrides(request.overrides, addon_entries)
    addons = tuple(addon_spec(entry, theirs.get(entry.name, {})) for entry in addon_entries)
    changed = {f"{a.name}.{key}": dict(a.settings)[key] for a in addons for key in theirs.get(a.name, {})}
    for entry in entries if addon_entries else ():
        refuse_addons(entry, cards[entry.name])
    planned = []
    for name in request.tasks:
        selected = task(name)
        teacher_entry = teacher_entry_of(selected, request.teacher, anywhere)
        data = "" if anywhere and not is_present(selected.dataset) else data_digest(selected.dataset)
        plugins = plugin_digests(selected.plugins)
        lacks = architecture(selected.teacher).lacks
        unfit: dict[str, str] = {}  # method -> the privilege that it needs and the teacher lacks
        for entry in entries:
            card = cards[entry.name]
            preset = preset_of(card, request.preset, entry.name)
            overrides = check_overrides(card, own, entry.name)
            resolved = {"preset": preset, "overrides": overrides, "device": device, "teacher": teacher_entry.sha256}
            first = make_spec(
                entry.name, card, selected, **{**same, **resolved, "addons": addons}, changed=changed, data=data,
                code=registry.code_digest(entry), plugins=plugins,
            )  # fmt: skip
            needs = card.needs(preset, dict(first.settings))
            if lacking := [p for p in lacks if p in needs]:
                unfit[entry.name] = lacking[0]
                continue
            for seed in request.seeds:
                spec = replace(first, seed=seed)
                planned.append(PlannedRun(spec, entry, teacher_entry, addon_entries, state=state_of(spec, results)))
        for needed in dict.fromkeys(unfit.values()):
            those = [name for name, privilege in unfit.items() if privilege == needed]
            if refused := [name for name in those if name in named]:
                switches = {name: cards[name].switch_of(needed) for name in refused}
                raise UsageError(privilege_message(switches, needed, selected.teacher, lacks))
            say(f"{selected.name}: without {', '.join(those)}, which need {PRIVILEGE_WORDS[needed]}")
    return planned


PRIVILEGE_WORDS = {"bn_statistics": "BatchNorm statistics", "stage_maps": "feature maps"}  # some networks lack these


def privilege_message(
    switches: dict[str, str], privilege: str, teacher: str, lacking: Iterable[str], *more: str
) -> str:
    """The error message for methods that need `privilege`, which the network `teacher` lacks, with what to do.

    `switches`: for each method, the setting that turns the need off when set to 0, or "". `lacking`: all privileges
    that the teacher lacks. `more`: further suggestions.
    """
    many = len(switches) > 1
    who = f"methods {', '.join(switches)} need" if many else f"method {next(iter(switches))} needs"
    settings = [f"{switch}=0" + (f" ({name})" if many else "") for name, switch in switches.items() if switch]
    ways = [f"--set {' or '.join(settings)} avoids this"] if settings else []
    suggestions = ", or ".join([*ways, *more, suggest_methods(*lacking)])
    return f"{who} {PRIVILEGE_WORDS[privilege]}, which {teacher} does not have: {suggestions}"


def suggest_methods(*privileges: str) -> str:
    """`choose one of ...`: the methods that use neither `privileges` nor real data."""
    excluded = {*privileges, "real_data"}
    cards = {name: registry.card(entry) for name, entry in registry.entries().items() if not entry.rivals}
    names = [name for name, card in cards.items() if not excluded & set(card.privileges_of(card.default_preset))]
    return f"choose one of {', '.join(names)}"


def teacher_entry_of(selected: Task, name: str | None, anywhere: bool) -> Teacher:
    """The teacher `name`, or the default one, of a task.

    Raises `UsageError` if no teacher is registered or `name` does not fit the task. With `anywhere`, a missing default
    teacher is an entry without file and digest instead.
    """
    try:
        return teacher_for(selected, name)
    except UsageError:
        if name or not anywhere:
            raise
        return Teacher("", selected.dataset.name, selected.teacher, -1, "", "", 0.0, "", "")


def expand_all(words: Iterable[str], without: Collection[str]) -> tuple[str, ...]:
    """Method names with `all` expanded to every installed method that can be named, except those of `without`.

    Bounds allow no add-ons and are not tuned.
    """
    everything = [name for name, entry in registry.entries().items() if not entry.rivals and name not in without]
    return tuple(dict.fromkeys(m for word in words for m in (everything if word == "all" else [word])))


def resolve_addons(words: tuple[str, ...]) -> tuple[Entry, ...]:
    """The add-ons of these names or files, in order. Raises `UsageError` for an unknown or repeated one."""
    entries = tuple(registry.resolve(word, registry.ADDON) for word in words)
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--with {name} is named {names.count(name)} times: name each add-on once")
    return entries


def split_overrides(
    overrides: dict[str, Any], addons: tuple[Entry, ...]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The --set overrides of the method, and those of each add-on (`name.key`).

    Raises `UsageError` for an add-on that the run does not have.
    """
    own: dict[str, Any] = {}
    theirs: dict[str, dict[str, Any]] = {}
    names = [entry.name for entry in addons]
    for key, value in overrides.items():
        name, dot, setting = key.rpartition(".")
        if not dot:
            own[key] = value
        elif name in names:
            theirs.setdefault(name, {})[setting] = value
        else:
            raise UsageError(
                f"--set {key}: the run has no add-on {name!r}; put it around the method with --with {name}"
            )
    return own, theirs


def addon_spec(entry: Entry, overrides: dict[str, Any]) -> AddOnSpec:
    """The specification of an add-on. Raises `UsageError` for a wrong setting."""
    card = registry.card(entry)
    if "real_data" in card.privileges:
        raise UsageError(f"add-on {entry.name} declares real_data, which is granted to the benchmark's bounds alone")
    changed = check_overrides(card, overrides, entry.name, kind="add-on")
    return AddOnSpec(
        entry.name, registry.code_digest(entry), frozen_settings({s.name: s.default for s in card.settings} | changed)
    )


def refuse_addons(entry: Entry, card: Card) -> None:
    """Raise `UsageError` for a method that uses real data: an add-on must not see or store real images."""
    if "real_data" in card.privileges:
        raise UsageError(f"{entry.name} works on real data and takes no add-on: leave out --with, or leave it out")


def data_digest(facts: Dataset) -> str:
    """SHA-256 of a dataset's arrays: the protocol's, or if it has none, that of the files on this machine.

    Raises `UsageError` if the files are missing, so that a run fails before training and not at its evaluation.
    """
    if not is_present(facts):
        require_folder(facts)
    if facts.sha256:
        return facts.sha256
    from dfkd_bench.data.loading import digest

    return digest(facts)


def plan_repeat(
    record: dict[str, Any], results: Path, method: str | None = None, addons: tuple[str, ...] = ()
) -> PlannedRun:
    """A plan that repeats the run of a record; `method` and `addons` give the files of file plug-ins.

    Raises `UsageError` if code, data, teacher or protocol differ from the record's.
    """
    spec = RunSpec.from_json(record["spec"])
    if spec.protocol != PROTOCOL:
        with_it = tag(spec.protocol)
        hint = f": repeat it with the code of git tag {with_it} (git checkout {with_it})" if with_it else ""
        raise UsageError(f"the record is of protocol {spec.protocol}, this version runs {PROTOCOL}{hint}")
    for line in missing_plugins(record):
        raise UsageError(f"the record cannot be repeated: {line}; install the version of the record")
    entry = registry.resolve(method or spec.method)
    selected = task(spec.task)
    if plugin_digests(selected.plugins) != spec.plugins:
        raise UsageError(f"the plug-ins that provide {spec.task} are not the ones of the record")
    teacher_entry = next((t for t in teachers().values() if t.sha256 == spec.teacher), None)
    if teacher_entry is None:
        raise UsageError(f"the record's teacher (SHA-256 {spec.teacher[:12]}) is not registered here")
    if spec.data != data_digest(selected.dataset):
        raise UsageError(f"dataset {selected.dataset.name} is not the record's (SHA-256 {spec.data[:12]})")
    if spec.code != registry.code_digest(entry):
        commit = (record.get("manifest") or {}).get("git_commit")
        raise UsageError(f"the code of {spec.method} changed since the record was made (commit {commit or 'unknown'})")
    addon_entries = resolve_addons(addons or tuple(a.name for a in spec.addons))
    if [(e.name, registry.code_digest(e)) for e in addon_entries] != [(a.name, a.code) for a in spec.addons]:
        names = ", ".join(a.name for a in spec.addons) or "none"
        raise UsageError(f"the record's add-ons ({names}) differ from those here")
    if spec.device == "cuda":
        pick_device("cuda")
    return PlannedRun(spec, entry, teacher_entry, addon_entries, recorded_length(record), state_of(spec, results))


def recorded_length(record: dict[str, Any]) -> Length | None:
    """The length stored in a record; None unless its budget is of seconds and it finished. Raises `RunError`."""
    stored = record.get("measurement", {}).get("pace")
    return None if stored is None else Length.from_json(stored)


def preset_of(card: Card, name: str | None, method: str) -> str:
    """The preset `name`, or the method's default; raises `UsageError` for an unknown one."""
    preset = name or card.default_preset
    if preset not in card.presets:
        raise UsageError(f"method {method} has no preset {preset!r}{did_you_mean(preset, list(card.presets))}")
    return preset


def pick_device(word: str) -> str:
    """`cpu` or `cuda`; `auto` is cuda if available. Raises `UsageError` for an unknown or unavailable device."""
    import torch

    SETTINGS["device"].check(word)
    available = torch.cuda.is_available()
    if word == "cuda" and not available:
        raise UsageError("no CUDA device is available here: use --device cpu or auto")
    return "cuda" if word == "cuda" or (word == "auto" and available) else "cpu"


def state_of(spec: RunSpec, results: Path) -> State:
    """The state of a run, from the files of its folder."""
    from dfkd_bench.runs import records
    from dfkd_bench.utils import checkpoint

    folder = results / spec.folder
    try:
        if records.finished(results, spec):
            return "done"
    except RunError:  # an unreadable record counts as none
        return "interrupted"
    if (folder / records.FILE).exists():
        return "failed"
    return "interrupted" if (folder / checkpoint.NAME).exists() else "missing"
