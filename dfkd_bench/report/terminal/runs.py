"""Tables of `run`: the plan, one run in detail, several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from dfkd_bench.protocol import BOUNDS, seconds_of
from dfkd_bench.runs import records
from dfkd_bench.runs.settings import TERMS
from dfkd_bench.utils.text import counted, method_label

if TYPE_CHECKING:
    from dfkd_bench.runs.planned import PlannedRun

SAME = ("protocol", "task", *TERMS)  # fields in which a bound must equal the run beside which it is shown


def plan_table(planned: Sequence[PlannedRun]) -> Table:
    """The runs of a request, one row per run with its state."""
    done = sum(p.state == "done" for p in planned)
    table = Table(box=box.SIMPLE_HEAD, title=f"{len(planned)} runs, {done} done", title_justify="left")
    for column in ("method", "preset", "task", "track", "budget", "seed", "state", "hash"):
        table.add_column(column, overflow="fold")
    for p in planned:
        s = p.spec
        table.add_row(
            escape(method_label(s.to_json())), escape(s.preset), s.task, s.track, s.budget, str(s.seed), p.state, s.hash
        )
    return table


def bounds_on_disk(record: dict[str, Any], results: Path) -> dict[str, list[float]]:
    """Bound -> last-checkpoint top-1 in % of its complete runs in `results` with the same task and terms."""
    result: dict[str, list[float]] = {}
    spec = record["spec"]
    base = results / spec["protocol"] / spec["task"].replace("/", "_")
    for bound in BOUNDS:
        folder = base / bound
        for path in sorted(folder.rglob(records.FILE)) if folder.is_dir() else []:
            other = records.read(path)
            complete = other["result"]["status"] == "complete" and not other["spec"].get("addons")
            if complete and all(other["spec"].get(k) == spec.get(k) for k in SAME):
                result.setdefault(bound, []).append(other["result"]["accuracy"]["last"])
    return result


def percent(value: float | None) -> str:
    """`97.65 %`, or a dash."""
    return "-" if value is None else f"{value:.2f} %"


def run_table(record: dict[str, Any], bounds: dict[str, list[float]]) -> Table:
    """One run in detail: teacher, student, bounds, fidelity, images, cost, path."""
    spec, result, measured = record["spec"], record["result"], record["measurement"]
    terms = f"{spec['track']}/{spec['budget']}, seed {spec['seed']}"
    title = f"{method_label(spec)} ({spec['preset']}) on {spec['task']}, {terms}"
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", show_header=False)
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("value", overflow="fold")
    if result["status"] == "failed":
        table.add_row("status", f"[red]failed[/]: {escape(result['error'])}")
        return table
    accuracy, fidelity = result["accuracy"], result["fidelity"]
    if result["status"] != "complete":
        table.add_row("status", f"[red]{result['status']}[/]: a loss or weight became infinite or not a number")
    table.add_row("teacher", percent(fidelity["teacher_top1"]))
    table.add_row("student, last checkpoint", f"[bold green]{percent(accuracy['last'])}[/]")
    table.add_row("  best on test (oracle)", percent(accuracy["oracle"]))
    table.add_row("  mean over snapshots", f"{percent(accuracy['mean'])}, variance {accuracy['variance']:.2f}")
    table.add_row("  chosen on synthetic data", percent(accuracy["selected"]))
    for name, values in bounds.items():
        if name != spec["method"]:
            table.add_row(f"bound {name}", f"{percent(mean(values))}, {counted(len(values), 'seed')}")
    text = f"{percent(fidelity['agreement'])}, KL {fidelity['kl']:.4f} nats, ECE {fidelity['ece']:.3f}"
    table.add_row("agreement with teacher", text)
    if quality := result["samples"]:
        text = f"{quality['coverage']:.0%} of classes, diversity {quality['diversity'] or 0:.2f}"
        if quality["label_consistency"] is not None:
            text += f", label agreement {quality['label_consistency']:.0f} %"
        table.add_row("synthetic images", text)
    if (realism := result.get("realism")) and realism["precision"] is not None:
        text = f"precision {realism['precision']:.2f}, recall {realism['recall']:.2f}, Fréchet {realism['frechet']:.3g}"
        table.add_row("  beside test images", text)
    for name, metric in record.get("metrics", {}).items():
        for column, value in metric["values"].items():
            text = "none" if value is None else f"{value:.4g} {metric['columns'][column]['unit']}"
            table.add_row(escape(f"{name}.{column}"), escape(text.rstrip()))
        if metric["why"]:
            table.add_row(f"[yellow]metric {escape(name)}[/]", escape(metric["why"]))
    counts, seconds = result["counts"], measured["seconds"]
    table.add_row("cost", ", ".join(f"{k} {v:.1f} s" for k, v in seconds.items() if v >= 0.05))
    if (budget := seconds_of(spec["budget"])) is not None:
        spent = measured["seconds_total"] - seconds["evaluation"]
        table.add_row("  of the budget", f"{spent:.1f} of {budget:g} s, {100 * (spent / budget - 1):+.1f} %")
    passes = f"{short(counts['teacher_forwards'])} forward, {short(counts['teacher_backwards'])} backward"
    table.add_row("  teacher passes (images)", passes)
    table.add_row("  student", f"{short(counts['student_steps'])} steps, {short(counts['student_images'])} images")
    table.add_row("  peak memory", f"{measured['peak_memory_bytes'] / 2**20:.0f} MiB")
    for alarm in result["alarms"]:
        table.add_row("[yellow]alarm[/]", escape(alarm))
    table.add_row("record", escape(record["path"]))
    return table


def runs_table(done: Sequence[dict[str, Any]]) -> Group:
    """Several runs: one table per task, one row per run; accuracies, agreement and label agreement in percent."""
    tasks = dict.fromkeys(record["spec"]["task"] for record in done)
    return Group(*(_of_task(task, [record for record in done if record["spec"]["task"] == task]) for task in tasks))


def _of_task(task: str, done: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"{task}, percent"), title_justify="left", padding=0)
    for column in ("method", "preset"):
        table.add_column(column, overflow="fold")
    for column in ("seed", "status", "last", "oracle", "mean", "agree", "labels", "seconds"):
        table.add_column(column, justify="left" if column == "status" else "right", no_wrap=True)
    for record in done:
        spec, result = record["spec"], record["result"]
        cells = ["-"] * 5
        if result["status"] != "failed":
            a = result["accuracy"]
            cells = [f"{v:.2f}" for v in (a["last"], a["oracle"], a["mean"], result["fidelity"]["agreement"])]
            labels = (result["samples"] or {}).get("label_consistency")
            cells.append("-" if labels is None else f"{labels:.1f}")
        seconds = f"{record['measurement']['seconds_total']:.1f}"
        names = [escape(method_label(spec)), escape(spec["preset"])]
        table.add_row(*names, str(spec["seed"]), result["status"], *cells, seconds)
    return table


def short(number: float) -> str:
    """`51.2 k`, `1.30 M`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
