"""The `recsys` command: a table of names to jobs, each imported only when it is called.

Exit codes: 0 done, 1 the job failed or a gate refused, 2 wrong usage.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
import traceback
from typing import Any

import click

from recsys.system.text import printable

from .errors import CommandInterruptedError, explain
from .interrupts import handle_signals, ignore_signals, was_interrupted
from .output import say

# name -> one line of help. The job lives in the module of that name, so help needs no import of torch or pandas.
COMMANDS = {
    "check": "Describe a ratings file and account for every row of it.",
    "prepare": "Write a compact, memory-mapped copy of a ratings file.",
    "download": "Download a public data set and verify it.",
    "train": "Fit a model, validate it, save it and track the run.",
    "evaluate": "Evaluate a saved model on held-out data.",
    "compare": "Fit several models on the same split and rank them.",
    "tune": "Search the best settings of a model.",
    "generate": "Draw made-up users from a variational autoencoder.",
    "encode": "Write the embeddings of users or items to Parquet.",
    "similar": "Find the items or users nearest to one, on the terminal.",
    "map": "Draw items or users on a plane, as a page or a picture.",
    "recommend": "Recommend items for one user, on the terminal.",
    "explain": "Explain a recommendation by the items of the history.",
    "predict": "Predict the ratings of user-item pairs in a file.",
    "score": "Write the top-n items of every user to files.",
    "nightly": "Check, train, challenge, score and publish; resumable.",
    "promote": "Make a registered challenger the champion, if it is better.",
    "explore": "Write a page of a model that opens offline: choose titles.",
    "serve": "Answer requests for recommendations over HTTP.",
    "audit": "Find the interactions that a model finds least plausible.",
    "plan": "Estimate what training and scoring will need.",
    "demo": "Run the end-to-end demo on the sample ratings.",
    "doctor": "Report what this machine can do.",
}

# Read by torch when it is first imported; what the user has set is left alone.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads sleep: spinning makes a busy machine many times slower
    "THP_MEM_ALLOC_ENABLE": "1",  # large pages for large tensors: fresh memory costs a fraction
}


class _Commands(click.Group):
    """Imports a command when it is used; turns every exception into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        set_environment()  # here, not in `main`: Click imports the command before it calls the group
        command: click.Command = importlib.import_module(f"..{cmd_name}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"Expected one of the commands {', '.join(COMMANDS)}; found {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **more: Any) -> Any:
        """Run a command. Without `args` it is all that this process does, and signals are its own until the end."""
        whole = not args and more.get("args") is None
        if not more.get("standalone_mode", True):
            return super().main(*args, **more)
        handle_signals()
        if whole:
            _prepare_process()
        try:
            return super().main(*args, **more)
        except KeyboardInterrupt:  # a further one, while the first was dealt with
            CommandInterruptedError().show()
            sys.exit(1)
        finally:
            if whole:
                ignore_signals()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, SystemExit) as error:
            _show_traceback(ctx, error)
            raise
        except BrokenPipeError:  # the reader of the output has enough, as `head` has: Click ends quietly
            raise
        except KeyboardInterrupt as error:
            raise CommandInterruptedError() from error
        except BaseException as error:
            _show_traceback(ctx, error)
            if was_interrupted():
                raise CommandInterruptedError() from error
            raise explain(error, _running(self, ctx), getattr(ctx.obj, "output", None)) from error


def _running(group: _Commands, ctx: click.Context) -> click.Command | None:
    """The command at work; None where not even its module can be imported."""
    try:
        return group.get_command(ctx, ctx.invoked_subcommand or "")
    except BaseException:
        return None


def _show_traceback(ctx: click.Context, error: BaseException) -> None:
    """With -v: where an exception comes from. Of a message made from an exception, where that one comes from."""
    cause = error.__cause__ if isinstance(error, click.ClickException) else error
    if ctx.params.get("verbose") and cause is not None and not isinstance(cause, SystemExit):
        say("".join(traceback.format_exception(cause)), err=True)


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from recsys import __version__

        say(f"recsys {__version__}")
        ctx.exit()


class _PrintableFormatter(logging.Formatter):
    """Log lines may hold ids and paths, as any text of the terminal may."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@click.group(
    "recsys", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("-v", "--verbose", is_flag=True, help="Log more; show the traceback of an error.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def main(verbose: bool, as_json: bool) -> None:
    """Autoencoder recommendations: from a ratings CSV to a list of items for every user."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Connections to an object store log there how they ended; the error itself comes to us.
    logging.getLogger("asyncio").setLevel(logging.WARNING if verbose else logging.CRITICAL)
    logging.getLogger("recsys").setLevel(logging.INFO if verbose else logging.WARNING)


def set_environment() -> None:
    """Set what torch should find when it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _prepare_process() -> None:
    """What a process that is this command alone may change: how text it cannot encode and last errors are shown."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if "-v" not in sys.argv and "--verbose" not in sys.argv:
        sys.excepthook = lambda kind, error, trace: explain(error, None).show()
        sys.unraisablehook = lambda unraisable: None  # "Exception ignored in ...": of objects torn down at the end
