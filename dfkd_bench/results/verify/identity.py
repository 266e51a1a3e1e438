"""Checks of a run's identity: hash, folder, settings, teacher, data, schedule and counts."""

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
from dfkd_bench.results.verify.findings import Finding, differences, mismatch
from dfkd_bench.runs.length import Length
from dfkd_bench.runs.settings import SETTINGS
from dfkd_bench.runs.spec import RunSpec, hash_of, resolve_settings
from dfkd_bench.runs.task_plugins import kept_facts, missing_plugins, shown
from dfkd_bench.teachers.registry import Teacher, teachers, weights_sha256
from dfkd_bench.teachers.verify import TOLERANCE as TEACHER_TOLERANCE
from dfkd_bench.training.build import plan_run
from dfkd_bench.training.meter import COUNTS


class LocalPlugins:
    """Methods and teachers on this machine, each looked up once."""

    def __init__(self) -> None:
        self._methods: dict[str, tuple[registry.Entry, str] | None] = {}
        self._teachers: dict[str, Teacher] | None = None
        self._files: dict[Path, str] = {}

    def method(self, name: str) -> tuple[registry.Entry, str] | None:
        """An installed method and the digest of its code; None if it is not installed."""
        if name not in self._methods:
            entry = registry.entries().get(name)
            try:
                installed = (entry, registry.code_digest(entry)) if entry and not entry.rivals else None
            except BenchError:
                installed = None
            self._methods[name] = installed
        return self._methods[name]

    def method_with_code(self, code: str) -> str | None:
        """The name of the installed method with this code digest."""
        return next((n for n in registry.entries() if (method := self.method(n)) and method[1] == code), None)

    def teacher(self, sha256: str) -> Teacher | None:
        """The registered teacher with this digest."""
        if self._teachers is None:
            self._teachers = {t.sha256: t for t in reversed(teachers().values())}
        return self._teachers.get(sha256)

    def file_digest(self, teacher: Teacher) -> str:
        """SHA-256 of a teacher's file. Raises `RunError` if it is missing."""
        if teacher.path not in self._files:
            self._files[teacher.path] = weights_sha256(teacher.path)
        return self._files[teacher.path]


def check_names(case: Case) -> Iterator[Finding]:
    """Hash and folder must follow from the specification, and its words must be known."""
    spec, stored = case.spec, case.record["hash"]
    computed = hash_of(case.raw["spec"])
    if computed != stored:
        yield case.problem(
            f"its specification has hash {computed}, the record says {stored}: the specification was changed"
        )
    expected = tuple((spec.folder.removesuffix(spec.hash) + stored).split("/"))
    place = case.folder.resolve().parts[-len(expected) :]
    if place != expected:
        yield case.problem(f"is in {'/'.join(place)}, its specification belongs in {'/'.join(expected)}")
    for kind, word, known in (
        *((one.name, getattr(spec, one.name), one.choices) for one in SETTINGS.values() if one.choices),
        ("status", case.result.get("status"), ("complete", "diverged", "failed")),
    ):
        if word not in known:
            yield case.problem(f"{kind} {word!r} is none of {', '.join(known)}")
    if protocol.version(spec.protocol) is None:
        yield case.problem(f"protocol {spec.protocol!r} is not a version")
    try:
        budget = protocol.check_budget(spec.budget)
    except UsageError as error:
        yield case.problem(str(error))
        return
    if budget != spec.budget:
        yield case.problem(f"budget {spec.budget!r} must be written as {budget!r}")


def check_manifest(case: Case) -> Iterator[Finding]:
    """The manifest must agree with the specification."""
    spec, about = case.spec, case.record["manifest"]
    for name, stored, expected in (
        ("manifest.threads", about["threads"], spec.threads),
        ("manifest.teacher.sha256", about["teacher"]["sha256"], spec.teacher),
    ):
        if stored != expected:
            yield case.problem(mismatch(name, stored, "the specification says", expected))
    if case.ended:
        settings = json.loads(json.dumps(about["settings"]["method"]))
        for name, stored, expected in differences(settings, case.record["spec"]["settings"], 0.0):
            yield case.problem(mismatch(f"manifest.settings.method.{name}", stored, "the specification says", expected))


