"""What ends a command: one message, exit code 1, no traceback without -v; flags are added to the library's messages."""

import errno
import sqlite3
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from pipelines import check
from pipelines.cli.errors import with_flags
from pipelines.cli.interrupts import resumable
from pipelines.cli.main import COMMANDS, main
from recsys.errors import ConfigError, EngineError


def check_that_raises(monkeypatch, error, *words):
    """Run a command whose job raises `error`."""

    def fail(job):
        raise error

    monkeypatch.setattr(check, "run", fail)
    return CliRunner().invoke(main, [*words, "check", "ratings.csv"])


class PanicError(BaseException):
    """An error of a library written in Rust: it is no Exception."""


# Exceptions


@pytest.mark.parametrize(
    "error",
    [
        ValueError("of our own making"),
        KeyError("name"),
        ZeroDivisionError("division by zero"),
        RecursionError("maximum recursion depth exceeded"),
        ImportError("cannot import name"),
        AssertionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        StopIteration(),
        PanicError("called `Option::unwrap()` on a `None` value"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_nobody_expected_is_an_internal_error_that_asks_for_a_report(monkeypatch, error):
    result = check_that_raises(monkeypatch, error)
    assert result.exit_code == 1
    assert f"Internal error ({type(error).__name__}" in result.stderr
    assert "please report it with the output of: recsys -v check" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("error", [ValueError("x"), ConfigError("Expected a, found b.")])
def test_the_traceback_is_shown_with_v_only(monkeypatch, error):
    assert "Traceback" not in check_that_raises(monkeypatch, error).output
    assert "in fail" in check_that_raises(monkeypatch, error, "-v").stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "Expected more memory than there is"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "Expected more memory than there is"),
        (OSError(errno.ENOSPC, "No space left on device"), "full"),
        (sqlite3.OperationalError("database or disk is full"), "full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "full"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "gone.csv"),
            "No such file or directory: gone.csv",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/elsewhere/x"), "Permission denied: /elsewhere/x"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_machine_may_do_is_no_internal_error(monkeypatch, error, says):
    result = check_that_raises(monkeypatch, error)
    assert (result.exit_code, says in result.stderr) == (1, True), result.stderr
    assert "Internal error" not in result.output and "Traceback" not in result.output


def test_a_module_that_cannot_be_imported_is_told_without_a_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "pipelines.plan", None)  # what import finds where a module is broken
    result = CliRunner().invoke(main, ["plan"])
    assert result.exit_code == 1
    assert "Internal error (ModuleNotFoundError" in result.stderr and "recsys -v" in result.stderr


def test_a_closed_pipe_is_no_error_of_ours(monkeypatch):
    assert "rror" not in check_that_raises(monkeypatch, BrokenPipeError(errno.EPIPE, "Broken pipe")).output


def test_a_mistyped_command_is_told_the_nearest_one():
    result = CliRunner().invoke(main, ["scroe"])
    assert result.exit_code == 2
    assert "found 'scroe'. Did you mean score?" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_fits_a_terminal(name):
    result = CliRunner().invoke(main, [name, "--help"], terminal_width=80)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80


# Flags


@click.command()
@click.option("--min-rating", type=float)
@click.option("--overwrite", is_flag=True)
@click.option("-n", "n", type=int)
@click.option("--output", "-o")
@click.option("--items")
@click.option("--header/--no-header", default=None)
def some_command(**flags):
    """Some options."""


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        ("Expected min_rating of 1 or more.", "--min-rating"),
        ("Choose another place, or set overwrite.", "--overwrite"),
        ("Lower `n`, or raise min_rating.", "--min-rating, -n"),
        ("Expected no --min-rating here, found min_rating 3.", ""),
        ("Expected items and an output that n users can read.", ""),  # ordinary words
        ("Found the file /data/min_rating/overwrite/x.", ""),  # parts of a path
        ("Expected min_rating_2 and my_min_rating.", ""),
    ],
)
def test_parameters_named_in_a_message_get_the_flags_of_the_command(message, flags):
    added = f" (On the command line: {flags}.)" if flags else ""
    assert with_flags(message, some_command) == message + added


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("min_rating=4 keeps 67% of the rows.", "--min-rating 4 keeps 67% of the rows."),
        ("Set min_rating=4.5, overwrite=True or n=3.", "Set --min-rating 4.5, --overwrite or -n 3."),
        ("Set header=False, not header=True.", "Set --no-header, not --header."),
        ("Write `output='a b'`.", "Write --output 'a b'."),
        ("l2=500 and my_min_rating=4 are other settings.", "l2=500 and my_min_rating=4 are other settings."),
        ("min_rating=4 is not 2: lower min_rating.", "--min-rating 4 is not 2: lower min_rating."),
    ],
)
def test_a_value_given_to_a_parameter_is_shown_as_it_is_typed(message, typed):
    assert with_flags(message, some_command) == typed


def test_a_message_of_the_library_names_flags_of_its_command_alone(tmp_path):
    (tmp_path / "r.csv").write_text("user_id,item_id,rating\nu,a,5\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    result = CliRunner().invoke(main, ["train", str(tmp_path / "r.csv"), "-m", "ease", "-o", str(tmp_path / "full")])
    assert result.exit_code == 1
    assert result.stderr.count("--overwrite") == 1


# Interrupts

INTERRUPTED = """
import os, signal, sys
import pipelines.cli.main as cli

def import_slowly(self, context, name):
    try:
        os.kill(os.getpid(), signal.{signal})
    except KeyboardInterrupt:
        {then}

cli._Commands.get_command = import_slowly
sys.argv = ["recsys", "check", "ratings.csv"]
cli.main()
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("then", ["raise", "raise ImportError('cut short')", "os.kill(os.getpid(), signal.SIGINT)"])
def test_a_signal_during_imports_ends_with_a_word_and_code_1(signal, then):
    code = INTERRUPTED.format(signal=signal, then=then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "Interrupted.\n")


def test_an_interrupted_job_says_how_to_continue_where_it_can():
    for hint, message in (("Add --resume.", "Interrupted. Add --resume."), ("", "Interrupted.")):
        with pytest.raises(click.ClickException) as caught, resumable(lambda hint=hint: hint):
            raise KeyboardInterrupt
        assert (caught.value.message, caught.value.exit_code) == (message, 1)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (EngineError("Ray stopped."), "Ray stopped. Add --resume."),
        (OSError(errno.ENOSPC, "No space left on device"), "full"),
    ],
)
def test_a_dead_cluster_or_a_full_disk_says_how_to_continue(error, says):
    with pytest.raises(click.ClickException) as caught, resumable(lambda: "Add --resume."):
        raise error
    assert says in caught.value.message and caught.value.message.endswith("Add --resume.")
