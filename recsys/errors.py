"""What can go wrong, as a tree a caller can catch at the height it wants.

RecsysError
├── DataError             the ratings, or another input file, are not what was expected
│   └── NoRatingsError    a minimum rating for a table without ratings
├── ConfigError           a setting is unknown or out of its range
├── UnsupportedError      this model cannot do that (score an unseen user, say)
├── NotFittedError        a model was asked before it learned
├── ArtifactError         a model directory or a batch output is damaged, foreign or in the way
├── StoreError            an object store does not take or give back what a job writes there
├── GateError             the lists are written, and a gate does not let them be published
└── MissingPackageError   an optional package is needed here

Every message says what was expected, what was found and what to do.
"""

from __future__ import annotations


class RecsysError(Exception):
    """Base of all errors raised on purpose by recsys."""


class DataError(RecsysError):
    """The input data are not what was expected."""


class NoRatingsError(DataError):
    """Rows are to be kept by their ratings, and have none."""


class ConfigError(RecsysError):
    """A setting is unknown or out of range."""


class UnsupportedError(RecsysError):
    """The model cannot do what was asked."""


class NotFittedError(RecsysError):
    """The model has no weights yet."""


class ArtifactError(RecsysError):
    """A directory written by recsys is damaged, foreign or in the way."""


class StoreError(RecsysError):
    """An object store does not do what was asked: away, full, or closed to us."""


class GateError(RecsysError):
    """A batch of lists is complete but not fit to be published."""


class MissingPackageError(RecsysError):
    """An optional package is needed for this."""

    def __init__(self, package: str, extra: str):
        super().__init__(f'This needs the package {package}: run  pip install "recsys[{extra}]".')
