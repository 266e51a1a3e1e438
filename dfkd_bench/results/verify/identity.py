"""Whether a record is the run that it says it is: hash, folder, settings, teacher, data, schedule, counts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfkd_bench import protocol
from dfkd_bench.data.home import is_present
from dfkd_bench.errors import BenchError, UsageError
from dfkd_bench.method import Flags
from dfkd_bench.plugins import registry
from dfkd_bench.recipe import StudentRecipe
from dfkd_bench.results.verify.case import Case
from dfkd_bench.results.verify.findings import Finding, differences, off
from dfkd_bench.runs.length import Length
from dfkd_bench.runs.settings import SETTINGS
from dfkd_bench.runs.spec import RunSpec, hash_of, resolve_settings
from dfkd_bench.runs.task_plugins import kept_facts, missing, shown
from dfkd_bench.teachers.registry import Teacher, teachers, weights_sha256
from dfkd_bench.teachers.verify import TOLERANCE as TEACHER_TOLERANCE
from dfkd_bench.training.build import plan_run
from dfkd_bench.training.meter import COUNTS


class LocalPlugins:
    """What of methods and teachers is on this machine, each looked up once."""

    def __init__(self) -> None:
        self._methods: dict[str, tuple[registry.Entry, str] | None] = {}
        self._teachers: dict[str, Teacher] | None = None
        self._files: dict[Path, str] = {}

    def method(self, name: str) -> tuple[registry.Entry, str] | None:
        """An installed method and the digest of its code; None where it is not here."""
        if name not in self._methods:
            entry = registry.entries().get(name)
            try:
                found = (entry, registry.code_digest(entry)) if entry and not entry.rivals else None
            except BenchError:
                found = None
            self._methods[name] = found
        return self._methods[name]

    def whose(self, code: str) -> str | None:
        """The installed method with this digest of its code."""
        return next((n for n in registry.entries() if (found := self.method(n)) and found[1] == code), None)

    def teacher(self, sha256: str) -> Teacher | None:
        """The registered teacher with these bytes."""
        if self._teachers is None:
            self._teachers = {t.sha256: t for t in reversed(teachers().values())}
        return self._teachers.get(sha256)

    def file_of(self, teacher: Teacher) -> str:
        """SHA-256 of a teacher's file. Raises `RunError` where it is missing."""
        if teacher.path not in self._files:
            self._files[teacher.path] = weights_sha256(teacher.path)
        return self._files[teacher.path]


def check_names(case: Case) -> Iterator[Finding]:
    """Hash and folder follow from the specification; every word of it is known."""
    spec, kept = case.spec, case.record["hash"]
    found = hash_of(case.raw["spec"])
    if found != kept:
        yield case.problem(f"its specification has hash {found}, the record says {kept}: the specification was changed")
    wanted = tuple((spec.folder.removesuffix(spec.hash) + kept).split("/"))
    place = case.folder.resolve().parts[-len(wanted) :]
    if place != wanted:
        yield case.problem(f"lies in {'/'.join(place)}, its specification belongs in {'/'.join(wanted)}")
    for kind, word, known in (
        *((one.name, getattr(spec, one.name), one.choices) for one in SETTINGS.values() if one.choices),
        ("status", case.result.get("status"), ("complete", "diverged", "failed")),
    ):
        if word not in known:
            yield case.problem(f"{kind} {word!r} is none of {', '.join(known)}")
    if protocol.version(spec.protocol) is None:
        yield case.problem(f"protocol {spec.protocol!r} is no version")
    try:
        budget = protocol.check_budget(spec.budget)
    except UsageError as error:
        yield case.problem(str(error))
        return
    if budget != spec.budget:
        yield case.problem(f"budget {spec.budget!r} is written {budget!r}")


def check_manifest(case: Case) -> Iterator[Finding]:
    """The manifest says the same as the specification."""
    spec, about = case.spec, case.record["manifest"]
    for name, said, meant in (
        ("manifest.threads", about["threads"], spec.threads),
        ("manifest.teacher.sha256", about["teacher"]["sha256"], spec.teacher),
    ):
        if said != meant:
            yield case.problem(off(name, said, "the specification says", meant))
    if case.ended:
        settings = json.loads(json.dumps(about["settings"]["method"]))
        for name, said, meant in differences(settings, case.record["spec"]["settings"], 0.0):
            yield case.problem(off(f"manifest.settings.method.{name}", said, "the specification says", meant))


