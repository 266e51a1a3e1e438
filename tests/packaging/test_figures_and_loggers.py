"""Somebody else's package with figures and loggers: listed, drawn, told of a run; what breaks in it stops nothing."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, snoop
from factory import make_record, write_record
from plugin_file import declare
from smoke_runs import edited_good

import dfkd_bench
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.plugins.entry import FIGURE, LOGGER
from dfkd_bench.report.figures.base import BUILT_IN, kinds
from dfkd_bench.runs import records
from dfkd_bench.runs.loggers import loggers, parse_logs

FIGURES = '''
"""Kinds of figures of a lab."""

from matplotlib import pyplot

from dfkd_bench.errors import UsageError
from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.layout import finish, new_figure


def spread(given):
    """One figure for each group, and one of all."""
    for key, rows in given.rows_of.items():
        yield Job(given.name_of(key), lambda rows=rows: draw(rows, given.looks), "never")
    yield Job("", lambda: None, "nothing to\\nsay")


def draw(rows, looks):
    """A bar per competitor."""
    figure, (panel,) = new_figure()
    shown = rows[~rows["bound"]]
    panel.bar(range(len(shown)), shown["last_mean"], color=[looks[label].colour for label in shown["label"]])
    return finish(figure, "of a <lab> & $x$")


def raising(given):
    """Raises before anything is there."""
    raise ValueError("no licence\\nfound")
    yield


def leaving(given):
    """Each figure is broken in its own way, but for the third."""

    def leave():
        raise SystemExit(0)

    def refuse():
        raise UsageError("no such thing")

    yield Job("a", leave, "")
    yield Job("../../b <i>", refuse, "")
    yield Job("../c", lambda: draw(next(iter(given.rows_of.values())), given.looks), "")
    yield Job(".._c", lambda: None, "")
    yield Job("d", lambda: "no figure", "")


KIND = FigureKind("spread", "how <far> [b]apart[/]", spread)
RAISING = FigureKind("raising", about="raises", jobs=raising)
LEAVING = FigureKind("leaving", about="le" + "aves", jobs=leaving)
STRANGE = FigureKind("strange", "gives no jobs", lambda given: [1])
OTHER = object()
'''
LOGGERS = '''
"""Loggers of a lab."""

from contextlib import contextmanager

from dfkd_bench.errors import UsageError
from dfkd_bench.runs.progress import Logger


@contextmanager
def lines(folder, spec):
    """A word for each step; says so where the run failed."""
    folder.mkdir(parents=True)
    told = ["begin " + spec.method]
    try:
        yield lambda event: told.append(f"{event.phase} {event.round} {event.row is not None}")
    except Exception as error:
        told.append(type(error).__name__)
        raise
    finally:
        (folder / "told.txt").write_text("\\n".join([*told, "end"]))


@contextmanager
def failing(folder, spec):
    """Fails at the third step, and again at the end."""
    steps = []

    def tell(event):
        steps.append(event)
        if len(steps) >= 3:
            raise OSError("no space\\nleft")

    yield tell
    raise RuntimeError("twice")


def closed(folder, spec):
    """Does not even open."""
    raise SystemExit(3)


def refuse():
    """Something is missing."""
    raise UsageError("log in first")


LOGGER = Logger("lines", "a word a step", lines)
FAILING = Logger("failing", "fails", failing)
CLOSED = Logger("closed", "does not open", closed)
REFUSING = Logger("refusing", "is not logged in", lines, refuse)
'''
BROKEN = "raise OSError('no licence')\n"
POINTS = {
    FIGURE.group: {
        "spread": "plug_figures:KIND", "raising": "plug_figures:RAISING", "leaving": "plug_figures:LEAVING",
        "strange": "plug_figures:STRANGE", "other": "plug_figures:OTHER", "misnamed": "plug_figures:KIND",
        "broken": "plug_broken:KIND", "gone": "plug_gone:KIND", "cost": "plug_figures:KIND",
    },
    LOGGER.group: {
        "lines": "plug_loggers:LOGGER", "failing": "plug_loggers:FAILING", "closed": "plug_loggers:CLOSED",
        "refusing": "plug_loggers:REFUSING", "broken": "plug_broken:LOGGER", "jsonl": "plug_loggers:LOGGER",
    },
}  # fmt: skip
SMOKE = ["-m", "noise", "--budget", "smoke", "--threads", "1", "--device", "cpu", "--quiet"]
STEPS = [
    *(f"training {k} {row}" for k, row in [(1, False), (2, False), (2, True), (3, False), (4, False), (4, True)]),
    *(f"training {k} {row}" for k, row in [(5, False), (6, False), (6, True)]),
    *(f"evaluation {k} True" for k in (2, 4, 6)),
]
TOLD = "\n".join(["begin noise", *STEPS, "end"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a package `lab` is installed."""
    root = tmp_path_factory.mktemp("site")
    for name, text in {"plug_figures": FIGURES, "plug_loggers": LOGGERS, "plug_broken": BROKEN}.items():
        (root / f"{name}.py").write_text(text)
    for group, points in POINTS.items():
        declare(root, "lab", "3.1", group, points)
    return root


