"""The tables of `dfkd-bench list`: methods, tasks, datasets, figures, loggers, engines and others.

They are made from data and source text; neither torch nor a method is imported, so a broken plug-in stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dfkd_bench import models as architectures
from dfkd_bench._version import __version__
from dfkd_bench.data import catalog
from dfkd_bench.data.base import Dataset
from dfkd_bench.data.home import data_home, is_present
from dfkd_bench.engines import OPTIONS, engines
from dfkd_bench.errors import RunError
from dfkd_bench.metrics import registry as metric_registry
from dfkd_bench.metrics.external import refused
from dfkd_bench.models import Architecture
from dfkd_bench.plugins import objects as plugin_objects
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.cards import Card
from dfkd_bench.plugins.entry import METRIC, Entry
from dfkd_bench.protocol import BOUNDS, BUDGETS, DEFAULT_TASK, TASKS, parts, pinned_for
from dfkd_bench.report.figures.base import kinds
from dfkd_bench.report.privileges import as_text, marks
from dfkd_bench.report.terminal.runs import short
from dfkd_bench.runs.loggers import loggers
from dfkd_bench.runs.suites import suites
from dfkd_bench.teachers import table as teacher_table
from dfkd_bench.teachers.registry import teachers
from dfkd_bench.utils.text import assignments, one_line

NO = "-"
T = TypeVar("T")


@dataclass(frozen=True)
class InstalledPlugin:
    """An installed method or add-on with its card, or without a card and the problem, if there is one."""

    entry: Entry
    card: Card | None
    problem: str = ""


MAX_NAME_WIDTH = 26  # terminal columns up to which a name in the first column is not wrapped


def known_methods(kind: registry.Kind = registry.METHOD) -> list[InstalledPlugin]:
    """Every declared plug-in of a kind, including clashing and broken ones, with its card if that is a literal."""
    result = []
    for entry in registry.entries(kind).values():
        card, problem = None, entry.clash
        if not problem:
            try:
                card = registry.static_card(entry)
            except RunError as error:
                problem = f"broken: {error}"
        result.append(InstalledPlugin(entry, card, problem))
    return result


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Table:
    """A table whose cells are rich markup; columns that begin with `>` are aligned right."""
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", show_edge=False, caption=note
    )
    table.caption_justify, table.pad_edge = "left", False
    longest = max((Text.from_markup(row[0]).cell_len for row in rows), default=0)
    for number, column in enumerate(columns):
        kept = min(longest, MAX_NAME_WIDTH) if number == 0 else None  # a wrapped name is hard to read and to copy
        table.add_column(
            column.removeprefix(">"), justify="right" if column[0] == ">" else "left", overflow="fold", min_width=kept
        )
    for row in rows:
        table.add_row(*row)
    return table


def summary(card: Card) -> str:
    """The first sentence of a method's docstring."""
    first = " ".join(card.doc.split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".")


def methods() -> Table:
    """Every method: name, owner, privileges and summary."""
    note = "uses: what a method uses besides the teacher's logits; `dfkd-bench show NAME` explains it"
    return plugins("methods", registry.METHOD, note)


def addons() -> Table:
    """Every add-on: name, owner, privileges and summary."""
    note = "`dfkd-bench run --method M --with NAME` applies one to any method M that works on synthetic images"
    return plugins("addons", registry.ADDON, note)


def plugins(title: str, kind: registry.Kind, note: str) -> Table:
    """One row per declared plug-in of a kind."""
    rows = []
    for known in known_methods(kind):
        entry, card = known.entry, known.card
        name = escape(entry.name) + (" [dim](bound)[/]" if entry.name in BOUNDS else "")
        owner = escape(f"{entry.owner} {entry.version}")
        if known.problem:
            rows.append([name, owner, NO, f"[red]{escape(known.problem)}[/]"])
        elif card is None:
            rows.append([name, owner, NO, "[dim]described in code only: see `dfkd-bench show`[/]"])
        else:
            rows.append([name, owner, marks(as_text(card.privileges)), escape(summary(card))])
    return table_of(title, ("name", "from", "uses", "what it is"), rows, note)


