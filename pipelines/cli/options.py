"""From the dataclass of a job to its flags, its settings file and back.

A field with a default becomes an option: its type is the option's type, its metadata hold the help. The fields of a
field that is itself a dataclass become options of the same command. `--config FILE` (TOML) gives values by field
name; flags win; an unknown key is an error that names the known ones.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from recsys.errors import ConfigError
from recsys.system.storage import Location, as_location
from recsys.system.toml_files import read_toml

from .destination import try_destinations

_T = TypeVar("_T")

SEED = click.IntRange(0, 2**31 - 1)  # what numpy, torch and implicit all take


class LocationType(click.ParamType):  # type: ignore[type-arg]  # older Clicks take no argument there
    """A local path, or the address of an object store (s3://bucket/key), which is refused unless `addresses`."""

    name = "path"

    def __init__(self, addresses: bool = True):
        self.addresses = addresses

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        """Turn what was typed, or stands in a settings file, into a path or an address."""
        location = as_location(value)
        if isinstance(location, str) and not self.addresses:
            self.fail(f"Expected a local path, found the address {value}: copy the file from or to there.")
        return location


class ShareType(click.ParamType):  # type: ignore[type-arg]  # see above
    """A share above 0 and below 1, as 2% or 0.02."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Turn what was typed into a number."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            self.fail(f"Expected a share above 0 and below 1, such as 2% or 0.02, found {text!r}.")
        return share


def setting(default: Any, help: str, *flags: str, multiple: bool = False, kind: Any = None) -> Any:
    """A field of a job with the help of its option; flags and Click type where its name and type are not enough."""
    metadata = {"help": help, "flags": flags, "multiple": multiple, "kind": kind}
    return dataclasses.field(default=default, metadata=metadata)


def options_from(job: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a Click callback: its options come from the fields of `job`, its one argument is the finished job.

    What the job will write to is tried before the callback runs.
    """

    def decorate(callback: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(callback)
        def command(**flags: Any) -> Any:
            built = build_job(job, flags)
            click.get_current_context().find_root().obj = built  # for messages that name what is written
            try_destinations(built)
            return callback(built)

        for option in reversed(_options(job)):
            command = option(command)
        return click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=_read_config,
            help="Settings in TOML, by the names of the flags; flags win.",
        )(command)

    return decorate


def _options(job: type[Any]) -> list[Callable[..., Any]]:
    hints = typing.get_type_hints(job)
    options: list[Callable[..., Any]] = []
    for item in dataclasses.fields(job):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            options += _options(typing.cast(type[Any], hint))
        elif not (item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING):
            options.append(_option(item, hint))
    return options


def _option(item: dataclasses.Field[Any], hint: Any) -> Callable[..., Any]:
    name = item.name.replace("_", "-")
    is_switch = bool in (hint, *typing.get_args(hint))  # bool, or bool | None: left open
    default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
    flags = item.metadata.get("flags") or (f"--{name}",)
    if is_switch and not any("/" in flag for flag in flags):
        flags = (*flags[:-1], f"{flags[-1]}/--no-{name}" if default else flags[-1])
    return click.option(
        *flags,
        item.name,
        type=None if is_switch else item.metadata.get("kind") or _click_type(hint),
        is_flag=is_switch,
        default=default,
        multiple=item.metadata.get("multiple", False),
        show_default=default is not False and default not in (None, (), ""),
        help=item.metadata.get("help"),
    )


def _click_type(hint: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if Path in inner and str in inner:
        return LocationType()
    if origin in (typing.Union, types.UnionType):
        return _click_type(next(kind for kind in inner if kind is not type(None)))
    if origin is typing.Literal:
        return click.Choice(inner)
    if origin is tuple:
        return _click_type(inner[0])
    return LocationType(addresses=False) if hint is Path else hint


def build_job(job: type[_T], flags: Mapping[str, Any]) -> _T:
    """A job of the values of its flags, as click has checked them."""
    hints = typing.get_type_hints(job)
    values = {}
    for item in dataclasses.fields(typing.cast(Any, job)):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            values[item.name] = build_job(typing.cast(type[Any], hint), flags)
        elif item.name in flags:
            values[item.name] = flags[item.name]
    return job(**values)


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    values = read_toml(path, "settings")
    known = {p.name: p for p in ctx.command.params if p.name and p.expose_value}
    named = {key.replace("-", "_"): value for key, value in values.items()}
    refuse_unknown({_dashed(name): None for name in named}, {_dashed(name) for name in known}, f"in {path}")
    settings = named.get("settings")
    if isinstance(settings, dict):
        named["settings"] = [f"{key}={value}" for key, value in flatten(settings).items()]
    typed = {name: _as_typed(name, value, known[name]) for name, value in named.items()}
    ctx.default_map = {**(ctx.default_map or {}), **typed}


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _as_typed(name: str, value: Any, flag: click.Parameter) -> str | list[str]:
    """A value of TOML as it would be typed, so that the option's own checks apply (1.7 is not an integer).

    A list is given to an option that may be repeated, and joined by commas for any other.
    """
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, (dict, list)) for one in values):
        raise ConfigError(f"Expected a value or a list of values for {name}, found {value!r}.")
    texts = [str(one) for one in values]
    return texts if getattr(flag, "multiple", False) or flag.nargs == -1 else ",".join(texts)


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table as one level, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def refuse_unknown(given: Mapping[str, Any], known: set[str], where: str) -> None:
    """Raise ConfigError for the first unknown key, naming the nearest and all known ones."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"Unknown setting {key!r} {where}.{hint} Known: {', '.join(sorted(known))}.")


def parse_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("l2=500", "vae.beta=0.1")` -> `{"l2": "500", "vae.beta": "0.1"}`; raises ConfigError where `=` is missing."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key.strip() and equals):
            raise ConfigError(f"Expected a setting such as latent=50 (-s), found {pair!r}.")
        settings[key.strip()] = value.strip()
    return settings
