"""A request (methods x tasks x seeds) as a list of run specifications, and what of it is done."""

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
from dfkd_bench.runs.settings import SETTINGS, checked
from dfkd_bench.runs.settings import Request as Request
from dfkd_bench.runs.spec import AddOnSpec, RunSpec, check_overrides, make_spec, settled
from dfkd_bench.runs.task_plugins import missing
from dfkd_bench.teachers.registry import Teacher, teacher_for, teachers

SAME = tuple(one.name for one in fields(RunSpec) if one.name in SETTINGS)  # what a request and a specification share


def make_plan(
    request: Request, results: Path, *, anywhere: bool = False, say: Callable[[str], None] = lambda line: None
) -> list[PlannedRun]:
    """Every run of `request`, in order of task, method, seed. Raises `UsageError` for whatever cannot be.

    Of `all` methods those that need what a task's teacher cannot give are left out there, and `say` gets a line about
    them; named ones are refused. With `anywhere` the plan is looked at, not run: dataset and unnamed teacher need not
    be here. Without them a run has no digest of theirs, and is missing.
    """
    request = checked(request)
    device = pick_device(request.device)
    same = {name: getattr(request, name) for name in SAME}
    words = expand_all(request.methods, GRANTED["real_data"] if request.addons else ())
    entries = [registry.resolve(word) for word in words]
    named = {entry.name for entry, word in zip(entries, words, strict=True) if word in request.methods}
    cards = {entry.name: registry.card(entry) for entry in entries}
    around = resolve_addons(request.addons)
    own, theirs = split_overrides(request.overrides, around)
    addons = tuple(addon_spec(entry, theirs.get(entry.name, {})) for entry in around)
    changed = {f"{a.name}.{key}": dict(a.settings)[key] for a in addons for key in theirs.get(a.name, {})}
    for entry in entries if around else ():
        refuse_addons(entry, cards[entry.name])
    planned = []
    for name in request.tasks:
        chosen = task(name)
        teacher_entry = teacher_entry_of(chosen, request.teacher, anywhere)
        data = "" if anywhere and not is_present(chosen.dataset) else data_digest(chosen.dataset)
        plugins = plugin_digests(chosen.plugins)
        unfit: dict[str, str] = {}  # method -> what it needs and this teacher lacks
        for entry in entries:
            card = cards[entry.name]
            preset = preset_of(card, request.preset, entry.name)
            overrides = check_overrides(card, own, entry.name)
            found = {"preset": preset, "overrides": overrides, "device": device, "teacher": teacher_entry.sha256}
            first = make_spec(
                entry.name, card, chosen, **{**same, **found, "addons": addons}, changed=changed, data=data,
                code=registry.code_digest(entry), plugins=plugins,
            )  # fmt: skip
            needs = card.needs(preset, dict(first.settings))
            if lacking := [p for p in architecture(chosen.teacher).lacks if p in needs]:
                unfit[entry.name] = lacking[0]
                continue
            for seed in request.seeds:
                spec = replace(first, seed=seed)
                planned.append(PlannedRun(spec, entry, teacher_entry, around, state=state_of(spec, results)))
        for needed in dict.fromkeys(unfit.values()):
            those = [name for name, privilege in unfit.items() if privilege == needed]
            if refused := [name for name in those if name in named]:
                switches = {name: cards[name].switch_of(needed) for name in refused}
                raise UsageError(cannot(switches, needed, chosen.teacher, architecture(chosen.teacher).lacks))
            say(f"{chosen.name}: without {', '.join(those)}, which need {LACKING[needed]}")
    return planned


LACKING = {"bn_statistics": "BatchNorm statistics", "stage_maps": "feature maps"}  # what a network may not have


def cannot(switches: dict[str, str], privilege: str, teacher: str, lacking: Iterable[str], *more: str) -> str:
    """Why methods do not run on `teacher`, which lacks these privileges, and what to do.

    `switches`: for each method the setting whose 0 does without, empty for none; `more`: other ways out.
    """
    many = len(switches) > 1
    who = f"methods {', '.join(switches)} need" if many else f"method {next(iter(switches))} needs"
    settings = [f"{switch}=0" + (f" ({name})" if many else "") for name, switch in switches.items() if switch]
    ways = [f"--set {' or '.join(settings)} does without"] if settings else []
    said = ", or ".join([*ways, *more, without(*lacking)])
    return f"{who} {LACKING[privilege]}, which {teacher} has not: {said}"


def without(*privileges: str) -> str:
    """`choose one of ...`: the methods that use none of `privileges`, nor real data."""
    barred = {*privileges, "real_data"}
    cards = {name: registry.card(entry) for name, entry in registry.entries().items() if not entry.rivals}
    found = [name for name, card in cards.items() if not barred & set(card.privileges_of(card.default_preset))]
    return f"choose one of {', '.join(found)}"


def teacher_entry_of(chosen: Task, name: str | None, anywhere: bool) -> Teacher:
    """The teacher of a task. With `anywhere`, where none is registered, an entry without a file and a digest.

    Raises `UsageError` otherwise, and for a teacher named that does not fit.
    """
    try:
        return teacher_for(chosen, name)
    except UsageError:
        if name or not anywhere:
            raise
        return Teacher("", chosen.dataset.name, chosen.teacher, -1, "", "", 0.0, "", "")


def expand_all(words: Iterable[str], without: Collection[str]) -> tuple[str, ...]:
    """`all` as every installed method that can be named save `without`: bounds take no add-on and are not tuned."""
    everything = [name for name, entry in registry.entries().items() if not entry.rivals and name not in without]
    return tuple(dict.fromkeys(m for word in words for m in (everything if word == "all" else [word])))