def check_plugins(case: Case) -> Iterator[Finding]:
    """Plug-ins in the specification must be parts of the task; a note if they are not installed as in the run."""
    data, teacher, student = protocol.split_task_name(case.spec.task)
    for word, _ in case.spec.plugins:
        if word not in (f"dataset:{data}", f"architecture:{teacher}", f"architecture:{student}"):
            yield case.problem(f"spec.plugins names {word}, which is not a part of {case.spec.task}")
    for line in missing_plugins(case.record):
        yield case.note(f"nothing was evaluated again: {line}")


def check_teacher(case: Case, local: LocalPlugins) -> Iterator[Finding]:
    """The teacher must be registered with the recorded accuracy, and its file must have its digest."""
    spec, recorded = case.spec, case.record["manifest"]["teacher"]
    teacher_entry = local.teacher(spec.teacher)
    if teacher_entry is None:
        yield case.note(
            f"its teacher {recorded['name']} (SHA-256 {spec.teacher[:12]}) is not registered here: "
            "what depends on it was not evaluated again"
        )
        return
    try:
        digest = local.file_digest(teacher_entry)
        if digest != teacher_entry.sha256:
            yield case.problem(
                f"teacher {teacher_entry.name}: its file has SHA-256 {digest[:12]}, not {teacher_entry.sha256[:12]}"
            )
    except BenchError as error:
        yield case.problem(str(error))
    task = protocol.task(spec.task)
    if (teacher_entry.dataset, teacher_entry.arch) != (task.dataset.name, task.teacher):
        yield case.problem(
            f"its teacher is {teacher_entry.name}, a {teacher_entry.arch} for {teacher_entry.dataset}, "
            f"not one of task {spec.task}"
        )
    if recorded["name"] != teacher_entry.name:
        yield case.note(f"its teacher is called {recorded['name']} there, {teacher_entry.name} here")
    if recorded["top1"] != teacher_entry.top1:
        yield case.problem(mismatch("manifest.teacher.top1", recorded["top1"], "the registry says", teacher_entry.top1))
    if case.ended and not abs(case.result["fidelity"]["teacher_top1"] - teacher_entry.top1) <= TEACHER_TOLERANCE:
        measured = case.result["fidelity"]["teacher_top1"]
        yield case.problem(
            mismatch("fidelity.teacher_top1", measured, "the teacher is registered with", teacher_entry.top1)
        )


def check_data(case: Case) -> Iterator[Finding]:
    """The dataset must have the protocol's digest (another protocol version may differ), and the recorded facts."""
    facts = protocol.task(case.spec.task).dataset
    if (recorded := kept_facts(case.record)) is not None:
        for name, stored, known in differences(recorded, shown(facts), 0.0):
            yield case.problem(mismatch(f"manifest.plugins.facts.{name}", stored, f"dataset {facts.name} has", known))
    if facts.sha256 and case.spec.data != facts.sha256:
        what = f"spec.data is {case.spec.data[:12]}, the protocol's {facts.name} has SHA-256 {facts.sha256[:12]}"
        yield case.problem(what) if case.of_today else case.note(f"{what}: nothing was evaluated again on it")
    if not is_present(facts):
        yield case.note(f"dataset {facts.name} is not here: nothing was evaluated again on it")


def check_code(case: Case, local: LocalPlugins) -> Iterator[Finding]:
    """If the method is installed with the run's code, its presets must give the run's settings."""
    spec, installed = case.spec, local.method(case.spec.method)
    if installed is None:
        yield case.note(f"method {spec.method} is not installed here: its settings were not compared with its presets")
        return
    entry, digest = installed
    plugin = case.record["manifest"]["plugin"]
    if plugin["owner"] == entry.owner and plugin["target"] != entry.target:
        yield case.problem(
            mismatch("manifest.plugin.target", plugin["target"], f"method {spec.method} is", entry.target)
        )
    if digest != spec.code:
        if owner := local.method_with_code(spec.code):
            yield case.problem(f"says method {spec.method}, its code is that of {owner}")
        yield case.note(f"the code of {spec.method} is different here: its settings were not compared with its presets")
        return
    card, task = registry.card(entry), protocol.task(spec.task)
    settings = dict(spec.settings)
    if spec.track == "pinned":
        for name, fact in card.pinned.items():
            if settings.get(name) != (pinned := getattr(task.pinned, fact)):
                yield case.problem(mismatch(f"settings.{name}", settings.get(name), "track pinned fixes", pinned))
    if spec.preset not in card.presets:
        yield case.problem(f"method {spec.method} has no preset {spec.preset!r}")
        return
    today = resolve_settings(card, spec.method, spec.preset, task, spec.track, spec.budget, dict(spec.overrides))
    for name, stored, expected in differences(settings, dict(today), 0.0):
        # a note: presets are not part of the code digest and may have changed
        yield case.note(mismatch(f"settings.{name}", stored, f"preset {spec.preset} gives today", expected))


