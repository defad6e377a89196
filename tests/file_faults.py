"""Faults before the n-th file operation on a folder: an error, Ctrl-C, or the end of the process.

Python reports file operations to audit hooks before it does them; what other languages write (safetensors, Arrow) is
reported by the tests themselves with `sys.audit("recsys.test", path)`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Faults:
    """Counts file operations below a folder, and acts before the one whose number is `at`."""

    def __init__(self) -> None:
        self.folder, self.at, self.count = "", 0, 0
        self.act: Callable[[], None] | None = None
        sys.addaudithook(self._hook)  # hooks stay for the life of the process: this one sleeps without `act`

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.act is None or not self._counts(event, arguments):
            return
        self.count += 1
        if self.count == self.at:
            act, self.act = self.act, None
            act()

    def _counts(self, event: str, arguments: tuple[object, ...]) -> bool:
        if event == "ctypes.dlsym":
            return "renameat2" in arguments
        if event in ("os.remove", "os.rmdir") and isinstance(arguments[-1], int) and arguments[-1] >= 0:
            return True  # within shutil.rmtree, by names relative to an open folder
        return (event in ("open", "recsys.test", "shutil.rmtree") or event.startswith("os.")) and any(
            isinstance(each, str | bytes | Path) and os.fsdecode(each).startswith(self.folder) for each in arguments
        )

    def before(self, number: int, act: Callable[[], None], folder: Path) -> None:
        """Act before the operation of this number, from now on."""
        self.folder, self.at, self.count, self.act = str(folder), number, 0, act

    def fsync(self, handle: int) -> None:
        """Stands for os.fsync: an operation that can fail, without the time a disk takes."""
        sys.audit("recsys.test", self.folder)

    def stop(self) -> bool:
        """Whether it has acted; nothing more happens."""
        acted, self.act = self.act is None, None
        return acted


def raise_error(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_before_each(write: Callable[[], None], folder: Path, check: Callable[[int], None]) -> int:
    """Run `write` in a child process, killed before its first file operation, then its second, ...; check after each.

    Returns how many children were killed. The process must have no other threads.
    """
    faults = Faults()
    for number in range(1, 10_000):
        child = os.fork()
        if child == 0:
            faults.before(number, kill, folder)
            write()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        check(number)
        if status == 0:
            return number - 1
        assert os.WIFSIGNALED(status), f"the child ended by itself with {status}"
    raise AssertionError("it never ended")