def check_plugins(case: Case) -> Iterator[Finding]:
    """What other packages bring of the task is named as what it is; a note where it is not here as the run had it."""
    data, teacher, student = protocol.split_task_name(case.spec.task)
    for word, _ in case.spec.plugins:
        if word not in (f"dataset:{data}", f"architecture:{teacher}", f"architecture:{student}"):
            yield case.problem(f"spec.plugins names {word}, which is no part of {case.spec.task}")
    for line in missing(case.record):
        yield case.note(f"nothing was evaluated again: {line}")


def check_teacher(case: Case, here: LocalPlugins) -> Iterator[Finding]:
    """The teacher is registered with the accuracy that the record shows, and its file has its bytes."""
    spec, said = case.spec, case.record["manifest"]["teacher"]
    teacher_entry = here.teacher(spec.teacher)
    if teacher_entry is None:
        yield case.note(
            f"its teacher {said['name']} (SHA-256 {spec.teacher[:12]}) is not registered here: "
            "what depends on it was not evaluated again"
        )
        return
    try:
        found = here.file_of(teacher_entry)
        if found != teacher_entry.sha256:
            yield case.problem(
                f"teacher {teacher_entry.name}: its file has SHA-256 {found[:12]}, not {teacher_entry.sha256[:12]}"
            )
    except BenchError as error:
        yield case.problem(str(error))
    chosen = protocol.task(spec.task)
    if (teacher_entry.dataset, teacher_entry.arch) != (chosen.dataset.name, chosen.teacher):
        yield case.problem(
            f"its teacher is {teacher_entry.name}, a {teacher_entry.arch} for {teacher_entry.dataset}, "
            f"not one of task {spec.task}"
        )
    if said["name"] != teacher_entry.name:
        yield case.note(f"its teacher is called {said['name']} there, {teacher_entry.name} here")
    if said["top1"] != teacher_entry.top1:
        yield case.problem(off("manifest.teacher.top1", said["top1"], "the registry says", teacher_entry.top1))
    if case.ended and not abs(case.result["fidelity"]["teacher_top1"] - teacher_entry.top1) <= TEACHER_TOLERANCE:
        measured = case.result["fidelity"]["teacher_top1"]
        yield case.problem(off("fidelity.teacher_top1", measured, "the teacher is registered with", teacher_entry.top1))


def check_data(case: Case) -> Iterator[Finding]:
    """The dataset is the protocol's; another protocol may have had other bytes. A record's facts of it are its own."""
    facts = protocol.task(case.spec.task).dataset
    if (kept := kept_facts(case.record)) is not None:
        for name, said, meant in differences(kept, shown(facts), 0.0):
            yield case.problem(off(f"manifest.plugins.facts.{name}", said, f"dataset {facts.name} has", meant))
    if facts.sha256 and case.spec.data != facts.sha256:
        says = f"spec.data is {case.spec.data[:12]}, the protocol's {facts.name} has SHA-256 {facts.sha256[:12]}"
        yield case.problem(says) if case.of_today else case.note(f"{says}: nothing was evaluated again on it")
    if not is_present(facts):
        yield case.note(f"dataset {facts.name} is not here: nothing was evaluated again on it")


def check_code(case: Case, here: LocalPlugins) -> Iterator[Finding]:
    """Where the method is here in the version of the run, its presets give the settings of the run."""
    spec, found = case.spec, here.method(case.spec.method)
    if found is None:
        yield case.note(f"method {spec.method} is not installed here: its settings were not compared with its presets")
        return
    entry, digest = found
    plugin = case.record["manifest"]["plugin"]
    if plugin["owner"] == entry.owner and plugin["target"] != entry.target:
        yield case.problem(off("manifest.plugin.target", plugin["target"], f"method {spec.method} is", entry.target))
    if digest != spec.code:
        if owner := here.whose(spec.code):
            yield case.problem(f"says method {spec.method}, its code is that of {owner}")
        yield case.note(f"the code of {spec.method} is another here: its settings were not compared with its presets")
        return
    card, chosen = registry.card(entry), protocol.task(spec.task)
    settings = dict(spec.settings)
    if spec.track == "pinned":
        for name, fact in card.pinned.items():
            if settings.get(name) != getattr(chosen.pinned, fact):
                meant = getattr(chosen.pinned, fact)
                yield case.problem(off(f"settings.{name}", settings.get(name), "track pinned fixes", meant))
    if spec.preset not in card.presets:
        yield case.problem(f"method {spec.method} has no preset {spec.preset!r}")
        return
    today = resolve_settings(card, spec.method, spec.preset, chosen, spec.track, spec.budget, dict(spec.overrides))
    for name, said, meant in differences(settings, dict(today), 0.0):
        # what a preset says is no part of the code, and may have been changed since
        yield case.note(off(f"settings.{name}", said, f"preset {spec.preset} gives today", meant))