def figures() -> Table:
    """Every kind of figure with its owner."""
    return object_plugins(
        "figures", kinds(), "`dfkd-bench figures NAME` draws those of a kind, `dfkd-bench figures` all"
    )


def logger_list() -> Table:
    """Every logger with its owner."""
    note = "`dfkd-bench run --log NAME` sends each event of a run to a logger, in this process or in a worker"
    return object_plugins("loggers", loggers(), note)


def engine_list() -> Table:
    """Every engine with the extra that it needs and the options that it accepts."""
    rows = []
    for kind in engines().values():
        takes = ", ".join(OPTIONS[option] for option in kind.takes)
        rows.append([kind.name, kind.extra or NO, takes or NO, kind.about])
    note = "`dfkd-bench run --engine NAME` executes runs there; an extra is installed as 'dfkd-bench[EXTRA]'"
    return table_of("engines", ("name", "extra", "takes", "what it is"), rows, note)


def object_plugins(title: str, entries: Mapping[str, Entry], note: str) -> Table:
    """One row per object plug-in, read from its source text: name, owner, description."""
    rows = []
    for entry in entries.values():
        about, problem = registry.describe(entry)
        last = f"[red]{escape(problem)}[/]" if problem else escape(about)
        rows.append([escape(one_line(entry.name)), escape(f"{entry.owner} {entry.version}"), last])
    return table_of(title, ("name", "from", "what it is"), rows, note)


def tasks() -> Table:
    """The benchmark's tasks, each with its registered teachers below, and budgets."""
    rows, known, budgets = [], teachers().values(), [b for b in BUDGETS if b != "smoke"]  # smoke is only for tests
    for name in TASKS:
        data, teacher, _student = parts(name)
        task_teachers = [t.name for t in known if (t.dataset, t.arch) == (data, teacher)]
        images = [short(pinned_for(name).student_images[budget]) for budget in budgets]
        mark = " [dim](default)[/]" if name == DEFAULT_TASK else ""
        teacher_lines = (f"[dim]  {escape(line)}[/]" for line in task_teachers)
        rows.append(["\n".join([escape(name) + mark, *teacher_lines]), *images])
    note = (
        "any dataset/teacher-student of the lists below is a task too; budgets: student images on the pinned track; "
        "the first teacher below a task is the default; if there is none, `dfkd-bench teacher` trains or imports one"
    )
    table = table_of("tasks", ("name, and its teachers", *(f">{budget}" for budget in budgets)), rows, note)
    table.columns[0].no_wrap = True  # so that names can be copied from a narrow terminal
    return table


def suite_list() -> Table:
    """Every suite with its number of runs and its tasks."""
    everything = sum(not known.entry.rivals for known in known_methods())
    rows = []
    for suite in suites().values():
        fields = suite.fields
        methods = everything if "all" in fields["methods"] else len(fields["methods"])
        runs = methods * len(fields["tasks"]) * len(fields["seeds"])
        pairs: dict[str, list[str]] = {}
        for task in fields["tasks"]:
            data, teacher, student = parts(task)
            pairs.setdefault(data, []).append(f"{teacher}-{student}")
        lines = [escape(suite.about), *(f"[dim]{escape(f'{data}: ' + ', '.join(p))}[/]" for data, p in pairs.items())]
        rows.append([escape(suite.name), str(runs), f"{fields['track']}/{fields['budget']}", "\n".join(lines)])
    note = "`dfkd-bench run --suite NAME` runs one; options override its values, and --dry-run shows the plan"
    return table_of("suites", ("name", ">runs", "terms", "what it is, and its tasks"), rows, note)


def datasets() -> Table:
    """Every dataset with its sizes, and whether it is on this machine."""

    def cells(one: Dataset) -> list[str]:
        source = f" [dim]({escape(one.source)})[/]" if one.source else ""
        sizes = [str(one.classes), "x".join(map(str, one.image_shape)), str(one.train_size), str(one.test_size)]
        return [*sizes, "[green]yes[/]" if is_present(one) else NO, escape(one.about) + source]

    note = (
        f"here: in the package or in {escape(str(data_home()))}; `dfkd-bench data fetch NAME` downloads a dataset;\n"
        "folder:PATH is a dataset of your own: PATH/train/CLASS/*, PATH/test/CLASS/*, or PATH/CLASS/* for testing"
    )
    return objects("datasets", catalog.TABLE, (">classes", ">shape", ">train", ">test", "here"), cells, note)


