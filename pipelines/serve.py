"""`recsys serve`: answer requests for recommendations over HTTP, with the model of a folder."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys.artifacts import load_model
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import ConfigError
from recsys.system.packages import missing_package
from recsys.system.storage import Location
from recsys.system.text import plural

from .cli.features import add_new_items
from .cli.models import downloaded, registered
from .cli.options import LocationType, build_job, options_from, refuse_unknown, setting
from .cli.output import say
from .cli.progress import activity
from .cli.reading import read_histories
from .cli.rules import RuleFlags

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

    from recsys.serving.current import CurrentModel
    from recsys.serving.lists import ListMaker

SECONDS_BETWEEN_LOOKS = {"folder": 1.0, "registry": 10.0}  # with --reload
SHORTEST_KEY = 16


@dataclass(frozen=True)
class ServeJob:
    """The model, the users it knows, and the address."""

    model: Location
    ratings: Location | None = setting(None, "Ratings, or a prepared store, with the histories of the known users.")
    titles: Path | None = setting(None, "File of item titles, which answers then carry.")
    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 is every address of this machine.")
    port: int = setting(8000, "Port to listen on; 0 takes a free one.", kind=click.IntRange(0, 65535))
    new_items: Location | None = setting(None, "Table of items that came after training, for a model with features.")
    ruling: RuleFlags = field(default_factory=RuleFlags)
    ui: bool = setting(False, "Also serve a page, at /: choose titles and see the list change.")
    beside: Location | None = setting(None, "Another model, whose lists the page of --ui shows beside those of MODEL.")
    reload: bool = setting(False, "Take over a new model when MODEL, or the folder its file CURRENT names, changes.")
    api_key_file: Path | None = setting(None, "File of API keys, one a line: requests need one in x-api-key.")
    most: int = setting(1000, "Longest list that a request may ask for.", kind=click.IntRange(1))
    timeout: float = setting(10.0, "Seconds until a request is answered by 503.", kind=click.FloatRange(0.01))
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)


def run(job: ServeJob) -> None:
    """Serve until the process is told to end."""
    if job.beside is not None and not job.ui:
        raise ConfigError("Expected --ui together with --beside, whose lists only the page shows.")
    try:
        import uvicorn
    except ImportError as error:
        raise missing_package(str(error.name), "serve") from error
    with listening(job.host, job.port) as place:
        app, current = make_app(job)
        lists = current.loaded.lists
        host, port = place.getsockname()[:2]
        say(
            f"Serving {lists.trained.model.name} {current.loaded.version} ({plural(len(lists.item_ids), 'item')}, "
            f"{plural(lists.n_users, 'known user')}) on http://{host}:{port} - Ctrl-C ends it."
        )
        gc.collect()
        gc.freeze()  # of what lives as long as the process: looking through it again took 100 ms, four times a second
        settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn passes on after the last answer
            uvicorn.Server(settings).run(sockets=[place])


def make_app(job: ServeJob) -> tuple[FastAPI, CurrentModel]:
    """The application, and the model that it answers with."""
    try:
        from recsys.serving.current import CurrentModel
        from recsys.serving.gatekeeper import ServiceMetrics
        from recsys.serving.http import Limits, create_app
    except ImportError as error:
        raise missing_package(str(error.name), "serve") from error
    keys = () if job.api_key_file is None else read_keys(job.api_key_file)
    titles = {} if job.titles is None else read_titles(job.titles)
    metrics = ServiceMetrics()

    def opened(model: Location) -> CurrentModel:
        made = CurrentModel(stamp_of(model), lambda: load_lists(job, model, titles), metrics.count_reload)
        if job.reload:
            made.watch(SECONDS_BETWEEN_LOOKS["folder" if registered(model) is None else "registry"])
        return made

    current, beside = opened(job.model), None if job.beside is None else opened(job.beside)
    return create_app(current, Limits(n=job.most, seconds=job.timeout), keys, metrics, job.ui, beside), current


def on_ray(arguments: Mapping[str, str]) -> Application:
    """The same application for Ray Serve: `serve run pipelines.serve:on_ray model=MODEL ratings=FILE`.

    Parameters
    ----------
    arguments : mapping
        Settings by the names of the flags of `recsys serve`, and `model`. Ray listens, so there is no host and no port.
        Every replica loads the model for itself; `replicas` says how many there are (1 if not given).
    """
    try:
        from ray import serve
    except ImportError as error:
        raise missing_package(str(error.name), "ray-serve") from error
    texts = {name.replace("-", "_"): str(value) for name, value in arguments.items()}
    replicas, model = texts.pop("replicas", "1"), texts.pop("model", None)
    known = {item.name for item in command.params if item.name and item.expose_value} - {"host", "port"}
    refuse_unknown(texts, known, "for Ray Serve")
    if model is None or not replicas.isdigit() or int(replicas) == 0:
        raise ConfigError(f"Expected model=MODEL and replicas of at least 1, found model {model} and {replicas}.")
    with command.make_context("serve", [model], default_map=texts) as context:
        job = build_job(ServeJob, context.params)

    replica = serve.ingress(lambda: make_app(job)[0])()
    bound: Application = serve.deployment(replica, name="recsys", num_replicas=int(replicas)).bind()
    return bound


def stamp_of(model: Location) -> Callable[[], str]:
    """What says whether MODEL is another now: a digest of its folder, or the version that its alias names."""
    from recsys.serving.current import folder_stamp

    address = registered(model)
    if address is None:
        return lambda: folder_stamp(model)
    from recsys.tracking.registry import ModelRegistry

    registry = ModelRegistry()
    return lambda: registry.version(address) or ""


def load_lists(job: ServeJob, model: Location, titles: Mapping[str, str]) -> ListMaker:
    """A model with the histories of the users it knows, read as its training was."""
    from recsys.serving.current import model_folder
    from recsys.serving.lists import ListMaker

    with activity(f"loading {model}"), downloaded(model) as folder:
        saved = add_new_items(load_model(model_folder(folder), job.device), job.new_items)
    histories = None if job.ratings is None else read_histories(saved, job.ratings, job.reading)
    return ListMaker(saved, histories, titles, job.ruling.read(saved))


def read_keys(file: Path) -> list[str]:
    """The API keys of a file. Its text is in no message: it is secret."""
    try:
        keys = [line.strip() for line in file.read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"Expected a file of ASCII text with API keys, found none that can be read: {file}."
        ) from error
    if not keys or min(map(len, keys)) < SHORTEST_KEY:
        raise ConfigError(f"Expected API keys of at least {SHORTEST_KEY} characters in {file}, one a line.")
    return keys


def listening(host: str, port: int) -> socket.socket:
    """A socket of this address, before anything is loaded for it."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        place = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. Without it an answer's body waits 40 ms for the acknowledgment of its headers: asyncio
        # sets it only on sockets whose protocol number is that of TCP, and create_server leaves it at 0.
        place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return place
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"Expected a free port on {host}, found {port}: {reason}. Give another --port.") from error


@click.command("serve")
@click.argument("model", type=LocationType())
@options_from(ServeJob)
def command(job: ServeJob) -> None:
    """Answer requests for recommendations over HTTP with the model directory MODEL."""
    run(job)
