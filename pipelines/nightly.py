"""`recsys nightly`: check, train, challenge, score and publish, each step once; killed, it goes on where it was.

A night is a folder of OUTPUT, and CURRENT in OUTPUT names the night whose lists are in use:

    nights/CURRENT                       2026-11-26-1f3a90c2
    nights/2026-11-26-1f3a90c2/          the date, and the first digits of the fingerprint of its inputs
        night.json                       the inputs, and the result of every finished step
        published                        is there once CURRENT has named this night
        model/ champion/ lists/          the new model, the champion at its start, the lists
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import click

from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.system.atomic import json_text, parse_json
from recsys.system.files import sha256, write_text
from recsys.system.text import plural
from recsys.tracking.mlflow_tracker import parent_run
from recsys.tracking.registry import CHAMPION, ModelAddress, ModelRegistry

from .cli.errors import CommandError
from .cli.options import flatten, options_from, refuse_unknown, setting
from .cli.output import as_json, print_json, say, wrapped
from .cli.progress import activity
from .cli.settings import TrackingOptions

STEPS = ("check", "train", "promote", "score")  # each a command, with a table of its flags
POINTER, STATE, DONE = "CURRENT", "night.json", "published"
_NIGHT = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{8}\Z")

Step = Mapping[str, Any]


@dataclass(frozen=True)
class NightlyJob:
    """The file that says what is done, and the date of the night."""

    file: Path
    date: str = setting("", "Date of the night, YYYY-MM-DD; today by default.")
    force: bool = setting(False, "Begin a new night although nothing has changed since the last one.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)


@dataclass(frozen=True)
class Plan:
    """What the file says: ratings, the registered name, the folder of nights, and the flags of each step."""

    ratings: tuple[str, ...]
    name: str
    output: Path
    warm_start: bool
    flags: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Night:
    """The folder of a night, whether its lists are in use, its steps, and what was decided, in sentences."""

    folder: Path
    published: bool
    steps: Mapping[str, Step]
    said: Sequence[str]


def run(job: NightlyJob) -> Night:
    """Do what is left to be done of this night."""
    plan = read_plan(job.file)
    for step in STEPS:
        command_line(plan, step, plan.output, plan.output)
    with alone(plan.output):
        return _run(job, plan)


def _run(job: NightlyJob, plan: Plan) -> Night:
    inputs = fingerprint(job.file, plan)
    folder, fresh = choose_night(plan.output, inputs, job)
    state = read_state(folder, inputs)
    if not fresh:
        said = [f"Nothing has changed since {folder.name}: nothing to do (--force begins a new night)."]
        return Night(folder, True, state, said)
    folder.mkdir(parents=True, exist_ok=True)
    with job.tracking.open().run(f"nightly {plan.name}", "nightly") as tracked, children_of(tracked.id):
        tracked.log_params({"night": folder.name, "inputs": inputs})
        said = list(work(plan, folder, state, inputs))
        publish(plan.output, folder)
        tracked.set_tags({"recsys.night": folder.name})
    return Night(folder, True, state, [*said, f"Published: {plan.output / POINTER} names {folder.name}."])


def work(plan: Plan, folder: Path, state: dict[str, Any], inputs: str) -> Iterator[str]:
    """Do the steps that are not done; yield what was decided."""
    champion = fetch_champion(plan, folder)
    warm = ["--init-from", str(champion)] if plan.warm_start and champion is not None else []
    for step in STEPS:
        model = folder / "model" if champion is None or _has_taken_over(state) else champion
        more = {"train": warm, "score": previous(plan.output, folder)}.get(step, [])
        if step not in state:
            with activity(f"{folder.name}: {step}"):
                state[step] = outcome(step, command_line(plan, step, folder, model, more))
            write_text(folder / STATE, json_text({"inputs": inputs, "steps": state}))
        if text := sentence(step, state[step]):
            yield text


def outcome(step: str, arguments: Sequence[str]) -> Step:
    """Run a command; a challenger that a gate refuses is an outcome, and no failure of the night."""
    from recsys.errors import GateError

    try:
        return call(arguments)
    except CommandError as error:
        if step == "promote" and isinstance(error.__cause__, GateError):
            return {"champion": None, "reason": str(error.__cause__)}
        raise CommandError(f"{step}: {error.message}") from error


def call(arguments: Sequence[str]) -> Step:
    """Run a command of recsys in this process and return its JSON."""
    from .cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main.main(["--json", *arguments], prog_name="recsys", standalone_mode=False)
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


def sentence(step: str, found: Step) -> str:
    """What a step decided, in words."""
    if step == "train":
        return f"Trained {found['model']}."
    if step == "promote":
        return str(found["reason"])
    if step == "score":
        return f"Lists of {plural(found['manifest']['users'], 'user')} in {plural(found['manifest']['rows'], 'row')}."
    return ""


def _has_taken_over(state: Mapping[str, Step]) -> bool:
    """Whether the new model has taken over."""
    return bool(state.get("promote", {}).get("champion"))


def command_line(plan: Plan, step: str, folder: Path, model: Path, more: Sequence[str] = ()) -> list[str]:
    """The words of a step: its own, then the flags of its table. Raises ConfigError for flags it does not have."""
    from .cli.main import main

    command = main.get_command(click.Context(main), step)
    assert command is not None  # STEPS names commands
    known = {_dashed(option.name): option for option in command.params if option.name}
    flags = {_dashed(key): value for key, value in plan.flags[step].items()}
    refuse_unknown(flags, set(known), f"of [{step}]")
    own = {
        "check": plan.ratings,
        "train": [*plan.ratings, "--output", str(folder / "model"), "--resume", "--register", plan.name],
        "promote": [plan.name, *plan.ratings],
        "score": [str(model), *plan.ratings, "--output", str(folder / "lists"), "--resume"],
    }
    chosen = [word for name, value in flags.items() for word in _words(known[name], value)]
    return [step, *own[step], *more, *chosen]


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _words(option: click.Parameter, value: Any) -> list[str]:
    """A setting of the file as it would be typed."""
    flag = max(option.opts, key=len)
    if isinstance(value, bool):
        return [flag] if value else option.secondary_opts[:1]
    if isinstance(value, Mapping):  # settings of the model
        return [word for name, one in flatten(value).items() for word in (flag, f"{name}={one}")]
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (flag, str(one))]


def read_plan(file: Path) -> Plan:
    """Read the file of the job. Raises ConfigError for anything but what is expected."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"Expected TOML in {file}, found: {error}.") from error
    refuse_unknown(table, {"ratings", "name", "output", "warm_start", *STEPS}, f"in {file}")
    ratings = table.get("ratings")
    ratings = [ratings] if isinstance(ratings, str) else ratings
    if not (isinstance(ratings, list) and ratings and all(isinstance(one, str) for one in ratings)):
        raise ConfigError(f'Expected ratings = "FILE" (or a list of files) in {file}, found {ratings!r}.')
    name, output = table.get("name"), table.get("output", "nights")
    if not (isinstance(name, str) and name and isinstance(output, str)):
        raise ConfigError(f'Expected name = "NAME" of the model in the registry in {file}, found {name!r}.')
    flags = {step: table.get(step, {}) for step in STEPS}
    if wrong := [step for step, own in flags.items() if not isinstance(own, dict)]:
        raise ConfigError(f"Expected a table [{wrong[0]}] of flags in {file}, found {flags[wrong[0]]!r}.")
    if not isinstance(flags["train"].get("test_bucket", flags["train"].get("test-bucket")), float):
        raise ConfigError(f"Expected test_bucket = 0.05 (or another share) in [train] of {file}: users judge by it.")
    return Plan(tuple(ratings), name, Path(output), bool(table.get("warm_start", False)), flags)