def check_schedule(case: Case, local: LocalPlugins) -> Iterator[Finding]:
    """Recipe and length of the run must be those of protocol, track and budget."""
    spec, recorded = case.spec, case.record["manifest"]["settings"]
    task = protocol.task(spec.task)
    plan = recorded["schedule"]
    flags = Flags(
        student_steps=plan["student_steps"],
        rounds_per_epoch=plan["rounds_per_epoch"],
        warmup_rounds=plan["warmup_rounds"],
    )
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in recorded["recipe"].items()}
    published = StudentRecipe(**fields)
    method = local.method(spec.method)
    known = method is not None and method[1] == spec.code
    if method and known:
        kind = registry.load(method[0])
        made = kind(kind.Config(**dict(spec.settings)))
        flags, published = made.flags, made.recipe
    if known and (seconds := protocol.seconds_of(spec.budget)) is not None:
        pace = Length.from_json(case.record["measurement"]["pace"]).pace
        if (rounds := pace.rounds_in(seconds, flags)) != plan["rounds"]:
            name = "manifest.settings.schedule.rounds"
            yield case.problem(mismatch(name, plan["rounds"], f"measurement.pace gives for {seconds:g} s", rounds))
    recipe, length = plan_run(spec, task, flags, published, plan["rounds"])
    for part, expected in (("recipe", dataclasses.asdict(recipe)), ("schedule", dataclasses.asdict(length))):
        for name, stored, computed in differences(recorded[part], expected, 0.0):
            where = f"manifest.settings.{part}.{name}"
            yield case.problem(mismatch(where, stored, f"track {spec.track} and budget {spec.budget} give", computed))


def check_length(case: Case) -> Iterator[Finding]:
    """Rounds of a budget of seconds must be those measured; counts must be integers that follow from the schedule."""
    counts, plan = case.result["counts"], case.record["manifest"]["settings"]["schedule"]
    if protocol.seconds_of(case.spec.budget) is not None:
        measured = Length.from_json(case.record["measurement"]["pace"])
        if plan["rounds"] != measured.rounds:
            name = "manifest.settings.schedule.rounds"
            yield case.problem(mismatch(name, plan["rounds"], "measurement.pace says", measured.rounds))
    for name in dict.fromkeys([*COUNTS, *counts]):
        value = counts.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            yield case.problem(f"counts.{name} is {value!r}, not a count")
            return
    if case.result["status"] == "complete":
        steps = plan["rounds"] * plan["student_steps"]
        for name, expected in (("student_steps", steps), ("student_images", steps * plan["batch_size"])):
            if counts[name] != expected:
                yield case.problem(mismatch(f"counts.{name}", counts[name], "the schedule gives", expected))
    for less, more in (("student_images", "student_forwards"), ("teacher_backwards", "teacher_forwards")):
        if counts[less] > counts[more]:
            yield case.problem(f"counts.{less} is {counts[less]}, more than counts.{more} ({counts[more]})")


def check_across(cases: list[Case]) -> Iterator[Finding]:
    """No run may occur twice, no student in two runs, and runs of a row with other seeds must have equal counts."""
    by_hash: dict[str, Case] = {}
    by_student: dict[str, Case] = {}
    by_row: dict[str, Case] = {}
    for case in cases:
        first = by_hash.setdefault(case.record["hash"], case)
        if first is not case:
            yield case.problem(f"is run {case.record['hash']} a second time; the first is {first.name()}")
            continue
        if not case.ended:
            continue
        first = by_student.setdefault(case.result["digests"]["student"], case)
        if first is not case:
            text = f"has the same student as {first.name()}"
            yield case.problem(text) if first.spec.seed != case.spec.seed else case.note(text)
        if protocol.seconds_of(case.spec.budget) is not None:
            continue  # the number of rounds depends on the measured speed of each run
        first = by_row.setdefault(row_of(case.spec), case)
        if case.result["status"] == first.result["status"] == "complete":
            for name, count, other in differences(case.result["counts"], first.result["counts"], 0.0):
                yield case.note(mismatch(f"counts.{name}", count, f"seed {first.spec.seed} of the same row has", other))


def row_of(spec: RunSpec) -> str:
    """A specification without its seed, as text."""
    return json.dumps({**spec.to_json(), "seed": None}, sort_keys=True)
