"""Installed packages: their versions, the extras that bring them, and the command that installs an extra."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

from recsys.errors import MissingPackageError

DISTRIBUTION = "recsys-autoencoders"  # the name pip knows; the import is recsys

_ROOT = Path(__file__).resolve().parents[2]
_DECISIVE = ("torch", "numpy", "scipy", "pandas", "pyarrow", "implicit")
_DEVELOPERS = ("all", "dev", "test", "lint", "docs")


def versions() -> dict[str, str]:
    """List the versions of recsys and of the packages that decide its results, by name."""
    found = {"recsys": recsys_version(), **{package: _version(package) for package in _DECISIVE}}
    return {package: version for package, version in found.items() if version}


def recsys_version() -> str | None:
    """Return the version of recsys that pip installed; None where it is used from its folder without installation."""
    return _version(DISTRIBUTION)


def own_requirement() -> str | None:
    """Return the requirement with which pip installs this very copy of recsys on another machine.

    Where pip found it, pip recorded (PEP 610): nothing for an index, else an address.

    Returns
    -------
    str or None
        Pinned: `recsys-autoencoders==0.2.0` of an index, or an address of version control with the commit. None for a
        copy that another machine cannot get: an editable installation, a folder, a file of this machine.
    """
    try:
        installed = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    same = Path(str(installed.locate_file("recsys/system/packages.py"))).resolve() == Path(__file__).resolve()
    if not same or (_ROOT / "setup.py").is_file():
        return None  # used from its source; the metadata may be of another copy
    origin = json.loads(installed.read_text("direct_url.json") or "null")
    if origin is None:
        return f"{DISTRIBUTION}=={installed.version}"
    commit = origin.get("vcs_info", {})
    if not commit or origin["url"].startswith("file:"):
        return None
    return f"{DISTRIBUTION} @ {commit['vcs']}+{origin['url']}@{commit['commit_id']}"


def packages() -> list[tuple[str, str | None, str | None]]:
    """List all packages that recsys can use at run time.

    The list is setup.py's own, as pip recorded it; extras for developers are left out.

    Returns
    -------
    list of (str, str or None, str or None)
        Package, installed version, and the extra that brings it (None: it is always needed).
    """
    found: dict[str, str | None] = {}
    for line in _requirements():
        requirement, _, marker = line.partition(";")
        if "python_version" in marker:
            continue
        name = re.split(r"[\s<>=!~\[(]", requirement, maxsplit=1)[0]
        extra = re.search(r"""extra == ["']([\w-]+)["']""", marker)
        if extra is None or extra[1] not in _DEVELOPERS:
            found.setdefault(name, extra[1] if extra else None)
    return [(name, _version(name), extra) for name, extra in found.items()]


def install_hint(extra: str) -> str:
    """Return the command that installs an extra, right for how this copy of recsys is installed.

    Parameters
    ----------
    extra : str
        A name in `extras_require` of setup.py, such as "ray".

    Returns
    -------
    str
        `pip install "recsys-autoencoders[ray]"`, or the editable installation where recsys is used from its source.
    """
    if not (_ROOT / "setup.py").is_file():
        return f'pip install "{DISTRIBUTION}[{extra}]"'
    folder = Path() if Path.cwd() == _ROOT else _ROOT
    source = f".[{extra}]" if folder == Path() else f"{folder}[{extra}]"
    return f'pip install -c {_quoted(folder / "constraints.txt")} -e "{source}"'


def missing_package(package: str, extra: str) -> MissingPackageError:
    """Return the error to raise where an optional package is needed and not installed, with the way to get it."""
    return MissingPackageError(f"This needs the package {package}: run  {install_hint(extra)}")


def _quoted(path: Path) -> str:
    """The path, in quotes where a shell would cut it."""
    return f'"{path}"' if " " in str(path) else str(path)


def _requirements() -> list[str]:
    """Requirements of the installed distribution; none where recsys was never installed."""
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    """Installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
