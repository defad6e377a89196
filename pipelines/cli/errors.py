"""From any exception to what a person reads: one message and exit code 1; no traceback without -v.

The library names parameters (`min_rating`). The flags of the running command are added here (`--min-rating`).
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from recsys.system.text import mask_secrets

from .output import program, say, shorten

MEMORY_TEXTS = ("can't allocate memory", "out of memory", "cannot allocate memory", "failed to map segment")
# Parameters of one word that messages may name without `=`; others are ordinary words.
WORDS = ("overwrite", "resume")
QUOTES = "\"'"


class CommandError(click.ClickException):
    """What went wrong, in a message for a person."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to standard error."""
        say(f"Error: {mask_secrets(self.format_message())}", err=True)


class CommandInterruptedError(CommandError):
    """The command was ended by Ctrl-C or SIGTERM."""

    def __init__(self, hint: str = ""):
        super().__init__(f"Interrupted. {hint}".rstrip())

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to standard error: it is no error."""
        say(self.format_message(), err=True)


def explain(error: BaseException, command: click.Command | None, output: object = None) -> CommandError:
    """The message for an exception of a job. `output`: what the job writes, for errors that do not name a file."""
    from recsys.errors import RecsysError

    if isinstance(error, RecsysError):
        return CommandError(with_flags(str(error), command))
    if isinstance(error, Exception) and (refused := _refused_by_disk(error, output)):
        return CommandError(str(refused))
    if lack := _lack_of_memory(error):
        return CommandError(f"Expected more memory than there is: {lack}.")
    if isinstance(error, OSError) and error.strerror:
        return CommandError(f"{error.strerror}: {_printable_path(error.filename) or 'run it with -v to see where'}")
    name = "" if command is None else f" {command.name} ..."
    return CommandError(
        f"Internal error ({type(error).__name__}: {_first_line(error)}). This is a fault of recsys: please report it "
        f"with the output of: {program()} -v{name}"
    )


def with_flags(message: str, command: click.Command | None) -> str:
    """The message with flags of the command for the parameters it names.

    `min_rating=4` becomes `--min-rating 4`; of parameters that are named alone the flags follow once, at the end.
    """
    flags: list[str] = []
    said = message.partition(" Known: ")[0]  # what is listed there is no advice
    for option in command.params if command else ():
        if isinstance(option, click.Option) and option.name:
            flag = max(option.opts, key=len)
            opposite = max(option.secondary_opts, key=len, default=flag)
            message = _as_typed(message, option.name, flag, opposite if option.is_flag else None)
            if _is_named(option.name, said) and flag not in message and flag not in flags:
                flags.append(flag)
    return f"{message} (On the command line: {', '.join(flags)}.)" if flags else message


def _as_typed(message: str, name: str, flag: str, opposite: str | None) -> str:
    """`name=value` in a message as it is typed; `opposite`: the flag for False, None where a flag takes a value."""
    value = r"""("[^"]*"|'[^']*'|[\w+-]+(?:[.,][\w+-]+)*)"""

    def typed(found: re.Match[str]) -> str:
        if opposite is not None:
            return opposite if found[1] == "False" else flag
        return f"{flag} {shlex.quote(found[1].strip(QUOTES))}"

    return re.sub(rf"(?<![\w/.-])`?{re.escape(name)}={value}`?", typed, message)


def _is_named(name: str, message: str) -> bool:
    word = re.escape(name)
    if "_" in name or name in WORDS:
        return re.search(rf"(?<![\w/.-]){word}(?![\w/-])", message) is not None
    return f"`{name}`" in message


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _refused_by_disk(error: Exception, output: object) -> Exception | None:
    """The error to show where a disk is behind another one, and no writer has said so."""
    from recsys.system.disk import storage_error

    for link in _chain(error):
        file = getattr(link, "filename", None)
        is_full = getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        in_words = file is None and not isinstance(link, OSError)  # of a library; a system error may be of reading
        is_of_output = isinstance(output, Path) or is_full or in_words
        if isinstance(link, Exception) and is_of_output:
            place = output if isinstance(output, Path) else Path(_printable_path(file) or Path.cwd())
            if (refused := storage_error(link, place)) is not None:
                return refused
    return None


def _lack_of_memory(error: BaseException) -> str | None:
    """What shows that memory ran out; None where nothing does."""
    for link in _chain(error):
        text = _first_line(link)
        if isinstance(link, MemoryError):
            return text or "it ran out"
        if isinstance(link, (RuntimeError, ImportError, OSError)) and any(t in str(link).lower() for t in MEMORY_TEXTS):
            return text
    return None


def _printable_path(place: object) -> str:
    return os.fsdecode(place) if isinstance(place, (str, bytes, os.PathLike)) else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return shorten(lines[0].rstrip("."), 200) if lines else ""
