"""The `recsys` command: a table of names to jobs, each imported only when it is called.

Exit codes: 0 done, 1 the job failed or a gate refused, 2 wrong usage.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import traceback
from typing import Any

import click

# name -> one line of help. The job lives in pipelines/<name>.py, so help needs no import of torch or pandas.
COMMANDS = {
    "check": "Describe a ratings file and account for every row of it.",
    "prepare": "Write a compact, memory-mapped copy of a ratings file.",
    "download": "Fetch a public data set and verify it.",
    "train": "Fit a model, validate it, save it, track the run.",
    "evaluate": "Measure a saved model on held-out data.",
    "compare": "Fit several models on the same split: the leaderboard.",
    "tune": "Search a model's best settings on held-out users.",
    "recommend": "Recommend for one person, on the terminal.",
    "predict": "Predict the ratings of users for items, row by row of a file.",
    "score": "Write the best n items of every user to files.",
    "plan": "Say what training and scoring will need.",
    "demo": "Run the whole road on the sample ratings.",
    "doctor": "Say what this machine can do.",
}


# Read by torch when it is first imported; what the person has set is left alone.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads sleep: spinning makes a busy machine many times slower
    "THP_MEM_ALLOC_ENABLE": "1",  # large pages for large tensors: fresh memory costs a fraction
}


class _Commands(click.Group):
    """Imports a command when it is used; turns our errors into a message and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"..{cmd_name}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"Expected one of the commands {', '.join(COMMANDS)}; found {args[0]!r}.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        from recsys.errors import RecsysError

        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # whoever read the output has enough, as `head` has: Click ends quietly
            raise
        except RecsysError as error:
            _explain(ctx)
            raise click.ClickException(str(error)) from error
        except OSError as error:
            _explain(ctx)
            raise click.ClickException(f"{error.strerror or error}: {error.filename or 'see -v'}") from error


def _explain(ctx: click.Context) -> None:
    if ctx.params.get("verbose"):
        click.echo(traceback.format_exc(), err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-v", "--verbose", is_flag=True, help="Say more; show the traceback of an error.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
@click.version_option(package_name="recsys-autoencoders")
def main(verbose: bool, as_json: bool) -> None:
    """Autoencoder recommendations: from a ratings CSV to a list for everybody."""
    set_environment()
    end_as_by_ctrl_c()
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger().setLevel(logging.WARNING)
    # Connections to an object store log there how they ended; the error itself comes to us.
    logging.getLogger("asyncio").setLevel(logging.WARNING if verbose else logging.CRITICAL)
    logging.getLogger("recsys").setLevel(logging.INFO if verbose else logging.WARNING)


def set_environment() -> None:
    """What torch should find when it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def end_as_by_ctrl_c() -> None:
    """A request to end (SIGTERM, of a scheduler or `kill`) is taken as Ctrl-C is: nothing half-written is left."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
