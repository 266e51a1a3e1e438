"""What there is to choose from, as tables: methods, tasks, datasets, figures, loggers, engines, and the other sections.

Drawn from plain data and from source text; neither torch nor a method is imported, so a broken plugin harms nobody.
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
from dfkd_bench.metrics.external import refused
from dfkd_bench.metrics.registry import columns as of_metrics
from dfkd_bench.models import Architecture
from dfkd_bench.plugins import objects as plugin_objects
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.cards import Card
from dfkd_bench.plugins.entry import METRIC, Entry
from dfkd_bench.protocol import BOUNDS, BUDGETS, DEFAULT_TASK, TASKS, pinned_for, split_task_name
from dfkd_bench.report.figures.base import kinds
from dfkd_bench.report.privileges import as_text, marks
from dfkd_bench.report.terminal.runs import short
from dfkd_bench.runs.loggers import loggers
from dfkd_bench.runs.suites import suites
from dfkd_bench.teachers import table as taught
from dfkd_bench.teachers.registry import teachers
from dfkd_bench.utils.text import assignments, one_line

NO = "-"
T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """An installed method or add-on and what could be read of it: its card, or the reason why there is none."""

    entry: Entry
    card: Card | None
    trouble: str = ""


NAME = 26  # columns that a name in the first column keeps to itself


def known_methods(kind: registry.Kind = registry.METHOD) -> list[Known]:
    """Every declared plugin, clashing and broken ones too, with its card where it is written literally."""
    found = []
    for entry in registry.entries(kind).values():
        card, trouble = None, entry.clash
        if not trouble:
            try:
                card = registry.static_card(entry)
            except RunError as error:
                trouble = f"broken: {error}"
        found.append(Known(entry, card, trouble))
    return found


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Table:
    """A table whose cells are already markup; columns that begin with `>` are numbers."""
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", show_edge=False, caption=note
    )
    table.caption_justify, table.pad_edge = "left", False
    longest = max((Text.from_markup(row[0]).cell_len for row in rows), default=0)
    for number, column in enumerate(columns):
        kept = min(longest, NAME) if number == 0 else None  # a name cut in two is hard to read and to copy
        table.add_column(
            column.removeprefix(">"), justify="right" if column[0] == ">" else "left", overflow="fold", min_width=kept
        )
    for row in rows:
        table.add_row(*row)
    return table


def summary(card: Card) -> str:
    """First sentence of a method's docstring."""
    first = " ".join(card.doc.split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".")


def methods() -> Table:
    """Name, owner, privileges and what it is in a line."""
    note = "uses: what a method uses beyond the teacher's logits; `dfkd-bench show NAME` spells it out"
    return plugins("methods", registry.METHOD, note)


def addons() -> Table:
    """The same of add-ons."""
    note = "`dfkd-bench run --method M --with NAME` puts one around any method M that works on synthetic images"
    return plugins("addons", registry.ADDON, note)


def plugins(title: str, kind: registry.Kind, note: str) -> Table:
    """A row for each declared plugin of a kind."""
    rows = []
    for known in known_methods(kind):
        entry, card = known.entry, known.card
        name = escape(entry.name) + (" [dim](bound)[/]" if entry.name in BOUNDS else "")
        owner = escape(f"{entry.owner} {entry.version}")
        if known.trouble:
            rows.append([name, owner, NO, f"[red]{escape(known.trouble)}[/]"])
        elif card is None:
            rows.append([name, owner, NO, "[dim]described in code only: see `dfkd-bench show`[/]"])
        else:
            rows.append([name, owner, marks(as_text(card.privileges)), escape(summary(card))])
    return table_of(title, ("name", "from", "uses", "what it is"), rows, note)


def figures() -> Table:
    """Every kind of figure with its owner."""
    return described("figures", kinds(), "`dfkd-bench figures NAME` draws those of a kind, `dfkd-bench figures` all")


def logger_list() -> Table:
    """Every logger with its owner."""
    note = "`dfkd-bench run --log NAME` tells a logger each step of a run, in this process or in a worker"
    return described("loggers", loggers(), note)


def engine_list() -> Table:
    """Every engine, with the extra that it needs and the options that it takes."""
    rows = []
    for kind in engines().values():
        takes = ", ".join(OPTIONS[option] for option in kind.takes)
        rows.append([kind.name, kind.extra or NO, takes or NO, kind.about])
    note = "`dfkd-bench run --engine NAME` executes runs there; an extra is installed as 'dfkd-bench[EXTRA]'"
    return table_of("engines", ("name", "extra", "takes", "what it is"), rows, note)


def described(title: str, known: Mapping[str, Entry], note: str) -> Table:
    """A row for each plug-in that is an object, read from its source text: name, owner, and what it is in a line."""
    rows = []
    for entry in known.values():
        about, trouble = registry.describe(entry)
        last = f"[red]{escape(trouble)}[/]" if trouble else escape(about)
        rows.append([escape(one_line(entry.name)), escape(f"{entry.owner} {entry.version}"), last])
    return table_of(title, ("name", "from", "what it is"), rows, note)


