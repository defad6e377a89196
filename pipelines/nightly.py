"""`recsys nightly`: check, train, evaluate, challenge, score and publish; killed, it goes on where it was."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from recsys.artifacts import load_model
from recsys.batch.gates import OF_TWO
from recsys.errors import ConfigError, GateError
from recsys.evaluation.warm_fit import find_origin
from recsys.models.trained import TrainedModel
from recsys.system.files import sha256, write_text
from recsys.system.storage import Location
from recsys.system.text import plural
from recsys.system.toml_files import read_toml
from recsys.tracking.mlflow_tracker import parent_run
from recsys.tracking.registry import CHAMPION, ModelAddress, ModelRegistry
from recsys.tracking.tracker import Run

from .cli.errors import CommandError
from .cli.nights import (
    POINTER,
    STEPS,
    Plan,
    State,
    alone,
    choose_night,
    done_before,
    fingerprint,
    link_folder,
    publish,
    ratings_digest,
    read_current,
    read_plan,
    read_state,
    step_inputs,
)
from .cli.options import flatten, options_from, parse_settings, refuse_unknown, setting
from .cli.output import as_json, print_json, say, wrapped
from .cli.progress import activity
from .cli.settings import TrackingOptions
from .cli.trend import write_trend

TAKEN_OVER = ("check", "train", "evaluate", "score")  # from an earlier night; who is champion is decided every night


@dataclass(frozen=True)
class NightlyJob:
    """The file that says what is done, and the date of the night."""

    file: Path
    date: str = setting("", "Date of the night, YYYY-MM-DD; today by default.")
    force: bool = setting(False, "Begin a new night, and do every step, although nothing has changed.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)


@dataclass(frozen=True)
class Night:
    """The folder of a night, whether its lists are in use, what its steps found, what was decided, and the page."""

    folder: Path
    published: bool
    steps: Mapping[str, Mapping[str, Any]]
    said: Sequence[str]
    trend: Path | None = None


def run(job: NightlyJob) -> Night:
    """Do what is left to be done of this night. Raises GateError, with a page that shows it, where a gate refuses."""
    plan = read_plan(job.file)
    for step in STEPS:
        command_line(plan, step, plan.output, plan.output)
    with alone(plan.output):
        return _run(job, plan)


def _run(job: NightlyJob, plan: Plan) -> Night:
    inputs = fingerprint(job.file, plan)
    folder, fresh = choose_night(plan.output, inputs, job.date, job.force)
    state = read_state(folder, inputs)
    if not fresh:
        publish(plan, folder)  # a killed job may have moved the pointer, and no more
        said = [f"Nothing has changed since {folder.name}: nothing to do (--force begins a new night)."]
        return Night(folder, True, state.steps, said, write_trend(plan))
    folder.mkdir(parents=True, exist_ok=True)
    with job.tracking.open().run(f"nightly {plan.name}", "nightly", state.run_id) as tracked, children_of(tracked.id):
        state.run_id = tracked.id
        state.write()
        tracked.log_params({"night": folder.name, "inputs": inputs})
        try:
            said = list(work(plan, state, job.force))
        finally:
            page = write_trend(plan)
            track(tracked, state, page)
        publish(plan, folder)
    page = write_trend(plan)
    return Night(folder, True, state.steps, [*said, f"Published: {plan.output / POINTER} names {folder.name}."], page)


def track(tracked: Run, state: State, page: Path | None) -> None:
    """Keep the measures of the night, and the page, in its run."""
    tracked.set_tags({"recsys.night": state.folder.name})
    measures = state.result("score").get("manifest", {}).get("measures", {})
    tracked.log_metrics({name: value for name, value in measures.items() if value is not None})
    if page is not None:
        tracked.log_artifact(page)


def work(plan: Plan, state: State, force: bool) -> Iterator[str]:
    """Do the steps that are not done; yield what was decided."""
    folder, ratings = state.folder, ratings_digest(plan)
    champion = fetch_champion(plan, folder)
    warm, why_not = warm_start(plan, champion)
    if why_not:
        yield f"Trained from the beginning: {why_not}"
    for step in STEPS:
        if step not in state.steps:
            model, upstream, more = prepare(step, plan, state, champion, warm)
            inputs = step_inputs(step, plan, ratings, *upstream)
            with activity(f"{folder.name}: {step}"):
                state.steps[step] = do(step, plan, state, inputs, command_line(plan, step, folder, model, more), force)
            state.write()
        if text := sentence(step, state.steps[step]):
            yield text


def prepare(
    step: str, plan: Plan, state: State, champion: Path | None, warm: Sequence[str]
) -> tuple[Path, list[str], list[str]]:
    """The model that a step uses, what comes before it (as digests), and its flags besides those of the file."""
    new = state.folder / "model"
    winner = champion if champion is not None and not state.result("promote").get("promoted") else new
    if step == "train":
        return new, [_stamp(champion) if warm else "", plan.name], list(warm)
    if step == "evaluate":
        return new, [_stamp(new)], []
    if step == "score":
        earlier = previous(plan, state.folder)
        return winner, [_stamp(winner), *earlier], [*earlier, *gates_of(plan, state.folder)]
    return winner, [], []


def _stamp(model: Path | None) -> str:
    """What identifies a model folder: model.json holds the checksums of its other files."""
    return "" if model is None else sha256(model / "model.json")


def do(step: str, plan: Plan, state: State, inputs: str, line: Sequence[str], force: bool) -> dict[str, Any]:
    """Do a step, or take it over from an earlier night of the same inputs; its record."""
    found = None if force or step not in TAKEN_OVER else done_before(plan, state.folder.name, step, inputs)
    if found is None:
        return {"inputs": inputs, "result": outcome(step, line, state), "taken_from": None}
    earlier, record = found
    if step == "train" and (earlier / "model" / "model.json").is_file():
        link_folder(earlier / "model", state.folder / "model")
        return {"inputs": inputs, "result": outcome(step, line, state), "taken_from": earlier.name}  # it is registered
    if step in ("check", "evaluate"):
        return {**record, "taken_from": earlier.name}
    if step == "score" and plan.publish is None and (earlier / "lists" / "manifest.json").is_file():
        link_folder(earlier / "lists", state.folder / "lists")
        return {**record, "taken_from": earlier.name}
    return {"inputs": inputs, "result": outcome(step, line, state), "taken_from": None}


def outcome(step: str, arguments: Sequence[str], state: State) -> Mapping[str, Any]:
    """Run a command; a challenger that a gate refuses is an outcome, and no failure of the night."""
    try:
        found = call(arguments)
    except CommandError as error:
        cause = error.__cause__
        if step == "promote" and isinstance(cause, GateError):
            return {**cause.facts, "promoted": False}
        if step == "score" and isinstance(cause, GateError):
            state.refused = error.message
            state.write()
        raise CommandError(f"{step}: {error.message}") from error
    if step == "score":
        state.refused = ""
    return {**found, "promoted": True} if step == "promote" else found


def call(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Run a command of recsys in this process and return its JSON."""
    from .cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main.main(["--json", *arguments], prog_name="recsys", standalone_mode=False)
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


