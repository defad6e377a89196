"""Installed packages, and the command that installs an extra."""

from importlib import metadata
from pathlib import Path

from paths import ROOT

from recsys.errors import MissingPackageError
from recsys.system import packages
from recsys.system.packages import install_hint, missing_package, own_requirement, recsys_version, versions


def test_packages_come_with_their_version_or_the_extra_that_brings_them(monkeypatch):
    recorded = [
        "torch<3,>=2.6",
        'shim>=2; python_version < "3.11"',
        'implicit<0.8; extra == "baselines"',
        'pytest; extra == "test"',
        'implicit<0.8; extra == "all"',
    ]

    def version(package: str) -> str:
        if package == "implicit":
            raise metadata.PackageNotFoundError
        return "1.2"

    monkeypatch.setattr(metadata, "requires", lambda name: recorded)
    monkeypatch.setattr(metadata, "version", version)
    assert packages.packages() == [("torch", "1.2", None), ("implicit", None, "baselines")]


def test_a_package_that_was_never_installed_names_no_packages(monkeypatch):
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", requires)
    assert packages.packages() == []


def test_versions_name_what_decides_results():
    assert {"torch", "numpy", "scipy", "pandas", "pyarrow"} <= versions().keys()
    assert versions().get("recsys") == recsys_version()


def test_from_a_checkout_an_extra_is_installed_with_its_constraints(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert install_hint("ray") == 'pip install -c constraints.txt -e ".[ray]"'


def test_the_checkout_is_named_where_the_command_is_run_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert install_hint("ray") == f'pip install -c {ROOT / "constraints.txt"} -e "{ROOT}[ray]"'
    (tmp_path / "my code").mkdir()
    (tmp_path / "my code" / "setup.py").touch()
    monkeypatch.setattr(packages, "_ROOT", tmp_path / "my code")
    folder = f"{tmp_path}/my code"
    assert install_hint("ray") == f'pip install -c "{folder}/constraints.txt" -e "{folder}[ray]"'


def test_an_installed_package_names_its_distribution_and_not_a_stranger(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "_ROOT", tmp_path)
    assert install_hint("ray") == 'pip install "recsys-autoencoders[ray]"'
    error = missing_package("jinja2", "report")
    assert isinstance(error, MissingPackageError)
    assert str(error) == 'This needs the package jinja2: run  pip install "recsys-autoencoders[report]"'


def test_every_extra_named_in_the_library_is_one_of_setup():
    extras = (ROOT / "setup.py").read_text(encoding="utf-8").partition("EXTRAS = {")[2]
    for file in Path(ROOT / "recsys").rglob("*.py"):
        for words in file.read_text(encoding="utf-8").split('install_hint("')[1:]:
            assert f'"{words.partition(chr(34))[0]}": [' in extras, file


class Installed:
    """A distribution as pip recorded it."""

    version = "0.2.0"

    def __init__(self, folder, origin=None):
        self._folder, self._origin = folder, origin

    def locate_file(self, name):
        return self._folder / name

    def read_text(self, name):
        assert name == "direct_url.json"
        return self._origin


def test_where_pip_can_install_this_copy_elsewhere_that_is_a_pinned_requirement(monkeypatch, tmp_path):
    def found(origin, folder=ROOT):
        monkeypatch.setattr(metadata, "distribution", lambda name: Installed(folder, origin))
        return own_requirement()

    git = '{"url": "https://host/r.git", "vcs_info": {"vcs": "git", "commit_id": "0123abc"}}'
    assert found(None) is None  # this is a checkout: another machine cannot get it
    monkeypatch.setattr(packages, "_ROOT", tmp_path)
    assert found(None) == "recsys-autoencoders==0.2.0"
    assert found(git) == "recsys-autoencoders @ git+https://host/r.git@0123abc"
    assert found(git.replace("https://host", "file:///home")) is None
    assert found('{"url": "file:///srv/wheel.whl", "archive_info": {}}') is None
    assert found(None, tmp_path) is None  # the metadata are of another copy
