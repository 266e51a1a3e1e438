"""Every check of a results folder, in order; see the package's text for what they can find."""

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
from dfkd_bench.results.verify.students import StudentVerifier, generator
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

    `device`: auto (the kind that each record was made on, where it is here), cpu or cuda. `quick` evaluates no student.
    `docs`: documents, or folders of them, whose tables are compared too. `render` gives the renderings as they should
    be. `progress` is called after each record. Raises `UsageError` where there is no such folder or nothing in it.
    """
    if not results.is_dir():
        raise UsageError(f"no results folder at {results}")
    paths = list(records.find(results))
    found: list[Finding] = list(cases.without_record(results))
    if not paths and not found:
        raise UsageError(f"no records below {results}: name a results folder, a run's folder or an exported archive")
    here = LocalPlugins()
    judge = None if quick else StudentVerifier(here, device)
    corrupted = (results / ROBUSTNESS).is_file()
    whole: list[Case] = []
    threads = torch.get_num_threads()
    try:
        for number, path in enumerate(paths, 1):
            case, wrong = cases.read_case(path.parent, results)
            found += wrong
            if case is not None:
                wrong = list(of_run(case, here, judge))
                found += wrong
                whole.append(case)
            progress(number, len(paths))
        if corrupted:
            found += guarded(ROBUSTNESS, lambda: robustness.check(results, whole, judge))
    finally:
        torch.set_num_threads(threads)
    found += guarded(results.name, lambda: identity.check_across(whole))
    found += of_other_protocols(whole, results.resolve().name)
    compared, wrong = renderings.check(results, render)
    found += wrong
    compared += [ROBUSTNESS] * corrupted
    if (results / sums.FILE).is_file():
        found += sums.check(results)
    pages = documents(docs)
    found += renderings.check_documents(pages, results)
    compared += map(str, pages)
    students, exact = (judge.students, judge.exact) if judge else (0, 0)
    return Report(tuple(dict.fromkeys(found)), len(paths), students, exact, tuple(compared))


def integrity(folder: Path, root: Path) -> tuple[Case | None, list[Finding]]:
    """One run's record and files, as far as digests tell; loads no network and no data."""
    case, found = cases.read_case(folder, root)
    if case is not None:
        for check in (cases.files, identity.check_names):
            found += guarded(case.name(), lambda check=check: check(case))  # type: ignore[misc]
    return case, found


def of_run(case: Case, here: LocalPlugins, judge: StudentVerifier | None) -> Iterator[Finding]:
    """Everything that one run's folder shows. A record that is not as a run leaves it gives a problem, no exception."""
    name = case.name()
    yield from guarded(name, lambda: cases.files(case))
    yield from guarded(name, lambda: identity.check_names(case))
    try:
        other = guarded(name, lambda: identity.check_plugins(case)) if case.spec.plugins else []
        yield from other
        known = not other  # whether the task is here as the run had it
        if known:
            protocol.task(case.spec.task)
    except BenchError as error:
        known = False
        gone = case.record["spec"].get("task", "").startswith("folder:")  # a dataset of one's own, on another machine
        if case.of_today:
            yield case.note(f"was not looked at further: {error}") if gone else case.problem(str(error))
            return
        yield case.note(f"nothing was evaluated again: {error}")
    checks: list[Check] = [lambda: identity.check_manifest(case)]
    if known:
        checks += [lambda: identity.check_teacher(case, here), lambda: identity.check_data(case)]
    if case.of_today and known:
        checks.append(lambda: identity.check_code(case, here))
    if case.ended:
        checks += [
            lambda: identity.check_length(case),
            lambda: numbers.curves(case),
            lambda: numbers.predictions(case),
            lambda: numbers.check_alarms(case),
            lambda: generator(case),
        ]
        if case.of_today and known:
            checks.append(lambda: identity.check_schedule(case, here))
        if judge is not None and known:
            checks.append(lambda: judge.check(case))
    for check in checks:
        yield from guarded(name, check)


def of_other_protocols(whole: Sequence[Case], folder: str) -> Iterator[Finding]:
    """How many records are of other protocols: a line for each protocol."""
    others = Counter(case.protocol for case in whole if not case.of_today)
    for word, number in sorted(others.items()):
        itself = "itself" if number == 1 else "themselves"
        yield note(folder, f"{counted(number, 'record')} of {protocol.titled(word)}: held to {itself}")


def guarded(file: str, check: Check) -> list[Finding]:
    """What a check finds; where a record lacks what the check reads, that is what it finds."""
    found: list[Finding] = []
    try:
        for finding in check():
            found.append(finding)
    except BenchError as error:
        found.append(problem(file, str(error)))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        found.append(problem(file, f"is not as a run leaves it: {type(error).__name__} {error}"))
    return found
