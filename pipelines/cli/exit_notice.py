"""A last message of a process that is ended without Python being asked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_WAIT = 'read -r line || printf "%s\\n" "$1" >&2'


@contextmanager
def exit_notice(text: str) -> Iterator[None]:
    """Print a text to standard error if the process ends inside the block without leaving it.

    Ray ends the process of a job at once when it loses the node the job is on: nothing in Python can say why. A shell
    waits at a pipe; it reads a line when the block is left, and nothing when the process is gone.
    """
    shell = shutil.which("sh")
    if shell is None:
        yield
        return
    command = [shell, "-c", _WAIT, shell, text]
    # A session of its own: Ctrl-C is for the job, which then leaves the block.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as waiting:
        try:
            yield
        finally:
            waiting.communicate(b"left\n")
