"""Files of settings in TOML."""

from __future__ import annotations

import tomllib
from typing import Any

from recsys.errors import ConfigError
from recsys.system.storage import Location, local_copy


def read_toml(place: Location, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    place : Path or str
        Path or address.
    what : str
        What it holds, for messages: "gates".

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        If there is no file, or it is not TOML.
    """
    try:
        with local_copy(place) as file:
            return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"Expected TOML in {place}, found: {error}.") from error
    except OSError as error:
        raise ConfigError(f"Expected a TOML file of {what} at {place}, found: {error.strerror or error}.") from error