def models() -> Table:
    """Every architecture with its sizes."""

    def cells(one: Architecture) -> list[str]:
        mmacs = f"{one.mmacs:.3g}" if one.mmacs < 1000 else f"{one.mmacs:.0f}"
        sizes = [short(one.parameters) if one.parameters else NO, mmacs if one.mmacs else NO]
        return [*sizes, "x".join(map(str, one.shape)), escape(one.about)]

    note = "sizes are for ten classes and images of this shape; MMAC: million multiply-adds of one forward of one image"
    return objects("models", architectures.TABLE, (">parameters", ">MMAC", ">shape"), cells, note)


def objects(
    title: str, table: plugin_objects.Table[T], facts: Sequence[str], cells: Callable[[T], list[str]], note: str
) -> Table:
    """One row per object of a kind. `cells` returns the values of the columns `facts`, then the description.

    If other packages provide some objects, there is a column with the owner of each.
    """
    listed = list(table.rows())
    with_owner = len({row.owner for row in listed}) > 1
    rows = []
    for row in listed:
        problem = [*[NO] * len(facts), f"[red]{escape(row.trouble)}[/]"]
        *values, description = cells(row.found) if row.found else problem
        rows.append([escape(row.name), *values, *([escape(row.owner)] if with_owner else []), description])
    return table_of(title, ("name", *facts, *(["from"] if with_owner else []), "what it is"), rows, note)


def presets() -> Table:
    """Every method's presets and their settings."""
    rows: list[list[str]] = []
    for known in known_methods():
        name, card = escape(known.entry.name), known.card
        if card is None:
            rows.append([name, NO, NO, f"[red]{escape(known.problem.split(':')[0])}[/]" if known.problem else NO])
            continue
        for preset, values in card.presets.items():
            mark = " [dim](default)[/]" if preset == card.default_preset else ""
            used = marks(as_text(card.privileges_of(preset)))
            rows.append([name, escape(preset) + mark, used, escape(assignments(values)) or "[dim]the defaults[/]"])
            name = ""
    return table_of("presets", ("method", "preset", "uses", "sets"), rows)


def teacher_list() -> Table:
    """Every registered teacher; see `teachers.table`."""
    return table_of("teachers", teacher_table.COLUMNS, [[escape(cell) for cell in row] for row in teacher_table.rows()])


def metrics() -> Table:
    """Every column of a metric, in the order of runs.csv, with owner, unit and meaning."""
    owner = f"dfkd-bench {__version__}"
    rows = [[escape(c.name), owner, c.unit or NO, escape(c.meaning)] for _, c in metric_registry.columns()]
    for entry in registry.entries(METRIC).values():
        owner_text = escape(f"{entry.owner} {entry.version}")
        try:
            metric_columns = () if (problem := refused(entry)) else registry.static_columns(entry)
        except RunError as error:
            metric_columns, problem = (), f"broken: {error}"
        if problem:
            rows.append([escape(entry.name), owner_text, NO, f"[red]{escape(problem)}[/]"])
        for name, meaning, unit in metric_columns:
            rows.append([escape(f"{entry.name}.{name}"), owner_text, escape(unit) or NO, escape(meaning)])
    note = "columns of runs.csv; in leaderboard.csv each has mean, sd and ci95, the half-width of the 95 % interval"
    return table_of("metrics", ("column", "from", "unit", "what it is"), rows, note)


SECTIONS: dict[str, Callable[[], Table]] = {
    "methods": methods,
    "addons": addons,
    "tasks": tasks,
    "suites": suite_list,
    "datasets": datasets,
    "models": models,
    "presets": presets,
    "teachers": teacher_list,
    "metrics": metrics,
    "figures": figures,
    "loggers": logger_list,
    "engines": engine_list,
}