def fingerprint(file: Path, plan: Plan) -> str:
    """A digest of everything that decides the night: the file, and the bytes of the ratings."""
    digest = hashlib.sha256(file.read_bytes())
    for place in map(Path, plan.ratings):
        if not place.exists():
            raise DataError(f"Expected ratings at {place}, found nothing.")
        files = sorted(one for one in place.rglob("*") if one.is_file()) if place.is_dir() else [place]
        for one in files:
            digest.update(f"{one.relative_to(place) if place.is_dir() else ''}:{sha256(one)}".encode())
    return digest.hexdigest()


def choose_night(output: Path, inputs: str, job: NightlyJob) -> tuple[Path, bool]:
    """The folder of the night, and whether there is something to do: an unfinished one of the same inputs goes on."""
    nights = sorted(path.name for path in output.iterdir() if _NIGHT.match(path.name)) if output.is_dir() else []
    same, current = [name for name in nights if name.endswith(inputs[:8])], read_current(output)
    if same and not job.force:
        if same[-1] == current:
            return output / same[-1], False
        if not (output / same[-1] / DONE).exists():
            return output / same[-1], True
    try:
        day = date.fromisoformat(job.date) if job.date else date.today()
    except ValueError as error:
        raise ConfigError(f"Expected a date such as 2026-11-26, found {job.date!r}.") from error
    name = f"{day.isoformat()}-{inputs[:8]}"
    if name == current or (output / name / DONE).exists():
        raise ConfigError(f"Expected another date than that of {name}, which is complete.")
    return output / name, True