def resolve_addons(words: tuple[str, ...]) -> tuple[Entry, ...]:
    """The add-ons of these names or files, in order. Raises `UsageError` for an unknown one or one named twice."""
    found = tuple(registry.resolve(word, registry.ADDON) for word in words)
    names = [entry.name for entry in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--with {name} is named {names.count(name)} times: an add-on goes around a method once")
    return found


def split_overrides(
    overrides: dict[str, Any], addons: tuple[Entry, ...]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What --set says of the method, and of each add-on (`name.key`). Raises `UsageError` for one that is not there."""
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
    """An add-on as a specification holds it. Raises `UsageError` for a wrong setting."""
    card = registry.card(entry)
    if "real_data" in card.privileges:
        raise UsageError(f"add-on {entry.name} declares real_data, which is granted to the benchmark's bounds alone")
    changed = check_overrides(card, overrides, entry.name, kind="add-on")
    return AddOnSpec(
        entry.name, registry.code_digest(entry), settled({s.name: s.default for s in card.settings} | changed)
    )


def refuse_addons(entry: Entry, card: Card) -> None:
    """Raise `UsageError` for a method that works on real data: what an add-on sees or stores is synthetic."""
    if "real_data" in card.privileges:
        raise UsageError(f"{entry.name} works on real data and takes no add-on: leave out --with, or leave it out")


def data_digest(facts: Dataset) -> str:
    """SHA-256 of a dataset's arrays: the protocol's, or where it knows none, of what lies here.

    Raises `UsageError` where its files are missing: a run must not find that out after its last step.
    """
    if not is_present(facts):
        require_folder(facts)
    if facts.sha256:
        return facts.sha256
    from dfkd_bench.data.loading import digest

    return digest(facts)


def repeat(
    record: dict[str, Any], results: Path, method: str | None = None, addons: tuple[str, ...] = ()
) -> PlannedRun:
    """The run of a record once more; `method` and `addons` say where file plugins are.

    Raises `UsageError` where code, data, teacher or protocol are no longer the same.
    """
    spec = RunSpec.from_json(record["spec"])
    if spec.protocol != PROTOCOL:
        with_it = tag(spec.protocol)
        hint = f": repeat it with the code of git tag {with_it} (git checkout {with_it})" if with_it else ""
        raise UsageError(f"the record is of protocol {spec.protocol}, this version runs {PROTOCOL}{hint}")
    for line in missing(record):
        raise UsageError(f"the record cannot be repeated: {line}; install the version of the record")
    entry = registry.resolve(method or spec.method)
    chosen = task(spec.task)
    if plugin_digests(chosen.plugins) != spec.plugins:
        raise UsageError(f"what other packages bring of {spec.task} is not the record's: its names were others' then")
    teacher_entry = next((t for t in teachers().values() if t.sha256 == spec.teacher), None)
    if teacher_entry is None:
        raise UsageError(f"the record's teacher (SHA-256 {spec.teacher[:12]}) is not registered here")
    if spec.data != data_digest(chosen.dataset):
        raise UsageError(f"dataset {chosen.dataset.name} is not the record's (SHA-256 {spec.data[:12]})")
    if spec.code != registry.code_digest(entry):
        commit = (record.get("manifest") or {}).get("git_commit")
        raise UsageError(f"the code of {spec.method} changed since the record was made (commit {commit or 'unknown'})")
    around = resolve_addons(addons or tuple(a.name for a in spec.addons))
    if [(e.name, registry.code_digest(e)) for e in around] != [(a.name, a.code) for a in spec.addons]:
        raise UsageError(f"the record's add-ons ({', '.join(a.name for a in spec.addons) or 'none'}) are others here")
    if spec.device == "cuda":
        pick_device("cuda")
    return PlannedRun(spec, entry, teacher_entry, around, length_in(record), state_of(spec, results))


def length_in(record: dict[str, Any]) -> Length | None:
    """The length of a record's run where its budget is of seconds and it came to its end. Raises `RunError`."""
    kept = record.get("measurement", {}).get("pace")
    if kept is None:
        return None
    return Length.from_json(kept)


def preset_of(card: Card, wanted: str | None, method: str) -> str:
    """The preset asked for or the method's default; raises `UsageError` for an unknown one."""
    preset = wanted or card.default_preset
    if preset not in card.presets:
        raise UsageError(f"method {method} has no preset {preset!r}{did_you_mean(preset, list(card.presets))}")
    return preset


def pick_device(word: str) -> str:
    """`cpu` or `cuda`; `auto` is cuda where there is one. Raises `UsageError` otherwise."""
    import torch

    SETTINGS["device"].check(word)
    available = torch.cuda.is_available()
    if word == "cuda" and not available:
        raise UsageError("no CUDA device is available here: use --device cpu or auto")
    return "cuda" if word == "cuda" or (word == "auto" and available) else "cpu"


def state_of(spec: RunSpec, results: Path) -> State:
    """How far a run is, from its folder alone."""
    from dfkd_bench.runs import records
    from dfkd_bench.utils import checkpoint

    folder = results / spec.folder
    try:
        if records.finished(results, spec):
            return "done"
    except RunError:  # a record that cannot be read is none
        return "interrupted"
    if (folder / records.FILE).exists():
        return "failed"
    return "interrupted" if (folder / checkpoint.NAME).exists() else "missing"
