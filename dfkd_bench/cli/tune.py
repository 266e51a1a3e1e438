"""`dfkd-bench tune`: the same number of runs for every method, chosen without a real image, written down."""

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
    help="A method, file.py:Class, or `all` (default): every installed one but the bounds. Repeatable.",
)  # fmt: skip
@click.option("-t", "--task", default=DEFAULT_TASK, show_default=True, metavar="TASK", help="dataset/teacher-student.")
@click.option("--preset", metavar="NAME", help="A preset that every method has. Default: each method's own.")
@click.option(
    "--runs", type=click.IntRange(1, 1000), default=12, show_default=True, metavar="N",
    help="Runs of each method, the untuned one included.",
)  # fmt: skip
@click.option(
    "--budget", default="quick", show_default=True, metavar="BUDGET", help="smoke, quick, standard, full or seconds:N."
)
@click.option(
    "--seed", type=click.IntRange(0), default=100, show_default=True, metavar="N",
    help="A seed that no reported result uses.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="CPU threads.")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda.")
@click.option(
    "--coverage", type=click.FloatRange(0, 1), default=1.0, show_default=True, metavar="SHARE",
    help="Share of the classes that the images of a winner show.",
)  # fmt: skip
@click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=Path("tuning"), show_default=True,
    help="Where records go; finished runs are skipped.",
)  # fmt: skip
@click.option(
    "--probe", type=PATH, metavar="FILE",
    help="Compare on this probe instead of one pooled from the methods named.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
    help="Where tuning.csv and probe.safetensors go. Default: the results folder.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the trials, run nothing.")
def command(**options: Any) -> None:
    """Tune methods with equal budgets, on synthetic images alone.

    Trial 0 is the method as it stands; the others are drawn from the candidates that it declares (`search`). The
    highest agreement with the teacher on a probe of all methods' images wins, of those whose images show the classes
    and, where the method asks for it, its labels; test accuracy is never looked at.
    """
    from dfkd_bench.runs.plan import expand_all

    options["methods"] = expand_all(options["methods"] or ("all",), without=BOUNDS)

    from rich.console import Console

    from dfkd_bench import protocol
    from dfkd_bench.studies import probe, tuning, tuning_table

    chosen = protocol.task(options["task"])
    dry_run, given = options.pop("dry_run"), options.pop("probe")
    options["out"] = options["out"] or options["results"]
    terms = tuning.TuneOptions(**options, probe=probe.read(given, chosen) if given else None)
    plan = tuning.plan_trials(terms)
    console = Console()
    if dry_run:
        console.print(plan_table(plan))
        return
    teller = TrialPrinter(console, len(plan))
    rows, used = tuning.tune(terms, plan, teller.watching, teller.told)
    console.print(result_table(rows, plan))
    lines = {trial.planned.spec.method: trial.task_settings for trial, row in zip(plan, rows, strict=True)
             if row.chosen and trial.changed}  # fmt: skip
    if lines:
        console.print("For `task_settings`:")
    for method, line in lines.items():
        console.print(f"  {method}: {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{len(rows)} trials scored on {len(used.images)} images of {', '.join(used.methods)} "
        f"(SHA-256 {used.sha256[:12]}); in full: {terms.out / tuning_table.FILE}, {terms.out / tuning_table.PROBE}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


class TrialPrinter:
    """What is seen while trials run: a live line on a terminal, and one line per trial. Never a test accuracy."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.begun = console, total, 0

    def head(self, trial: Trial) -> str:
        """A trial in words."""
        return f"{trial.planned.spec.method} · trial {trial.number} · {settings_of(trial)}"

    @contextmanager
    def watching(self, trial: Trial) -> Iterator[Callback]:
        """A callback for one run."""
        from dataclasses import replace

        from dfkd_bench.cli.live import live

        self.begun += 1
        if not self.console.is_terminal:
            yield lambda event: None
            return
        with live(self.console, self.head(trial), f"{self.begun}/{self.total}") as show:
            yield lambda event: show(replace(event, row=None) if event.phase == "evaluation" else event)

    def told(self, trial: Trial, outcome: Outcome) -> None:
        """One line on what became of a trial."""
        result, samples = outcome.record["result"], outcome.record["result"].get("samples")
        said = result["status"]
        if said == "failed":
            said += f": {result['error']}"
        else:
            said += f", coverage {samples['coverage']:.0%}" if samples else ", no images"
            labels = samples["label_consistency"] if samples else None
            said += "" if labels is None else f", label agreement {labels:.0f} %"
            said += ", finished already" if outcome.skipped else ""
        head = "" if self.console.is_terminal and not outcome.skipped else f"{self.head(trial)}: "
        self.console.print(f"{self.begun}/{self.total} {head}{said}", markup=False, highlight=False, soft_wrap=True)


def settings_of(trial: Trial) -> str:
    """The settings of a trial in short."""
    return ", ".join(f"{k}={v}" for k, v in trial.settings.items()) or "as it stands"


def plan_table(plan: Sequence[Trial]) -> Table:
    """Every trial and how far it is."""
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
    """One line per method: what its trials gave and which settings won."""
    from rich.markup import escape

    from dfkd_bench.report.terminal.listing import table_of

    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [(row, trial) for row, trial in zip(rows, plan, strict=True) if row.method == method]
        (winner, won), first = next((r, t) for r, t in own if r.chosen), own[0][0]
        eligible = sum(row.eligible for row, _ in own)
        changed = ", ".join(f"{k}={v}" for k, v in won.changed.items()) or "none: trial 0 stays"
        best = percent(winner.probe_agreement) if winner.eligible else "-"
        labels = percent(winner.label_consistency)
        lines.append(
            [escape(method), escape(winner.preset), str(len(own)), str(eligible), percent(first.probe_agreement), best,
             labels, escape(changed if eligible else "no trial is eligible: trial 0 stays")]
        )  # fmt: skip
    columns = ["method", "preset", ">trials", ">eligible", ">trial 0", ">best", ">labels", "settings changed"]
    return table_of("Agreement with the teacher on the probe, and label agreement of the chosen, in %", columns, lines)


def percent(value: float | None) -> str:
    """An agreement in percent, or a dash."""
    return "-" if value is None else f"{value:.2f}"
