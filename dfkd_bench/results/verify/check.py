"""All checks of a results folder, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from dfkd_bench import protocol
from dfkd_bench.errors import BenchError, UsageError
from dfkd_bench.report.bundle import expected_renderings
from dfkd_bench.report.docs import documents
from dfkd_bench.results.verify import case as cases
from dfkd_bench.results.verify import identity, numbers, renderings, robustness, sums
from dfkd_bench.results.verify.case import Case
from dfkd_bench.results.verify.findings import Finding, Report, note, problem
from dfkd_bench.results.verify.identity import LocalPlugins
from dfkd_bench.results.verify.renderings import Provider
from dfkd_bench.results.verify.students import StudentVerifier, check_generator
from dfkd_bench.runs import records
from dfkd_bench.studies.robustness import FILE as ROBUSTNESS
from dfkd_bench.utils.text import counted

Check = Callable[[], Iterator[Finding]]


def verify(
    results: Path,
    *,
    device: str = "auto",
    quick: bool = False,
    docs: Sequence[Path] = (),
    render: Provider = expected_renderings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check every record, student and rendering below a results folder (or of one run's folder).

    `device`: auto (that of each record, if available), cpu or cuda. `quick`: evaluate no student. `docs`: documents, or
    folders of documents, whose tables are compared. `render` makes the expected renderings. `progress` is called after
    each record. Raises `UsageError` for a missing or empty folder.
    """
    if not results.is_dir():
        raise UsageError(f"no results folder at {results}")
    paths = list(records.find(results))
    findings: list[Finding] = list(cases.without_record(results))
    if not paths and not findings:
        raise UsageError(f"no records below {results}: name a results folder, a run's folder or an exported archive")
    local = LocalPlugins()
    verifier = None if quick else StudentVerifier(local, device)
    corrupted = (results / ROBUSTNESS).is_file()
    cases_read: list[Case] = []
    threads = torch.get_num_threads()
    try:
        for number, path in enumerate(paths, 1):
            case, wrong = cases.read_case(path.parent, results)
            findings += wrong
            if case is not None:
                wrong = list(check_run(case, local, verifier))
                findings += wrong
                cases_read.append(case)
            progress(number, len(paths))
        if corrupted:
            findings += guarded(ROBUSTNESS, lambda: robustness.check(results, cases_read, verifier))
    finally:
        torch.set_num_threads(threads)
    findings += guarded(results.name, lambda: identity.check_across(cases_read))
    findings += note_other_protocols(cases_read, results.resolve().name)
    compared, wrong = renderings.check(results, render)
    findings += wrong
    compared += [ROBUSTNESS] * corrupted
    if (results / sums.FILE).is_file():
        findings += sums.check(results)
    pages = documents(docs)
    findings += renderings.check_documents(pages, results)
    compared += map(str, pages)
    students, exact = (verifier.students, verifier.exact) if verifier else (0, 0)
    return Report(tuple(dict.fromkeys(findings)), len(paths), students, exact, tuple(compared))


def integrity(folder: Path, root: Path) -> tuple[Case | None, list[Finding]]:
    """Check one run's record and digests; loads no network and no data."""
    case, findings = cases.read_case(folder, root)
    if case is not None:
        for check in (cases.check_files, identity.check_names):
            findings += guarded(case.name(), lambda check=check: check(case))  # type: ignore[misc]
    return case, findings


def check_run(case: Case, local: LocalPlugins, verifier: StudentVerifier | None) -> Iterator[Finding]:
    """All checks of one run's folder. A malformed record gives a problem, not an exception."""
    name = case.name()
    yield from guarded(name, lambda: cases.check_files(case))
    yield from guarded(name, lambda: identity.check_names(case))
    try:
        wrong = guarded(name, lambda: identity.check_plugins(case)) if case.spec.plugins else []
        yield from wrong
        known = not wrong  # True if the task is available on this machine, with the run's plug-ins
        if known:
            protocol.task(case.spec.task)
    except BenchError as error:
        known = False
        elsewhere = case.record["spec"].get("task", "").startswith("folder:")  # a user's images on another machine
        if case.of_today:
            yield case.note(f"was not checked further: {error}") if elsewhere else case.problem(str(error))
            return
        yield case.note(f"nothing was evaluated again: {error}")
    checks: list[Check] = [lambda: identity.check_manifest(case)]
    if known:
        checks += [lambda: identity.check_teacher(case, local), lambda: identity.check_data(case)]
    if case.of_today and known:
        checks.append(lambda: identity.check_code(case, local))
    if case.ended:
        checks += [
            lambda: identity.check_length(case),
            lambda: numbers.check_curves(case),
            lambda: numbers.check_predictions(case),
            lambda: numbers.check_alarms(case),
            lambda: check_generator(case),
        ]
        if case.of_today and known:
            checks.append(lambda: identity.check_schedule(case, local))
        if verifier is not None and known:
            checks.append(lambda: verifier.check(case))
    for check in checks:
        yield from guarded(name, check)


def note_other_protocols(cases_read: Sequence[Case], folder: str) -> Iterator[Finding]:
    """One note per other protocol version, with its number of records."""
    others = Counter(case.protocol for case in cases_read if not case.of_today)
    for word, number in sorted(others.items()):
        own = "its own files" if number == 1 else "their own files"
        yield note(folder, f"{counted(number, 'record')} of {protocol.titled(word)}: checked only against {own}")


def guarded(file: str, check: Check) -> list[Finding]:
    """The findings of a check; an error in a malformed record becomes a problem."""
    findings: list[Finding] = []
    try:
        for finding in check():
            findings.append(finding)
    except BenchError as error:
        findings.append(problem(file, str(error)))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        findings.append(problem(file, f"is malformed: {type(error).__name__} {error}"))
    return findings