def read_current(output: Path) -> str | None:
    """The night in use."""
    file = output / POINTER
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def read_state(folder: Path, inputs: str) -> dict[str, Any]:
    """Results of the steps that are done."""
    file = folder / STATE
    if not file.exists():
        return {}
    found = parse_json(file.read_bytes(), file)
    if found.get("inputs") != inputs or not isinstance(found.get("steps"), dict):
        raise ArtifactError(
            f"Expected the steps of this night in {file}, found those of other inputs: remove {folder}."
        )
    steps: dict[str, Any] = found["steps"]
    return steps


def fetch_champion(plan: Plan, folder: Path) -> Path | None:
    """The model folder of the champion as it was at the start of the night; None where there was none."""
    target = folder / "champion"
    if target.exists():
        found = sorted(target.glob("**/model.json"))
        return found[0].parent if found else None
    registry = ModelRegistry()
    address = ModelAddress(plan.name, CHAMPION)
    draft = folder / "champion.draft"
    with activity(f"downloading {address}"):
        if registry.version(address) is not None:
            registry.fetch(address, draft)
    draft.mkdir(exist_ok=True)
    draft.rename(target)
    return fetch_champion(plan, folder)


def previous(output: Path, folder: Path) -> list[str]:
    """The flag that names the lists in use, to measure the overlap with them."""
    current = read_current(output)
    return [] if current in (None, folder.name) else ["--previous", str(output / str(current) / "lists")]


@contextlib.contextmanager
def alone(output: Path) -> Iterator[None]:
    """Refuse a second job in the same folder while one is at work."""
    from filelock import FileLock, Timeout  # comes with torch

    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise ConfigError(f"Expected no other nightly job in {output}, found one at work: wait for its end.") from error


def publish(output: Path, folder: Path) -> None:
    """Let CURRENT name this night, in one step."""
    if read_current(output) != folder.name:
        write_text(output / POINTER, f"{folder.name}\n")
    write_text(folder / DONE, "")


@contextlib.contextmanager
def children_of(run_id: str | None) -> Iterator[None]:
    """Runs opened in the block are children of this one."""
    token = parent_run.set(run_id)
    try:
        yield
    finally:
        parent_run.reset(token)


@click.command("nightly")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options_from(NightlyJob)
def command(job: NightlyJob) -> None:
    """Check, train, challenge, score and publish as FILE (TOML) says; run it again after a crash to go on."""
    night = run(job)
    if as_json():
        print_json({"folder": str(night.folder), "published": night.published, "said": list(night.said)})
        return
    for text in night.said:
        say(wrapped(text))