@pytest.fixture
def here(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same folder, importable in this process and in the workers that it starts."""
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield site
    for name in [name for name in sys.modules if name.startswith("plug_")]:
        del sys.modules[name]


def test_both_are_listed_with_owner_and_nothing_is_imported(site: Path) -> None:
    out, loaded = snoop("list", "figures", path=site)
    lines = {line.split()[0]: line for line in out.split("\n") if line.split()}
    assert loaded == "[]"
    assert list(lines)[3 : len(BUILT_IN) + 5] == [*BUILT_IN, "broken", "gone"]
    assert lines["spread"].rstrip().split(maxsplit=3)[1:] == ["lab", "3.1", "how <far> [b]apart[/]"]
    assert lines["curves"].split()[1:3] == ["dfkd-bench", dfkd_bench.__version__]
    assert "clash: also claimed by lab 3.1; uninstall all but one" in lines["cost"]
    assert "the source of plug_gone:KIND cannot be found" in lines["gone"]
    assert lines["leaving"].split() == ["leaving", "lab", "3.1"]  # not written literally
    out, loaded = snoop("list", "loggers", path=site)
    assert loaded == "[]"
    lines = {line.split()[0]: line for line in out.split("\n") if line.split()}
    assert "a word a step" in lines["lines"]
    assert "is not logged in" in lines["refusing"]
    assert "clash" in lines["jsonl"]
    out, loaded = snoop("figures", "--help", path=site)
    assert loaded == "[]"
    assert "  spread     how <far> [b]apart[/]" in out


# -- figures ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods with two seeds, without files beside their records."""
    root = tmp_path_factory.mktemp("results")
    for method, last in (("alpha", 90.0), ("beta", 80.0)):
        for seed in (0, 1):
            write_record(root, make_record(method=method, seed=seed, last=last + seed))
    return root


def test_its_figures_are_drawn_and_what_breaks_stops_no_other(
    here: Path, results: Path, tmp_path: Path, command: Command
) -> None:
    out_folder = tmp_path / "a" / "out"
    words = ["figures", "--results", results, "-o", out_folder, "--format", "svg"]
    status, out, err = command(*words)
    stem = "digits16_cnn32-cnn16-pinned-quick"
    assert status == 0
    names = [Path(line).name for line in out.splitlines()]
    assert f"bars-{stem}.svg" in names
    theirs = [name for name in names if name.partition("-")[0] not in BUILT_IN]
    assert theirs == ["leaving-_c.svg", f"spread-{stem}.svg"]
    assert sorted(p.name for p in tmp_path.rglob("*.svg")) == sorted(p.name for p in out_folder.iterdir())
    drawn = (out_folder / f"spread-{stem}.svg").read_text().lower()
    assert "#0072b2" in drawn  # the competitors' colours of all figures
    assert "#d55e00" in drawn
    said = dict(line.removeprefix("not drawn: ").split(": ", 1) for line in err.splitlines())
    assert len(said) == len(err.splitlines())
    assert {name: said[name] for name in said if "digits16" not in name} == {
        "cost": (
            f"figure name 'cost' is claimed by several packages (dfkd-bench {dfkd_bench.__version__}, lab 3.1): "
            "uninstall all but one"
        ),
        "ranks-pinned-quick": (
            "fewer than three competitors with a complete run in every block, or fewer than two blocks"
        ),
        "broken": "figure 'broken' of lab 3.1 cannot be imported: OSError: no licence",
        "gone": "figure 'gone' of lab 3.1 cannot be imported: ModuleNotFoundError: No module named 'plug_gone'",
        "leaving-a": "figure 'leaving' of lab 3.1 failed: SystemExit: 0",
        "leaving-_.._b__i_": "figure 'leaving' of lab 3.1: no such thing",
        "leaving-_c": "another figure already has this name: rename the one of figure 'leaving' of lab 3.1",
        "leaving-d": "figure 'leaving' of lab 3.1 failed: AttributeError: 'str' object has no attribute 'savefig'",
        "misnamed": (
            "figure 'misnamed' of lab 3.1 has the name 'spread': its entry point and its `name` must be the same"
        ),
        "other": "plug_figures:OTHER of lab 3.1 is not a FigureKind",
        "raising": "figure 'raising' of lab 3.1 failed: ValueError: no licence",
        "spread": "nothing to say",
        "strange": "figure 'strange' of lab 3.1 failed: TypeError: each of its figures must be a Job, got 1",
    }


def test_our_own_kinds_are_called_as_their_files() -> None:
    for known, contract in ((kinds(), "KIND"), (loggers(), "LOGGER")):
        for name, entry in known.items():
            module = importlib.import_module(entry.target.partition(":")[0])
            assert getattr(module, contract).name == name
            assert entry.owner == "dfkd-bench"


# -- loggers ----------------------------------------------------------------------------------------------------------


def result_of(root: Path) -> bytes:
    (record,) = records.read_all(root)
    return records.canonical(record["result"])


def named_in(root: Path) -> list[tuple[str, str]] | None:
    """The loggers that the only record names, each with its owner; None where it says nothing of loggers."""
    (record,) = records.read_all(root)
    found = record["manifest"].get("loggers")
    return None if found is None else [(one["name"], f"{one['owner']} {one['version']}") for one in found]


def test_a_logger_is_told_every_step_and_one_that_breaks_is_left_out(
    here: Path, tmp_path: Path, command: Command
) -> None:
    words = ["run", *SMOKE, "--results", tmp_path / "a", "--log", f"lines={tmp_path / 'w'}"]
    status, out, err = command(*words, "--log", "failing", "--log", "closed")
    assert (status, out) == (0, "")
    assert err.splitlines() == [
        "logger 'closed' of lab 3.1: SystemExit: 3; the run goes on without it",
        "logger 'failing' of lab 3.1: OSError: no space; the run goes on without it",
    ]
    (told,) = (tmp_path / "w").rglob("told.txt")
    (record,) = records.find(tmp_path / "a")
    assert told.parent.relative_to(tmp_path / "w") == record.parent.relative_to(tmp_path / "a")
    assert told.read_text() == TOLD
    assert command("run", *SMOKE, "--results", tmp_path / "b")[0] == 0
    assert result_of(tmp_path / "a") == result_of(tmp_path / "b")
    named = [named_in(tmp_path / folder) for folder in ("a", "b")]
    assert named == [[(name, "lab 3.1") for name in ("lines", "failing", "closed")], None]
    told.unlink()
    assert command(*words)[0] == 0  # a run that is finished is not followed
    assert not told.exists()


def test_a_logger_is_told_in_a_worker_and_from_python(here: Path, tmp_path: Path, capfd: Any) -> None:
    table = {"method": "noise", "budget": "smoke", "threads": 1, "device": "cpu", "seeds": [0]}
    logs = ("lines", f"jsonl={tmp_path / 'j'}", "failing")
    with pytest.raises(UsageError, match="logger name 'jsonl' is claimed by several packages"):
        dfkd_bench.run(table, tmp_path / "a", log=logs)
    dfkd_bench.run(table, tmp_path / "a", jobs=1, log=("lines", "failing"))
    (told,) = (tmp_path / "a" / "logs" / "lines").rglob("told.txt")
    assert told.read_text() == TOLD
    assert "logger 'failing' of lab 3.1: OSError: no space; the run goes on without it\n" in capfd.readouterr().err
    dfkd_bench.run(table, tmp_path / "b", log="lines")
    (told,) = (tmp_path / "b" / "logs" / "lines").rglob("told.txt")
    assert told.read_text() == TOLD
    assert result_of(tmp_path / "a") == result_of(tmp_path / "b")


def test_a_logger_hears_of_a_run_that_fails(here: Path, tmp_path: Path) -> None:
    word = edited_good(tmp_path / "bad.py", ("def synthesize(self", "def synthesize(self, no"))
    table = {"method": word, "budget": "smoke", "threads": 1, "device": "cpu"}
    with pytest.raises(RunError, match="TypeError"):
        dfkd_bench.run(table, tmp_path / "a", log="lines")
    (told,) = (tmp_path / "a" / "logs").rglob("told.txt")
    assert told.read_text().splitlines()[1:] == ["TypeError", "end"]
    assert named_in(tmp_path / "a") == [("lines", "lab 3.1")]


@pytest.mark.parametrize(
    ("word", "status", "says"),
    [
        ("line", 2, "unknown logger 'line'; did you mean 'lines'?"),
        ("lines=", 2, "--log takes NAME or NAME=FOLDER, got 'lines='"),
        ("refusing", 2, "logger 'refusing' of lab 3.1: log in first"),
        ("broken", 1, "logger 'broken' of lab 3.1 cannot be imported: OSError: no licence"),
    ],
)
def test_a_logger_that_cannot_be_used_is_refused_before_anything_runs(
    here: Path, tmp_path: Path, command: Command, word: str, status: int, says: str
) -> None:
    for more in ([], ["--jobs", "1"]):
        words = ["run", *SMOKE, "--results", tmp_path / "a", "--log", word, *more]
        assert command(*words) == (status, "", f"error: {says}\n")
    assert not (tmp_path / "a").exists()


def test_where_loggers_write(here: Path, tmp_path: Path) -> None:
    found = parse_logs(["tensorboard", "tensorboard=b=c", "tensorboard"], Path("runs"))
    assert [(log.name, log.where) for log in found] == [
        ("tensorboard", Path.cwd() / "runs" / "logs" / "tensorboard"), ("tensorboard", Path.cwd() / "b=c"),
    ]  # fmt: skip


def test_a_logger_of_ours_writes_every_step_as_json(tmp_path: Path) -> None:
    table = {"method": "noise", "budget": "smoke", "threads": 1, "device": "cpu"}
    dfkd_bench.run(table, tmp_path, log="jsonl")
    (file,) = (tmp_path / "logs" / "jsonl").rglob("events.jsonl")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [f"{e['phase']} {e['round']} {e['row'] is not None}" for e in found] == STEPS
    (record,) = records.read_all(tmp_path)
    assert found[-1]["row"] == {"top1": record["result"]["accuracy"]["last"]}
    assert named_in(tmp_path) == [("jsonl", f"dfkd-bench {dfkd_bench.__version__}")]
