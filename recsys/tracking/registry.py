"""MLflow's model registry: versions of a model under one name, and the aliases that say which one is in use.

`champion` is the version in use, `challenger` the one that asks to replace it, `previous` the champion before this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from recsys.errors import ConfigError, RegistryError
from recsys.system.packages import missing_package
from recsys.system.text import mask_secrets
from recsys.tracking.mlflow_client import absolute_uri, kept_model, quiet_mlflow, tracking_uri

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
STATUS = "validation_status"  # MLflow's own name of the tag

_SECONDS = 60  # timeout of a request
_ADDRESS = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[\w.-]+)|/(?P<version>[0-9]+))\Z")
_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelAddress:
    """`models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Attributes
    ----------
    name : str
        Name in the registry.
    which : str
        An alias, or a version's number.
    """

    name: str
    which: str

    @classmethod
    def parse(cls, text: str) -> ModelAddress | None:
        """Read an address; None for anything that does not begin with `models:/`.

        Raises
        ------
        ConfigError
            If it begins so and is none.
        """
        if not text.startswith("models:/"):
            return None
        found = _ADDRESS.match(text)
        if found is None:
            raise ConfigError(f"Expected models:/NAME@ALIAS or models:/NAME/VERSION, found {text!r}.")
        return cls(found["name"], found["alias"] or found["version"])

    def __str__(self) -> str:
        return f"models:/{self.name}{'/' if self.which.isdigit() else '@'}{self.which}"


class ModelRegistry:
    """The registry of an MLflow server or database.

    Unlike tracking, whose failures are warnings, everything here must succeed: what is in use depends on it.

    Parameters
    ----------
    uri : str, optional
        As in `MLflowTracker`.

    Raises
    ------
    MissingPackageError
        If MLflow is not installed.
    """

    def __init__(self, uri: str | None = None):
        self.uri = absolute_uri(tracking_uri(uri))

    def register(self, name: str, run_id: str) -> str:
        """Make a version of the model that a run has kept, once for each run, and let `challenger` name it.

        Parameters
        ----------
        name : str
            It is made where it does not exist.
        run_id : str
            Run of a training.

        Returns
        -------
        str
            The version.

        Raises
        ------
        RegistryError
            If the run has kept no model.
        """

        def call(client: Any) -> str:
            from mlflow.exceptions import MlflowException

            before = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
            if before and STATUS in before[0].tags:
                client.set_registered_model_alias(name, CHALLENGER, before[0].version)
                return str(before[0].version)
            model_id = kept_model(client, run_id)
            if model_id is None:
                raise RegistryError(f"Expected a model kept by the run {run_id}, found none.")
            try:
                client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = (
                before[0]  # by a process that was killed here
                if before
                else client.create_model_version(name, f"models:/{model_id}", run_id=run_id, model_id=model_id)
            )
            client.set_registered_model_alias(name, CHALLENGER, made.version)
            client.set_model_version_tag(name, made.version, STATUS, "pending")  # the last: it says that all is done
            return str(made.version)

        return self._call(f"registering a version of {name}", call)

    def version(self, address: ModelAddress) -> str | None:
        """Return the version that an address names; None where there is none."""

        def call(client: Any) -> str | None:
            from mlflow.exceptions import MlflowException

            try:
                if address.which.isdigit():
                    return str(client.get_model_version(address.name, address.which).version)
                return str(client.get_model_version_by_alias(address.name, address.which).version)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

        return self._call(f"looking for {address}", call)

    def fetch(self, address: ModelAddress, folder: Path) -> Path:
        """Download the model folder of a version.

        Parameters
        ----------
        address : ModelAddress
        folder : Path
            Where to put it.

        Returns
        -------
        Path
            The model folder, below `folder`.

        Raises
        ------
        RegistryError
            If there is no such version, or it is not a model of recsys.
        """
        version = self.version(address)
        if version is None:
            raise RegistryError(
                f"Expected the model {address} in the registry at {mask_secrets(self.uri)}, found none: register one "
                "with  recsys train --register NAME."
            )

        def call(client: Any) -> Path:
            from mlflow.artifacts import download_artifacts

            source = client.get_model_version_download_uri(address.name, version)
            return Path(download_artifacts(source, dst_path=str(folder), tracking_uri=self.uri))

        downloaded = self._call(f"downloading {address}", call)
        found = sorted(downloaded.glob("artifacts/*/model.json"))
        if len(found) != 1:
            raise RegistryError(f"Expected a model of recsys as {address}, found {len(found)} model folders in it.")
        return found[0].parent

    def move_champion(self, name: str, version: str) -> None:
        """Make a version the champion; the champion before it becomes `previous`."""
        before = self.version(ModelAddress(name, CHAMPION))

        def call(client: Any) -> None:
            if before not in (None, version):
                client.set_registered_model_alias(name, PREVIOUS, before)
            client.set_registered_model_alias(name, CHAMPION, version)

        self._call(f"moving the champion of {name}", call)

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias off whatever has it."""
        self._call(f"removing {alias} of {name}", lambda client: client.delete_registered_model_alias(name, alias))

    def set_status(self, name: str, version: str, status: str, reason: str) -> None:
        """Tag a version with the outcome of its validation: passed, failed, ...; and say why in its description."""

        def call(client: Any) -> None:
            client.set_model_version_tag(name, version, STATUS, status)
            client.update_model_version(name, version, reason)

        self._call(f"tagging version {version} of {name}", call)

    def _call(self, what: str, call: Callable[[Any], _T]) -> _T:
        """Call MLflow; whatever it raises becomes a RegistryError."""
        with _errors(what, self.uri), quiet_mlflow(_SECONDS):
            from mlflow import MlflowClient

            return call(MlflowClient(tracking_uri=self.uri, registry_uri=self.uri))


@contextmanager
def _errors(what: str, uri: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_package("mlflow", "mlflow") from error
    except RegistryError:
        raise
    except Exception as error:
        reason = mask_secrets(" ".join(str(error).split()))[:300]
        raise RegistryError(f"MLflow at {mask_secrets(uri)} failed in {what}: {reason}") from error
