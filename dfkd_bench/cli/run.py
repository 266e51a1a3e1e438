"""`dfkd-bench run`: make the plan, run what is missing, print the results."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import DATA_DIR, PATH, engine_options, plan_options, settings_given
from dfkd_bench.errors import BenchError, RunError, UsageError
from dfkd_bench.runs.settings import DEFAULT_THREADS, SETTINGS, Request

if TYPE_CHECKING:
    from dfkd_bench.runs.planned import PlannedRun

EPILOG = """\b
Examples:
  dfkd-bench run --method NAME
  dfkd-bench run --method NAME --method noise --seeds 0-4
  dfkd-bench run --method ./mine.py:Mine --set width=8 --budget smoke
  dfkd-bench run --method NAME --with INNER --with OUTER --set OUTER.key=2
  dfkd-bench run study.toml --dry-run
  dfkd-bench run --suite quick --jobs 2
  dfkd-bench run study.toml --engine ray --address auto
"""


@click.command(epilog=EPILOG)
@plan_options
@click.option("--like", type=PATH, metavar="RECORD", help="Repeat the run of a record and compare the two.")
@engine_options
@DATA_DIR
@click.option("--force", is_flag=True, help="Run finished and interrupted runs again from the start.")
@click.option("--dry-run", is_flag=True, help="Show the plan, run nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option(
    "--log",
    "logs",
    multiple=True,
    metavar="NAME[=DIR]",
    help="Logger for the runs, see `list loggers`. Default DIR: logs/NAME in the results. Repeatable.",
)
@click.option("--tensorboard", type=PATH, metavar="DIR", help="Also write the curves for TensorBoard.")
def command(file: Path | None, **options: Any) -> None:
    """Run methods on tasks; write one record per method, task and seed. Finished runs are skipped."""
    from rich.console import Console

    from dfkd_bench.runs.plan import make_plan

    results: Path = options["results"]
    console = Console(quiet=options["quiet"])
    original = None
    if options["like"] is not None:
        planned, original = like(file, options, results)
    else:
        say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        planned = make_plan(request(file, options), results, say=say)
    if options["dry_run"]:
        from dfkd_bench.report.terminal.runs import plan_table
        from dfkd_bench.runs.runfile import command_of

        console.print(plan_table(planned))
        for item in planned:
            if item.state != "done" or options["force"]:
                console.print(command_of(item, results), markup=False, highlight=False, soft_wrap=True)
        return
    if wants_engine(options):
        from dfkd_bench.cli.run_with_engine import carry_out

        records = carry_out(planned, results, console, options)
    else:
        records = execute(planned, results, console, options)
    if original is not None and records:
        compare(records[0], original, console)


def wants_engine(options: dict[str, Any]) -> bool:
    """True if an engine executes the plan instead of this process. Raises `UsageError` for options that need one."""
    if options["engine"] or options["jobs"] is not None:
        return True
    for name in ("address", "engine_config", "run_timeout", "memory_limit"):
        if options[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} needs an engine: add --jobs N or --engine NAME")
    return False


def request(file: Path | None, options: dict[str, Any]) -> Request:
    """The request of a run file or suite; options override it. Raises `UsageError` for wrong or missing values."""
    from dfkd_bench.runs.runfile import read_run_file
    from dfkd_bench.runs.suites import suite

    if file and options["suite"]:
        raise UsageError(f"name a run file or a suite, not both: {file} and --suite {options['suite']}")
    fields = read_run_file(file) if file else suite(options["suite"]).fields if options["suite"] else {}
    given = settings_given(options)
    if options["jobs"] and "threads" not in {*fields, *given}:
        # workers share the cores; more threads than cores would slow them down
        given["threads"] = max(1, min(DEFAULT_THREADS, (os.cpu_count() or 1) // options["jobs"]))
    overrides = {**fields.get("overrides", {}), **given.get("overrides", {})}
    fields = {**fields, **given, "overrides": overrides}
    if not fields.get("methods"):
        raise UsageError("name a method with --method NAME; `dfkd-bench list methods` shows them")
    return Request(**fields)


def like(file: Path | None, options: dict[str, Any], results: Path) -> tuple[list[PlannedRun], dict[str, Any]]:
    """The plan that repeats the run of a record, and the record. Raises `UsageError` if the run cannot be the same."""
    from dfkd_bench.runs import records
    from dfkd_bench.runs.plan import plan_repeat

    given = settings_given(options).keys() - {"methods", "addons"}  # these may name the files of file plug-ins
    refused = [str(file)] * (file is not None) + ["--suite"] * bool(options["suite"])
    if refused := refused + [f"--{setting.key}" for setting in SETTINGS.values() if setting.name in given]:
        raise UsageError(f"--like repeats a run as it was: leave out {refused[0]}")
    record = records.read(options["like"])
    method = options["methods"][0] if options["methods"] else None
    return [plan_repeat(record, results, method, options["addons"])], record


def execute(planned: list[PlannedRun], results: Path, console: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the plan in order and return the records. Raises `RunError` at the end if any run failed."""
    from dfkd_bench.api import run_in_process
    from dfkd_bench.cli.live import follow, logs_of
    from dfkd_bench.engines.progress import name_of
    from dfkd_bench.report.terminal.runs import bounds_on_disk, run_table, runs_table

    logs = logs_of(options)

    def followed(item: PlannedRun, number: int) -> Any:
        return follow(console, name_of(item.spec.to_json()), f"{number}/{len(planned)}")

    def on_result(item: PlannedRun, skipped: dict[str, Any] | None, error: BenchError | None) -> None:
        head = name_of(item.spec.to_json())
        if skipped is not None:
            line = f"{head}: finished already, skipped (--force to redo)"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif len(planned) > 1:
            click.echo(f"error: {head}: {error}", err=True)

    done, failures = run_in_process(
        planned,
        results,
        force=options["force"],
        retry_failed=options["retry_failed"],
        logs=logs,
        follow=followed,
        on_result=on_result,
    )
    if failures and len(planned) == 1:
        raise failures[0][1]
    if len(done) == 1:
        console.print(run_table(done[0], bounds_on_disk(done[0], results)))
    elif done:
        console.print(runs_table(done))
    if failures:
        raise RunError(f"{len(failures)} of {len(planned)} runs failed; the others are recorded below {results}")
    return done


def compare(repeated: dict[str, Any], original: dict[str, Any], console: Any) -> None:
    """Print that a repeated run gave the same result, byte for byte. Raises `RunError` if it did not."""
    from dfkd_bench.metrics.registry import differing

    parts = differing(original["result"], repeated["result"])
    if not parts:
        console.print("The result is identical, byte for byte, to that of the record.")
        return
    raise RunError(f"the result differs from the record's in: {', '.join(parts)} (another machine or torch version?)")
