"""`dfkd-bench tune`: tune every method with the same number of runs, scored on synthetic images only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import PATH
from dfkd_bench.protocol import BOUNDS, DEFAULT_TASK

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from dfkd_bench.runs.progress import Callback
    from dfkd_bench.studies.tuning import Trial
    from dfkd_bench.studies.tuning_table import Row
    from dfkd_bench.training.runner import Outcome

EPILOG = """\b
Examples:
  dfkd-bench tune --dry-run
  dfkd-bench tune
  dfkd-bench tune --method ./mine.py:Mine --probe tuning/probe.safetensors --out mine-tuned
"""


@click.command(epilog=EPILOG)
@click.option(
    "-m", "--method", "methods", multiple=True, metavar="NAME",
    help="A method, file.py:Class, or `all` (default): every installed one except the bounds. Repeatable.",
)  # fmt: skip
@click.option("-t", "--task", default=DEFAULT_TASK, show_default=True, metavar="TASK", help="dataset/teacher-student.")
@click.option("--preset", metavar="NAME", help="A preset that every method has. Default: each method's default.")
@click.option(
    "--runs", type=click.IntRange(1, 1000), default=12, show_default=True, metavar="N",
    help="Runs per method, including the untuned one.",
)  # fmt: skip
@click.option(
    "--budget", default="quick", show_default=True, metavar="BUDGET", help="smoke, quick, standard, full or seconds:N."
)
@click.option(
    "--seed", type=click.IntRange(0), default=100, show_default=True, metavar="N",
    help="Use a seed that no reported result uses.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="CPU threads.")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda.")
@click.option(
    "--coverage", type=click.FloatRange(0, 1), default=1.0, show_default=True, metavar="SHARE",
    help="Share of the classes that a trial's images must show to be eligible.",
)  # fmt: skip
@click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=Path("tuning"), show_default=True,
    help="Results folder to write to; finished runs are skipped.",
)  # fmt: skip
@click.option(
    "--probe", type=PATH, metavar="FILE",
    help="Score on this probe set instead of one pooled from the images of these methods.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
    help="Folder for tuning.csv and probe.safetensors. Default: the results folder.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the trials, run nothing.")
def command(**options: Any) -> None:
    """Tune methods with equal budgets, on synthetic images only.

    Trial 0 has the method's default settings; the other trials are drawn from the candidates that it declares
    (`search`). A trial is eligible if its images show the classes and, if the method requires it, their labels agree
    with the teacher. The eligible trial whose student agrees most with the teacher on the probe set (images of all
    methods) wins. Test accuracy is never used.
    """
    from dfkd_bench.runs.plan import expand_all

    options["methods"] = expand_all(options["methods"] or ("all",), without=BOUNDS)

    from rich.console import Console

    from dfkd_bench import protocol
    from dfkd_bench.studies import probe, tuning, tuning_table

    task = protocol.task(options["task"])
    dry_run, probe_file = options.pop("dry_run"), options.pop("probe")
    options["out"] = options["out"] or options["results"]
    tune_options = tuning.TuneOptions(**options, probe=probe.read(probe_file, task) if probe_file else None)
    plan = tuning.plan_trials(tune_options)
    console = Console()
    if dry_run:
        console.print(plan_table(plan))
        return
    printer = TrialPrinter(console, len(plan))
    rows, used = tuning.tune(tune_options, plan, printer.follow, printer.print_result)
    console.print(result_table(rows, plan))
    lines = {trial.planned.spec.method: trial.task_settings for trial, row in zip(plan, rows, strict=True)
             if row.chosen and trial.changed}  # fmt: skip
    if lines:
        console.print("For `task_settings`:")
    for method, line in lines.items():
        console.print(f"  {method}: {line}", markup=False, highlight=False, soft_wrap=True)
    out = tune_options.out
    console.print(
        f"{len(rows)} trials scored on {len(used.images)} images of {', '.join(used.methods)} "
        f"(SHA-256 {used.sha256[:12]}); in full: {out / tuning_table.FILE}, {out / tuning_table.PROBE}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


class TrialPrinter:
    """Prints trials: a live line on a terminal, and one line per finished trial. Never prints test accuracy."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.started = console, total, 0

    def head(self, trial: Trial) -> str:
        """A trial in words."""
        return f"{trial.planned.spec.method} · trial {trial.number} · {settings_of(trial)}"

    @contextmanager
    def follow(self, trial: Trial) -> Iterator[Callback]:
        """A callback for the run of one trial."""
        from dataclasses import replace

        from dfkd_bench.cli.live import live

        self.started += 1
        if not self.console.is_terminal:
            yield lambda event: None
            return
        with live(self.console, self.head(trial), f"{self.started}/{self.total}") as show:
            yield lambda event: show(replace(event, row=None) if event.phase == "evaluation" else event)

    def print_result(self, trial: Trial, outcome: Outcome) -> None:
        """One line with the result of a trial."""
        result, samples = outcome.record["result"], outcome.record["result"].get("samples")
        line = result["status"]
        if line == "failed":
            line += f": {result['error']}"
        else:
            line += f", coverage {samples['coverage']:.0%}" if samples else ", no images"
            labels = samples["label_consistency"] if samples else None
            line += "" if labels is None else f", label agreement {labels:.0f} %"
            line += ", finished already" if outcome.skipped else ""
        head = "" if self.console.is_terminal and not outcome.skipped else f"{self.head(trial)}: "
        self.console.print(f"{self.started}/{self.total} {head}{line}", markup=False, highlight=False, soft_wrap=True)


def settings_of(trial: Trial) -> str:
    """The settings of a trial as text."""
    return ", ".join(f"{k}={v}" for k, v in trial.settings.items()) or "defaults"


def plan_table(plan: Sequence[Trial]) -> Table:
    """Every trial and its state."""
    from rich.markup import escape

    from dfkd_bench.report.terminal.listing import table_of

    rows = [
        [escape(t.planned.spec.method), escape(t.planned.spec.preset), str(t.number), escape(settings_of(t)),
         t.planned.state]
        for t in plan
    ]  # fmt: skip
    done = sum(t.planned.state == "done" for t in plan)
    return table_of(f"{len(plan)} trials, {done} done", ["method", "preset", ">trial", "settings", "state"], rows)


def result_table(rows: Sequence[Row], plan: Sequence[Trial]) -> Table:
    """One row per method: scores of its trials and the settings of the best one."""
    from rich.markup import escape

    from dfkd_bench.report.terminal.listing import table_of

    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        trials = [(row, trial) for row, trial in zip(rows, plan, strict=True) if row.method == method]
        (winner, winning_trial), first = next((r, t) for r, t in trials if r.chosen), trials[0][0]
        eligible = sum(row.eligible for row, _ in trials)
        changed = ", ".join(f"{k}={v}" for k, v in winning_trial.changed.items()) or "none: trial 0 is kept"
        best = percent(winner.probe_agreement) if winner.eligible else "-"
        labels = percent(winner.label_consistency)
        lines.append(
            [escape(method), escape(winner.preset), str(len(trials)), str(eligible), percent(first.probe_agreement),
             best, labels, escape(changed if eligible else "no trial is eligible: trial 0 is kept")]
        )  # fmt: skip
    columns = ["method", "preset", ">trials", ">eligible", ">trial 0", ">best", ">labels", "settings changed"]
    return table_of(
        "Agreement with the teacher on the probe set, and label agreement of the selected trial, in %", columns, lines
    )


def percent(value: float | None) -> str:
    """An agreement in percent, or a dash."""
    return "-" if value is None else f"{value:.2f}"
