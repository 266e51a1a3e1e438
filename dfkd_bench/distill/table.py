"""A student of one's own on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from dfkd_bench.distill.page import alarms
from dfkd_bench.report.terminal.runs import percent, short


def result_table(record: Mapping[str, Any], out: Path) -> Table:
    """What came out, in a few rows: agreement, sizes, time, files. `record` as `own.run.distill_request` returns it."""
    spec, own, result = record["spec"], record["own"], record["result"]
    title = f"{own['arch']} from {record['manifest']['teacher']['name']} by {spec['method']} ({spec['preset']})"
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", show_header=False)
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("value", overflow="fold")
    if result["status"] != "complete":
        table.add_row("status", f"[red]{result['status']}[/]")
    kl = "" if result["synthetic_kl"] is None else f", KL {result['synthetic_kl']:.4f} nats"
    table.add_row("synthetic agreement", f"[bold green]{percent(result['synthetic_agreement'])}[/]{kl}")
    if (images := result["samples"]) and images["label_consistency"] is not None:
        table.add_row("label agreement", percent(images["label_consistency"]))
    if done := record["evaluation"]:
        says = f"student {done['student_top1']:.2f} %, teacher {done['teacher_top1']:.2f} %"
        name = escape(done["dataset"])
        table.add_row(
            "on real images", f"{says}, agreement {done['agreement']:.2f} % ({name}, {done['images']:,} images)"
        )
    t, s = own["sizes"]["teacher"], own["sizes"]["student"]
    for key, name in (("parameters", "parameters"), ("macs", "multiply-adds")):
        table.add_row(name, f"{short(s[key])}, the teacher {short(t[key])}")
    table.add_row("time", f"{record['measurement']['seconds_total']:.1f} s")
    for name, value in own["checked"].items():
        table.add_row(name, escape(value))
    for alarm in alarms(result):
        table.add_row("[yellow]alarm[/]", escape(alarm))
    table.add_row("written", escape(f"{out}: {', '.join(record['files'])}"))
    return table
