"""Commands that write, ended at any moment: by a kill, a full disk, an error or Ctrl-C before any file operation.

A trial runs the command in a fork of this process, which has imported everything already, and then looks at the place
it wrote to: there must be nothing, the old content, the new content, or an unfinished job that can be resumed. The
command is then run again and must end with the content of an undisturbed run, with nothing left over.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

KINDS = ("kill", "full disk", "error", "interrupt")
SETTINGS = ("--no-track",)
VAE = ("vae", "-s", "epochs=3", "-s", "latent=4", "-s", "hidden=8")


@dataclass(frozen=True)
class Command:
    """A command that writes to `out`: its words, how its content is read, and what differs in an older run of it."""

    name: str
    words: tuple[str, ...]
    content: Callable[[Path], Any]
    older: tuple[str, ...]
    resume: bool = False
    suffix: str = ""
    overwrite: bool = True
    companions: tuple[str, ...] = ()  # other files of its output, beside `out`


@dataclass(frozen=True)
class Outcome:
    """What a trial showed; `problem` is empty where all was as it must be."""

    command: str
    kind: str
    state: str
    problem: str = ""


@dataclass
class Fault:
    """What happens before the file operation number `at` on something in `folder`; without `at` they are counted."""

    folder: Path
    kind: str = ""
    at: int | None = None
    count: int = field(default=0)

    def strike(self) -> None:
        self.count += 1
        if self.at is None or self.count != self.at:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "interrupt":
            raise KeyboardInterrupt
        number = errno.ENOSPC if self.kind == "full disk" else errno.EIO
        raise OSError(number, os.strerror(number), str(self.folder / "out"))

    def concerns(self, values: Any) -> bool:
        return any(isinstance(value, str | os.PathLike) and str(self.folder) in os.fspath(value) for value in values)

    def install(self) -> None:
        """Wrap the file operations of Python, and those of the libraries that write by themselves."""
        for module, name in (
            *((os, name) for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync", "link", "symlink")),
            (importlib.import_module("pyarrow.parquet"), "write_table"),
            (importlib.import_module("recsys.artifacts"), "save_file"),
            (np, "save"),
        ):
            setattr(module, name, self._wrapped(getattr(module, name), name == "fsync"))
        writer = importlib.import_module("pyarrow.parquet").ParquetWriter
        for name in ("__init__", "write_table", "close"):
            setattr(writer, name, self._wrapped(getattr(writer, name), True))
        opened = io.open

        def open_(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if set(mode) & set("wax+") and self.concerns([file]):
                self.strike()
            return opened(file, mode, *rest, **more)

        io.open = builtins.open = open_  # type: ignore[assignment]

    def _wrapped(self, function: Callable[..., Any], always: bool) -> Callable[..., Any]:
        def wrapped(*values: Any, **more: Any) -> Any:
            if always or self.concerns([*values, *more.values()]):
                self.strike()
            return function(*values, **more)

        return wrapped


def run_in_fork(words: list[str], fault: Fault | None = None, kill_after: float | None = None) -> tuple[int, str]:
    """Run a command in a fork; its exit code (minus the signal that ended it) and what it said."""
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os._exit(_in_child(words, said.fileno(), fault))
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode("utf-8", "replace")


class Laboratory:
    """A folder with ratings and models, and the content that every command makes there undisturbed.

    `names`: some of the commands, all if not given.
    """

    def __init__(self, folder: Path, names: Sequence[str] = ()):
        self.folder, self.names = folder, names
        folder.mkdir(parents=True, exist_ok=True)
        write_ratings(folder / "ratings.csv")
        pd.read_csv(folder / "ratings.csv")[["user_id", "item_id"]].to_csv(folder / "pairs.csv", index=False)
        (folder / "titles.csv").write_text("item_id,title\ni1,One\n", encoding="utf-8")
        for name, *model in (("ease", "ease"), ("stars", "biases"), ("vae", *VAE)):
            words = ["train", str(folder / "ratings.csv"), "-m", *model, "-o", str(folder / name)]
            code, text = self.run([*words, *SETTINGS])
            assert code == 0, text
        known = [command.name for command in self._commands()]
        assert set(names) <= set(known), f"expected some of {known}, found {names}"
        self.expected = {command.name: self._undisturbed(command) for command in self.commands}

    @property
    def commands(self) -> list[Command]:
        """The commands that write."""
        return [command for command in self._commands() if not self.names or command.name in self.names]

    def _commands(self) -> list[Command]:
        """All of them."""
        ratings, ease = str(self.folder / "ratings.csv"), str(self.folder / "ease")
        generate = "generate", str(self.folder / "vae"), ratings, "--users", "20", "--no-report"
        pairs = "predict", str(self.folder / "stars"), str(self.folder / "pairs.csv"), "--ratings", ratings
        return [
            Command("prepare", ("prepare", ratings), store_content, ("--min-user-items", "3")),
            Command("train ease", ("train", ratings, "-m", "ease", *SETTINGS), model_content, ("-s", "l2=7")),
            Command(
                "train vae",
                ("train", ratings, "-m", *VAE, *SETTINGS),
                model_content,
                ("--seed", "5"),
            ),
            Command(
                "tune",
                ("tune", ratings, "-m", "ease", "-n", "3", *SETTINGS),
                tune_content,
                ("--seed", "5"),
                resume=True,
            ),
            Command(
                "compare", ("compare", ratings, "-m", "popularity,ease", *SETTINGS), compare_content, ("--seed", "5")
            ),
            Command("evaluate", ("evaluate", ease, ratings, *SETTINGS), evaluate_content, ("--seed", "5")),
            Command("predict", pairs + SETTINGS, file_content, (), suffix=".csv"),
            Command("generate", generate, file_content, ("--seed", "5"), suffix=".csv"),
            Command(
                "encode",
                ("encode", ease, "--items"),
                file_content,
                ("--compress", "int8"),
                resume=True,
                suffix=".parquet",
            ),
            Command("map", ("map", ease), file_content, ("--clusters", "2"), suffix=".html"),
            Command(
                "explore",
                ("explore", ease),
                file_content,
                ("--titles", str(self.folder / "titles.csv")),
                suffix=".html",
            ),
            Command(
                "audit",
                ("audit", ease, ratings, "--no-track"),
                file_content,
                ("--seed", "5"),
                suffix=".parquet",
                companions=("out-users.parquet", "out-items.parquet", "out.html"),
            ),
            Command(
                "score",
                ("score", ease, ratings, "-n", "5", "--shard-users", "10", *SETTINGS),
                lists_content,
                ("-n", "4"),
                True,
            ),
            Command(
                "score --reasons 2",
                ("score", ease, ratings, "-n", "5", "--reasons", "2", *SETTINGS),
                lists_content,
                ("-n", "4"),
                True,
            ),
        ]

    run = staticmethod(run_in_fork)

    def _undisturbed(self, command: Command) -> dict[str, Any]:
        """Content of the command and of an older run, seconds and file operations of a run."""
        place = self.folder / "undisturbed"
        found: dict[str, Any] = {}
        for kind, more in (("old", command.older), ("new", ())):
            out = place / f"{kind}-{command.name.replace(' ', '-')}" / f"out{command.suffix}"
            out.parent.mkdir(parents=True)
            started = time.perf_counter()
            code, text = self.run([*command.words, *more, "-o", str(out)])
            assert code == 0, text
            found |= {kind: command.content(out), f"{kind} place": out, "seconds": time.perf_counter() - started}
        out = place / "counted" / f"out{command.suffix}"
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        code, text = self.run([*command.words, "-o", str(out)], Fault(out.parent))
        found["operations"] = int(text.rsplit("operations ", 1)[1])
        return found

    def trial(
        self,
        command: Command,
        kind: str,
        at: int | None = None,
        kill_after: float | None = None,
        over_old: bool = False,
    ) -> Outcome:
        """Disturb one run, look, run again, look again."""
        expected, folder = self.expected[command.name], self.folder / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        out = folder / f"out{command.suffix}"
        if over_old:
            old = expected["old place"]
            (shutil.copytree if old.is_dir() else shutil.copy2)(old, out)
        words = [*command.words, "-o", str(out)]
        again = ["--overwrite"] if over_old and command.overwrite else []
        fault = None if at is None else Fault(folder, kind, at)
        code, text = self.run(words + again, fault, kill_after)
        state = state_of(command, out, expected)
        told = Outcome(command.name, kind, state)
        if "Traceback" in text or "Internal error" in text:
            return Outcome(command.name, kind, state, f"at {at}: {text[-600:]}")
        if state not in ({"old", "new", "unfinished"} if over_old else {"nothing", "new", "unfinished"}):
            return Outcome(command.name, kind, state, f"at {at} over_old={over_old}: {text[-600:]}")
        if state == "unfinished" and not command.resume:
            return Outcome(command.name, kind, state, f"at {at}: cannot be resumed; {text[-600:]}")
        if code == 0 and state != "new":
            return Outcome(command.name, kind, state, f"at {at}: exit code 0 without the content; {text[-600:]}")
        if state == "unfinished":
            more = ["--resume"]
        else:
            more = [] if state == "nothing" or not command.overwrite else ["--overwrite"]
        code, text = self.run(words + more)
        if code != 0 and "--resume" in more and state == "unfinished":  # the old job's trials or plan
            code, text = self.run([*words, "--overwrite"])
        if code != 0:
            return Outcome(command.name, kind, state, f"at {at}: run again with {more}: {text[-600:]}")
        if state_of(command, out, expected) != "new":
            return Outcome(command.name, kind, state, f"at {at}: another content after running again")
        left = sorted(path.name for path in folder.iterdir() if path.name not in (out.name, *command.companions))
        return Outcome(command.name, kind, state, f"at {at}: left over {left}") if left else told


def _in_child(words: list[str], said: int, fault: Fault | None) -> int:
    from pipelines.cli.main import main

    speak_into(said)
    sys.argv = ["recsys", *words]
    if fault is not None:
        fault.install()
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        print(f"Traceback reached the caller: {error!r}")
        code = 70
    if fault is not None and fault.at is None:
        print(f"operations {fault.count}")
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def speak_into(file: int) -> None:
    """Let this process, a fork perhaps of a captured one, write its output to an open file."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(file, number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False))


