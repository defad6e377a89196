"""A model's Config from settings by name, and the checks that configs share."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from recsys.errors import ConfigError

LARGEST = 2**31 - 1  # of a whole number: sizes, and products of two of them, must fit in 64 bits


def make_config(config: type[Any], settings: Mapping[str, Any], model: str) -> Any:
    """Create a Config from settings by name.

    Parameters
    ----------
    config : type
        A dataclass.
    settings : mapping
        Values by field; text is converted to the field's type. `none` and `auto` stand for None where it is allowed.
    model : str
        Name of the model, for messages.

    Returns
    -------
    config
        An instance.

    Raises
    ------
    ConfigError
        If a name is unknown or a value does not fit.
    """
    hints = typing.get_type_hints(config)
    known = {item.name: hints[item.name] for item in dataclasses.fields(config)}
    for key in settings:
        if key not in known:
            raise ConfigError(f"{model} has no setting {key!r}. It has: {', '.join(known) or 'none'}.")
    return config(**{key: _convert(value, known[key], f"{model}.{key}") for key, value in settings.items()})


def _convert(value: Any, hint: Any, name: str) -> Any:
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    optional = len(typing.get_args(hint)) > len(kinds)
    if optional and (value is None or (isinstance(value, str) and value.lower() in ("none", "auto"))):
        return None
    if typing.get_origin(hint) is typing.Literal:
        return value  # the config itself checks it
    kind = kinds[0]
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        if kind is int:
            number = value if isinstance(value, int) else float(value)
            if number != int(number):
                raise ValueError
            if abs(number) > LARGEST:
                raise ConfigError(f"Expected {name} of at most {LARGEST:,}, found {value!r}.")
            return int(number)
        converted = kind(value)
        if kind is float and not math.isfinite(converted):
            raise ValueError
        return converted
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigError(f"Expected {name} to be of type {kind.__name__}, found {value!r}.") from error


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_training(
    dropout: float, epochs: int, batch_size: int | None, learning_rate: float, l2: float, average: float = 0.0
) -> None:
    """Check the settings that all autoencoders trained by gradients share; ConfigError for the first that is wrong."""
    require(0 <= dropout < 1, f"Expected dropout in [0, 1), found {dropout}.")
    require(epochs >= 1, f"Expected epochs of at least 1, found {epochs}.")
    require(batch_size is None or batch_size >= 1, f"Expected batch_size of at least 1, found {batch_size}.")
    require(learning_rate > 0, f"Expected learning_rate above 0, found {learning_rate}.")
    require(l2 >= 0, f"Expected l2 of 0 or more, found {l2}.")
    require(0 <= average < 1, f"Expected average in [0, 1), found {average}.")