def check_schedule(case: Case, here: LocalPlugins) -> Iterator[Finding]:
    """Recipe and length of the run are what protocol, track and budget fix."""
    spec, said = case.spec, case.record["manifest"]["settings"]
    chosen = protocol.task(spec.task)
    plan = said["schedule"]
    flags = Flags(
        student_steps=plan["student_steps"],
        rounds_per_epoch=plan["rounds_per_epoch"],
        warmup_rounds=plan["warmup_rounds"],
    )
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said["recipe"].items()}
    published = StudentRecipe(**kept)
    method = here.method(spec.method)
    known = method is not None and method[1] == spec.code
    if method and known:
        kind = registry.load(method[0])
        made = kind(kind.Config(**dict(spec.settings)))
        flags, published = made.flags, made.recipe
    if known and (seconds := protocol.seconds_of(spec.budget)) is not None:
        pace = Length.from_json(case.record["measurement"]["pace"]).pace
        if (fit := pace.rounds_in(seconds, flags)) != plan["rounds"]:
            name = "manifest.settings.schedule.rounds"
            yield case.problem(off(name, plan["rounds"], f"by measurement.pace into {seconds:g} s fit", fit))
    recipe, length = plan_run(spec, chosen, flags, published, plan["rounds"])
    for part, meant in (("recipe", dataclasses.asdict(recipe)), ("schedule", dataclasses.asdict(length))):
        for name, found, wanted in differences(said[part], meant, 0.0):
            where = f"manifest.settings.{part}.{name}"
            yield case.problem(off(where, found, f"track {spec.track} and budget {spec.budget} give", wanted))


def check_length(case: Case) -> Iterator[Finding]:
    """The rounds of a run of seconds are those that were kept; counts are whole and follow from the schedule."""
    counts, plan = case.result["counts"], case.record["manifest"]["settings"]["schedule"]
    if protocol.seconds_of(case.spec.budget) is not None:
        kept = Length.from_json(case.record["measurement"]["pace"])
        if plan["rounds"] != kept.rounds:
            name = "manifest.settings.schedule.rounds"
            yield case.problem(off(name, plan["rounds"], "measurement.pace says", kept.rounds))
    for name in dict.fromkeys([*COUNTS, *counts]):
        value = counts.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            yield case.problem(f"counts.{name} is {value!r}, not a count")
            return
    if case.result["status"] == "complete":
        steps = plan["rounds"] * plan["student_steps"]
        for name, wanted in (("student_steps", steps), ("student_images", steps * plan["batch_size"])):
            if counts[name] != wanted:
                yield case.problem(off(f"counts.{name}", counts[name], "the schedule gives", wanted))
    for less, more in (("student_images", "student_forwards"), ("teacher_backwards", "teacher_forwards")):
        if counts[less] > counts[more]:
            yield case.problem(f"counts.{less} is {counts[less]}, more than counts.{more} ({counts[more]})")


def check_across(cases: list[Case]) -> Iterator[Finding]:
    """Across records: no run twice, no student in two runs, and the seeds of a row cost the same."""
    by_hash: dict[str, Case] = {}
    by_student: dict[str, Case] = {}
    by_row: dict[str, Case] = {}
    for case in cases:
        first = by_hash.setdefault(case.record["hash"], case)
        if first is not case:
            yield case.problem(f"is the run {case.record['hash']} once more, which {first.name()} records")
            continue
        if not case.ended:
            continue
        first = by_student.setdefault(case.result["digests"]["student"], case)
        if first is not case:
            text = f"has the very student of {first.name()}"
            yield case.problem(text) if first.spec.seed != case.spec.seed else case.note(text)
        if protocol.seconds_of(case.spec.budget) is not None:
            continue  # each seed has the rounds that its own pace gave
        first = by_row.setdefault(row_of(case.spec), case)
        if case.result["status"] == first.result["status"] == "complete":
            for name, found, others in differences(case.result["counts"], first.result["counts"], 0.0):
                yield case.note(off(f"counts.{name}", found, f"seed {first.spec.seed} of the same row has", others))


def row_of(spec: RunSpec) -> str:
    """All of a specification but the seed."""
    return json.dumps({**spec.to_json(), "seed": None}, sort_keys=True)