def tasks() -> Table:
    """The benchmark's tasks, each with its registered teachers beneath, and budgets."""
    rows, known, budgets = [], teachers().values(), [b for b in BUDGETS if b != "smoke"]  # smoke is for tests alone
    for name in TASKS:
        data, teacher, _student = split_task_name(name)
        fitting = [t.name for t in known if (t.dataset, t.arch) == (data, teacher)]
        images = [short(pinned_for(name).student_images[budget]) for budget in budgets]
        mark = " [dim](default)[/]" if name == DEFAULT_TASK else ""
        beneath = (f"[dim]  {escape(line)}[/]" for line in fitting)
        rows.append(["\n".join([escape(name) + mark, *beneath]), *images])
    note = (
        "any dataset/teacher-student of the lists below is a task too; budgets: student images on the pinned track; "
        "the first teacher beneath a task is taken unless one is named; where there is none, `dfkd-bench teacher` "
        "trains or imports one"
    )
    table = table_of("tasks", ("name, and its teachers", *(f">{budget}" for budget in budgets)), rows, note)
    table.columns[0].no_wrap = True  # a name to copy stays in one piece, however narrow the terminal
    return table


def suite_list() -> Table:
    """Every suite with what it comes to."""
    everything = sum(not known.entry.rivals for known in known_methods())
    rows = []
    for suite in suites().values():
        fields = suite.fields
        methods = everything if "all" in fields["methods"] else len(fields["methods"])
        runs = methods * len(fields["tasks"]) * len(fields["seeds"])
        pairs: dict[str, list[str]] = {}
        for task in fields["tasks"]:
            data, teacher, student = split_task_name(task)
            pairs.setdefault(data, []).append(f"{teacher}-{student}")
        lines = [escape(suite.about), *(f"[dim]{escape(f'{data}: ' + ', '.join(p))}[/]" for data, p in pairs.items())]
        rows.append([escape(suite.name), str(runs), f"{fields['track']}/{fields['budget']}", "\n".join(lines)])
    note = "`dfkd-bench run --suite NAME` runs one; options win over it, and --dry-run shows what it would do"
    return table_of("suites", ("name", ">runs", "terms", "what it is, and its tasks"), rows, note)


def datasets() -> Table:
    """Facts of every dataset, and whether it is on this machine."""

    def cells(one: Dataset) -> list[str]:
        source = f" [dim]({escape(one.source)})[/]" if one.source else ""
        sizes = [str(one.classes), "x".join(map(str, one.image_shape)), str(one.train_size), str(one.test_size)]
        return [*sizes, "[green]yes[/]" if is_present(one) else NO, escape(one.about) + source]

    note = (
        f"here: in the package or in {escape(str(data_home()))}; `dfkd-bench data fetch NAME` downloads one, and\n"
        "folder:PATH is a dataset of your own: PATH/train/CLASS/*, PATH/test/CLASS/*, or PATH/CLASS/* for testing"
    )
    return objects("datasets", catalog.TABLE, (">classes", ">shape", ">train", ">test", "here"), cells, note)


def models() -> Table:
    """Every architecture with its sizes."""

    def cells(one: Architecture) -> list[str]:
        mmacs = f"{one.mmacs:.3g}" if one.mmacs < 1000 else f"{one.mmacs:.0f}"
        sizes = [short(one.parameters) if one.parameters else NO, mmacs if one.mmacs else NO]
        return [*sizes, "x".join(map(str, one.shape)), escape(one.about)]

    note = "sizes are at ten classes and images of this shape; MMAC: million multiply-adds of one forward of one image"
    return objects("models", architectures.TABLE, (">parameters", ">MMAC", ">shape"), cells, note)


def objects(
    title: str, known: plugin_objects.Table[T], facts: Sequence[str], cells: Callable[[T], list[str]], note: str
) -> Table:
    """A row for each object of a kind. `cells`: the columns `facts`, and what it is in a line.

    Where other packages bring some, a column says whose each is.
    """
    listed = list(known.rows())
    several = len({row.owner for row in listed}) > 1
    rows = []
    for row in listed:
        trouble = [*[NO] * len(facts), f"[red]{escape(row.trouble)}[/]"]
        *middle, words = cells(row.found) if row.found else trouble
        rows.append([escape(row.name), *middle, *([escape(row.owner)] if several else []), words])
    return table_of(title, ("name", *facts, *(["from"] if several else []), "what it is"), rows, note)


def presets() -> Table:
    """Every method's presets and what they set."""
    rows: list[list[str]] = []
    for known in known_methods():
        name, card = escape(known.entry.name), known.card
        if card is None:
            rows.append([name, NO, NO, f"[red]{escape(known.trouble.split(':')[0])}[/]" if known.trouble else NO])
            continue
        for preset, values in card.presets.items():
            mark = " [dim](default)[/]" if preset == card.default_preset else ""
            used = marks(as_text(card.privileges_of(preset)))
            rows.append([name, escape(preset) + mark, used, escape(assignments(values)) or "[dim]the defaults[/]"])
            name = ""
    return table_of("presets", ("method", "preset", "uses", "sets"), rows)


def teacher_list() -> Table:
    """Every registered teacher, with what is unusual about it."""
    return table_of("teachers", taught.COLUMNS, [[escape(cell) for cell in row] for row in taught.rows()])


def metrics() -> Table:
    """Every number that a metric has in the tables, in the order of runs.csv, with owner, unit and meaning."""
    owner = f"dfkd-bench {__version__}"
    rows = [[escape(c.name), owner, c.unit or NO, escape(c.meaning)] for _, c in of_metrics()]
    for entry in registry.entries(METRIC).values():
        bringer = escape(f"{entry.owner} {entry.version}")
        try:
            found = () if (trouble := refused(entry)) else registry.static_columns(entry)
        except RunError as error:
            found, trouble = (), f"broken: {error}"
        if trouble:
            rows.append([escape(entry.name), bringer, NO, f"[red]{escape(trouble)}[/]"])
        for name, meaning, unit in found:
            rows.append([escape(f"{entry.name}.{name}"), bringer, escape(unit) or NO, escape(meaning)])
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