def sentence(step: str, record: Mapping[str, Any]) -> str:
    """What a step decided, in words."""
    found, before = record["result"], record["taken_from"]
    taken = f" (as in {before}: the inputs are the same)" if before else ""
    if step == "train":
        return f"Trained {found['model']}{taken}."
    if step == "evaluate" and found["metrics"]:
        label, value = next(iter(found["metrics"].items()))
        return f"It reaches {label} {value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}] on {found['who']}."
    if step == "promote":
        return str(found["reason"])
    if step == "score":
        users, rows = (plural(found["manifest"][what], what[:-1]) for what in ("users", "rows"))
        return f"Lists of {users} in {rows}{taken}."
    return ""


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
        "evaluate": [str(model), *plan.ratings],
        "promote": [plan.name, *plan.ratings],
        "score": [str(model), *plan.ratings, "--output", str(plan.lists(folder.name)), "--resume"],
    }
    chosen = [word for name, value in flags.items() for word in _words(known[name], value)]
    return [step, *own[step], *chosen, *more]


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


def fetch_champion(plan: Plan, folder: Path) -> Path | None:
    """The model folder of the champion as it was at the start of the night; None where there was none."""
    target = folder / "champion"
    if target.exists():
        found = sorted(target.glob("**/model.json"))
        return found[0].parent if found else None
    registry = ModelRegistry()
    address = ModelAddress(plan.name, CHAMPION)
    draft = folder / "champion.draft"
    shutil.rmtree(draft, ignore_errors=True)  # half of a download
    with activity(f"downloading {address}"):
        if registry.version(address) is not None:
            registry.fetch(address, draft)
    draft.mkdir(exist_ok=True)
    draft.rename(target)
    return fetch_champion(plan, folder)


def warm_start(plan: Plan, champion: Path | None) -> tuple[list[str], str]:
    """The flags of a training that begins with the champion, and why it cannot, where it should."""
    if not plan.warm_start or champion is None:
        return [], ""
    flags = {_dashed(key): value for key, value in plan.flags["train"].items()}
    chosen = flags.get("settings", {})
    settings = flatten(chosen) if isinstance(chosen, Mapping) else parse_settings(tuple(chosen))
    try:
        saved: TrainedModel = load_model(champion)
        origin = find_origin(saved, None, bool(flags.get("grow", False)))
        assert origin is not None
        origin.create(str(flags.get("model", "")), settings)
    except ConfigError as error:  # another kind of model, or of another size
        return [], str(error)
    return ["--init-from", str(champion)], ""


def previous(plan: Plan, folder: Path) -> list[str]:
    """The flag that names the lists in use, to compare with them."""
    current = read_current(plan.output)
    return [] if current in (None, folder.name) else ["--previous", str(plan.lists(str(current)))]


def gates_of(plan: Plan, folder: Path) -> list[str]:
    """In the first night, the flag of a copy of the gates without those that compare with the lists in use."""
    place: Location | None = plan.flags["score"].get("gates")
    if place is None or previous(plan, folder) or not Path(place).is_file():
        return []
    try:
        table = read_toml(place, "gates")
    except ConfigError:
        return []  # the command says what is wrong with it
    if not set(table) & set(OF_TWO) or not all(isinstance(limits, Mapping) for limits in table.values()):
        return []
    lines = [line for line in _lines(table) if line.partition(" ")[0] not in OF_TWO]
    write_text(folder / "gates.toml", "".join(lines))
    return ["--gates", str(folder / "gates.toml")]


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    """Gates as lines of TOML."""
    for name, limits in table.items():
        sides = ", ".join(f"{side} = {value!r}" for side, value in limits.items())
        yield f"{name} = {{ {sides} }}\n"


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
    """Check, train, evaluate, challenge, score and publish as FILE (TOML) says; run it again after a crash to go on."""
    night = run(job)
    if as_json():
        print_json({"folder": night.folder, "published": night.published, "said": night.said, "trend": night.trend})
        return
    for text in night.said:
        say(wrapped(text))
    if night.trend is not None:
        say(f"Trend: {night.trend}")