def import_everything() -> None:
    """What a fork should find imported."""
    for name in (
        "prepare",
        "train",
        "tune",
        "compare",
        "evaluate",
        "predict",
        "generate",
        "score",
        "encode",
        "map",
        "explore",
        "audit",
    ):
        importlib.import_module(f"pipelines.{name}")
    for name in ("optuna", "jinja2", "implicit.als", "torch._dynamo", "sklearn.cluster", "sklearn.manifold"):
        importlib.import_module(name)


def state_of(command: Command, out: Path, expected: dict[str, Any]) -> str:
    """`nothing`, `old`, `new`, `unfinished`, or what is wrong."""
    if not out.exists() and out.with_name(f"{out.name}.parts").exists():
        return "unfinished"
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return "nothing"
    try:
        found = command.content(out)
    except Exception as error:
        return f"unreadable: {error}"
    if found is None:
        return "unfinished"
    return next((kind for kind in ("new", "old") if found == expected[kind]), "other content")


def write_ratings(file: Path) -> None:
    """Sixty users, sixteen items, two tastes."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{2 * item + user % 2}", rating)
        for user in range(60)
        for item, rating in zip(rng.permutation(8)[:5], rng.integers(1, 6, 5), strict=True)
    ]
    pd.DataFrame(rows, columns=["user_id", "item_id", "rating"]).to_csv(file, index=False)


# Contents: equal for equal results, None for an unfinished job


def store_content(place: Path) -> Any:
    from recsys.data.store import open_store

    return open_store(place).fingerprint()


def model_content(place: Path) -> Any:
    from recsys.artifacts import load_model

    trained = load_model(place, "cpu")
    return {name: tensor.numpy().tobytes() for name, tensor in trained.model.get_state().items()}


def tune_content(place: Path) -> Any:
    best = place / "ease.toml"
    return best.read_text() if best.is_file() and (place / "trials.csv").is_file() else None


def compare_content(place: Path) -> Any:
    board = pd.read_csv(place / "leaderboard.csv")
    assert (place / "report.html").read_text().rstrip().endswith("</html>")
    json.loads((place / "comparison.json").read_text())
    return pd.read_parquet(place / "per_user.parquet").to_csv(), board[["model", "ndcg@100"]].to_csv()


def evaluate_content(place: Path) -> Any:
    assert (place / "report.html").read_text().rstrip().endswith("</html>")
    return json.dumps(json.loads((place / "evaluation.json").read_text())["models"][0]["metrics"])


def file_content(place: Path) -> Any:
    return place.read_bytes()


def lists_content(place: Path) -> Any:
    if not (place / "manifest.json").is_file():
        return None
    manifest = json.loads((place / "manifest.json").read_text())
    files = sorted(file for folder in ("recommendations", "short_lists") for file in (place / folder).iterdir())
    assert manifest["users"] == 60
    return [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
