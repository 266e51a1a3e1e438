"""The top command. A subcommand is imported only when it is used, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from dfkd_bench._version import __version__
from dfkd_bench.errors import BenchError, did_you_mean

# command -> its one line in the help; each lives in cli/<command>.py as `command`
COMMANDS = {
    "run": "Run methods on tasks, one record per seed.",
    "plan": "Show a plan, the state of its runs, and an estimate of the remaining cost.",
    "status": "Show the state of each run: done, running, failed, interrupted or missing.",
    "ablate": "Vary settings one at a time; write a table, a CSV and a figure.",
    "prune": "Remove leftover files of interrupted runs, after confirmation.",
    "tune": "Tune methods with equal budgets, on synthetic images only.",
    "distill": "Distil your own trained model into a smaller one, without any dataset.",
    "list": "List methods, tasks, datasets, models, figures, engines and more.",
    "show": "Show one method or add-on: settings, presets, privileges, paper.",
    "new": "Create a plug-in package for your own method.",
    "check": "Run the conformance checks on a method.",
    "leaderboard": "Write tables and a CSV from records.",
    "verify": "Compare stored students, numbers and tables with the records.",
    "export": "Pack one run into one archive.",
    "merge": "Copy the runs of several results folders into one.",
    "compare": "Compare two methods: the difference and its uncertainty.",
    "robustness": "Evaluate stored students on corrupted test images.",
    "figures": "Draw figures for a paper from records.",
    "samples": "Draw a labelled grid of a run's synthetic images.",
    "profile": "Measure the time of each step of a method.",
    "teacher": "List, train, verify and import teachers.",
    "data": "List, fetch and verify datasets.",
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"dfkd_bench.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for an unknown one."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(f"no command {args[0]!r}{did_you_mean(args[0], list(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Help lines from `COMMANDS`, without an import."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="dfkd-bench", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Benchmark of data-free knowledge distillation: fair, repeatable, one command.

    The main job: dfkd-bench run --method NAME
    """
    ctx.obj = {"debug": debug}


def entry() -> None:
    """Run the command line. A known error becomes one line and an exit status (2: usage, 1: failed)."""
    debug = "--debug" in sys.argv
    if debug:  # accepted anywhere on the line
        sys.argv = [sys.argv[0], "--debug", *(a for a in sys.argv[1:] if a != "--debug")]
    try:
        status = cli.main(prog_name="dfkd-bench", standalone_mode=False)
        if isinstance(status, int) and status:  # a command called ctx.exit(status)
            sys.exit(status)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.ClickException as error:
        is_help = type(error).__name__ == "NoArgsIsHelpError"  # a group without a subcommand; in click since 8.2
        click.echo("error: " * (not is_help) + error.format_message(), err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        resumes = bool({"run", "tune", "distill"} & set(sys.argv[1:3]) or {"train", "noise"} & set(sys.argv[2:4]))
        click.echo("stopped" + "; the same command resumes from the last checkpoint" * resumes, err=True)
        sys.exit(130)
    except BenchError as error:
        if debug:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
