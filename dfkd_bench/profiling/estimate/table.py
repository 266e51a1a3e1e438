"""What a plan will cost, as tables: a row per method and task, and a row per number of workers. Three forms of each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dfkd_bench.engines import engines
from dfkd_bench.profiling.estimate import MEASURED, RECORDS, Line
from dfkd_bench.profiling.estimate.makespan import Site, Wall
from dfkd_bench.profiling.estimate.plan_cost import Estimate, Estimator
from dfkd_bench.report import markdown
from dfkd_bench.report.terminal.runs import short
from dfkd_bench.utils.text import counted, method_label

LEFT = ("task", "method", "from")


@dataclass(frozen=True)
class Sheet:
    """One table, each cell as text for the eye and as a value for a program."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]  # names for a program
    values: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def cost_sheet(found: Estimate, planned: int, how: Estimator) -> Sheet:
    """Runs to do, seconds of one, where that is from, hours of all, teacher passes of one; a last row for the whole.

    `planned`: runs of the plan, done ones included; `how` the estimate was made.
    """
    lines, spec = found.lines, found.lines[0].spec
    several = len({line.spec.task for line in lines}) > 1
    rows, values = [], []
    for line in lines:
        cost, name = line.cost, method_label(line.spec.to_json())
        source = counted(cost.found, "record") if cost.source == RECORDS else cost.source
        task = (line.spec.task,) if several else ()
        rows.append((
            *task, name, str(line.runs), seconds(cost.seconds), rate(cost.images_per_second), source,
            hours(line.hours), short(cost.passes),
        ))  # fmt: skip
        values.append((
            line.spec.task, name, str(line.runs), f"{cost.seconds:.3f}", f"{cost.images_per_second:.3f}", cost.source,
            str(cost.found), f"{line.hours:.6f}", f"{cost.passes:.0f}",
        ))  # fmt: skip
    runs, passes = sum(line.runs for line in lines), sum(line.runs * line.cost.passes for line in lines)
    whole = hours(sum(line.hours for line in lines))
    rows.append((*("all",) * several, "" if several else "all", str(runs), "", "", "", whole, short(passes)))
    title = ", ".join([
        f"{runs} of {planned} runs to do", f"{spec.track}/{spec.budget}", how.device, spec.precision,
        *["compiled"] * spec.compile, counted(spec.threads, "thread"),
    ])  # fmt: skip
    return Sheet(
        title,
        (*("task",) * several, "method", "runs", "s a run", "images/s", "from", "hours", "passes"),
        tuple(rows),
        ("task", "method", "runs", "seconds", "images_per_second", "source", "records", "hours", "passes"),
        tuple(values),
        tuple(origins(lines, how)),
    )


def origins(lines: Sequence[Line], how: Estimator) -> Iterator[str]:
    """What is to be known of the sources of seconds that appear, and of the columns."""
    used = {line.cost.source for line in lines}
    if RECORDS in used:
        yield f"records: median of complete runs in {how.results}: same method, settings, terms, device and threads"
    if MEASURED in used:
        yield (
            f"measured: about {how.seconds_each:g} s of each run's first rounds, a snapshot and one batch of its "
            "evaluation, timed here and now, times their number; rounds that grow longer later are not seen"
        )
    yield "s a run, images/s (of the student): training, snapshots, evaluation; hours: one run after the other"
    yield "passes: images forward and backward through the teacher, of a run and of all"


def workers_sheet(walls: Sequence[tuple[int, dict[str, Wall]]], site: Site, price: float | None) -> Sheet:
    """Wall hours by engine for each number of workers, and with a `price` per worker hour what they cost."""
    headers = ["workers", *(f"{engine}, h" for engine in engines())]
    columns = ["workers", *(f"{engine}_hours" for engine in engines())]
    if price is not None:
        headers += [f"{engine}, cost" for engine in engines()]
        columns += [f"{engine}_cost" for engine in engines()]
    rows, values = [], []
    for number, by in walls:
        taken = [by[engine].seconds / 3600.0 for engine in engines()]
        paid = [] if price is None else [price * by[engine].paid / 3600.0 for engine in engines()]
        rows.append((str(number), *map(hours, taken), *map(money, paid)))
        values.append((str(number), *(f"{h:.6f}" for h in taken), *(f"{p:.4f}" for p in paid)))
    notes = tuple(conditions(site, price))
    return Sheet("", tuple(headers), tuple(rows), tuple(columns), tuple(values), notes)


def conditions(site: Site, price: float | None) -> Iterator[str]:
    """Under which the hours hold."""
    kinds = engines().values()
    here, away, queued = (
        ", ".join(kind.name for kind in kinds if kind.workers in words)
        for words in (("here",), ("cluster", "queue"), ("queue",))
    )
    added = ", ".join(f"{kind.overhead:g} s ({kind.name})" for kind in kinds if kind.overhead)
    yield (
        f"h: from the command to its end, each run by the worker that is free first, in the plan's order; start of a "
        f"process {site.start.worker:.1f} s (measured), engine {added} a run; {queued}: a process for each run, "
        f"{site.queue:g} s in the queue (--queue-seconds)"
    )
    if site.held is not None:
        yield (
            f"{here}: this machine, whose cores hold {counted(site.held, 'worker')}, more gain nothing; "
            f"{away}: each worker on cores of its own, as fast as these"
        )
    if price is not None:
        yield f"cost: at {price:g} per worker hour; workers are held to the end, {queued}'s only while their jobs run"


def rendering(sheet: Sheet) -> RenderableType:
    """For the terminal: a task has a row of its own above its methods."""
    by_task = sheet.headers[0] == "task"
    title = escape(sheet.title) or None
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for header in sheet.headers[by_task:]:
        left = header in LEFT
        table.add_column(header, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    task = ""
    for row in sheet.rows:
        if by_task and row[0] != task:
            task = row[0]
            table.add_section()
            table.add_row(f"[bold]{escape(task)}[/]", *("" if row[1] else escape(cell) for cell in row[2:]))
        if row[1]:
            table.add_row(*map(escape, ("  " + row[1], *row[2:]) if by_task else row))
    return Group(table, *(Text(note, style="italic") for note in sheet.notes), "")


def markdown_text(sheet: Sheet) -> str:
    """For a document."""
    head = [f"{markdown.plain(sheet.title)}", ""] if sheet.title else []
    notes = ["", *(f"- {markdown.plain(note)}" for note in sheet.notes)] if sheet.notes else []
    return "\n".join([*head, *markdown.table(sheet.headers, sheet.rows, LEFT), *notes])


def csv_text(sheet: Sheet) -> str:
    """For a program: whole numbers, no totals, no notes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([sheet.columns, *sheet.values])
    return text.getvalue()


def seconds(value: float) -> str:
    """`4.31`, `83.4`, `1,234`."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def rate(value: float) -> str:
    """`43.1`, `1,234`, `150 k`."""
    return seconds(value) if value < 1e5 else short(value)


def hours(value: float) -> str:
    """`0.004`, `0.043`, `0.26`, `12.3`, `1,234`."""
    if value < 0.1:
        return f"{value:.{1 if value < 0.01 else 2}g}"
    return f"{value:.2f}" if value < 10 else f"{value:,.{int(value < 100)}f}"


def money(value: float) -> str:
    """`0.12`, `1,234`."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"
