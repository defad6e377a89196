"""The errors that recsys raises on purpose, as a tree: catch as much of it as you want.

RecsysError
├── DataError             the ratings, or another input file, are not what was expected
│   ├── NoRowsLeftError   readable rows were found, and the thresholds left none of them
│   └── NoRatingsError    a minimum rating was given for a table without ratings
├── ConfigError           a setting is unknown or out of its range
├── UnsupportedError      this model cannot do that (score a new user, for example)
├── NotFittedError        a model was used before it was fitted
├── ArtifactError         a model directory or another output is damaged, not from recsys, or in the way
├── StorageError          a disk or an object store does not take what is written to it: full, read-only, refused
├── EngineError           the cluster that does the work stopped
├── GateError             what is made is complete, and a gate refuses to publish it
├── RegistryError         the model registry fails, or does not have what was asked for
└── MissingPackageError   an optional package is needed and not installed

Every message says what was expected, what was found and what to do, in terms of the library's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RecsysError(Exception):
    """Base of all errors that recsys raises on purpose."""


class DataError(RecsysError):
    """The input data are not what was expected."""


class NoRowsLeftError(DataError):
    """Readable rows were found, and the thresholds left none of them."""


class NoRatingsError(DataError):
    """A minimum rating was given for interactions without ratings."""


class ConfigError(RecsysError):
    """A setting is unknown or out of range."""


class UnsupportedError(RecsysError):
    """The model cannot do what was asked."""


class NotFittedError(RecsysError):
    """The model has no weights yet."""


class ArtifactError(RecsysError):
    """A directory written by recsys is damaged, not from recsys, or in the way."""


class StorageError(RecsysError):
    """A disk or an object store does not take what is written to it: full, read-only, or access refused."""


class EngineError(RecsysError):
    """The engine of a job (a Ray cluster) stopped working; what is written stays."""


class GateError(RecsysError):
    """What was made (lists, a model) is complete, and a gate refuses to publish it.

    Attributes
    ----------
    facts : dict
        What was measured, for programs; may be empty.
    """

    def __init__(self, message: str, facts: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.facts = dict(facts or {})


class RegistryError(RecsysError):
    """The model registry fails, or does not have what was asked for."""


class MissingPackageError(RecsysError):
    """An optional package is needed here and not installed."""
