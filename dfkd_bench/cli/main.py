"""The top command. Subcommands are imported when named, so that `--help` waits for nothing."""

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
    "plan": "What a plan holds, how far it is, and what the rest will cost.",
    "status": "How far a plan is: done, running, failed, missing.",
    "ablate": "Vary settings one at a time: table, CSV and figure.",
    "prune": "Remove what interrupted runs left behind, after asking.",
    "tune": "Tune methods with equal budgets, on synthetic images alone.",
    "distill": "Your own trained model into a smaller one, with no dataset anywhere.",
    "list": "What there is: methods, tasks, datasets, models, figures, engines and more.",
    "show": "All about one method or add-on: settings, presets, privileges, paper.",
    "new": "A plugin package for a method of your own.",
    "check": "Put a method through the conformance suite.",
    "leaderboard": "Records to a table and a CSV.",
    "verify": "Stored students, numbers and tables against each other.",
    "export": "One run as one archive.",
    "merge": "Results of several machines into one folder.",
    "compare": "Two methods against each other, with the difference and how sure it is.",
    "robustness": "Stored students on corrupted test images.",
    "figures": "Records to figures for a paper.",
    "samples": "A labelled grid of a run's synthetic images.",
    "profile": "Where a method's time goes.",
    "teacher": "List, train, verify and import teachers.",
    "data": "List, fetch and verify datasets.",
}


class Lazy(click.Group):
    """A group that knows its commands by name and imports them when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
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
        """Help lines from the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="dfkd-bench", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Benchmark of data-free knowledge distillation: fair, repeatable, one command.

    The main job: dfkd-bench run --method NAME
    """
    ctx.obj = {"debug": debug}


def entry() -> None:
    """Run the command line; every known error is one line and an exit status (2 usage, 1 failed)."""
    debug = "--debug" in sys.argv
    if debug:  # accepted anywhere on the line
        sys.argv = [sys.argv[0], "--debug", *(a for a in sys.argv[1:] if a != "--debug")]
    try:
        left = cli.main(prog_name="dfkd-bench", standalone_mode=False)
        if isinstance(left, int) and left:  # a command called ctx.exit(status)
            sys.exit(left)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        wants_help = type(error).__name__ == "NoArgsIsHelpError"  # a group named alone; click has it from 8.2 on
        click.echo("error: " * (not wants_help) + error.format_message(), err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        resumes = bool({"run", "tune", "distill"} & set(sys.argv[1:3]) or {"train", "noise"} & set(sys.argv[2:4]))
        click.echo("stopped" + "; the same command goes on from the last checkpoint" * resumes, err=True)
        sys.exit(130)
    except BenchError as error:
        if debug:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
