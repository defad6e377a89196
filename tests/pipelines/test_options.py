"""A job's fields are its flags, its settings file and nothing else."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.cli.options import SEED, LocationType, flatten, options_from, parse_settings, refuse_unknown, setting
from recsys.errors import ConfigError
from recsys.system.storage import Location


@dataclass(frozen=True)
class Inner:
    seed: int = setting(3, "A number.", kind=SEED)
    header: bool | None = setting(None, "Said, denied or left open.", "--header/--no-header")


@dataclass(frozen=True)
class Job:
    source: Path
    n: int = setting(10, "Length.", "-n")
    kind: Literal["a", "b"] = setting("a", "Which.")
    limit: float | None = setting(None, "Maybe.")
    fast: bool = setting(False, "A switch.")
    track: bool = setting(True, "A switch that is on.")
    settings: tuple[str, ...] = setting((), "Many.", "-s", multiple=True)
    inner: Inner = field(default_factory=Inner)


def job_from(*words: str) -> Job:
    made = []

    @click.command()
    @click.argument("source", type=click.Path(path_type=Path))
    @options_from(Job)
    def command(job: Job) -> None:
        made.append(job)

    done = CliRunner().invoke(command, list(words))
    if done.exception is not None:
        raise done.exception
    return made[0]


def test_without_flags_the_job_has_its_own_defaults():
    assert job_from("file.csv") == Job(Path("file.csv"))


def test_each_flag_reaches_its_field_nested_ones_too():
    words = ["x", "-n", "5", "--kind", "b", "--limit", "2.5", "--fast", "--no-track", "-s", "k=1", "-s", "l=2"]
    expected = Job(Path("x"), 5, "b", 2.5, True, False, ("k=1", "l=2"), Inner(9, False))
    assert job_from(*words, "--seed", "9", "--no-header") == expected


@dataclass(frozen=True)
class Copy:
    source: Location
    output: Location | None = setting(None, "Anywhere.")
    log: Path | None = setting(None, "Here.")


def copy_from(*words: str) -> Copy:
    made = []

    @click.command()
    @click.argument("source", type=LocationType())
    @options_from(Copy)
    def command(job: Copy) -> None:
        made.append(job)

    done = CliRunner().invoke(command, list(words))
    assert done.exit_code == 0, done.output
    return made[0]


def test_an_address_stays_one_and_a_path_is_a_path(tmp_path):
    assert copy_from("s3://bucket/a b/") == Copy("s3://bucket/a b")
    assert copy_from("a b/", "--output", "gs://bucket//key") == Copy(Path("a b"), "gs://bucket//key")
    (tmp_path / "job.toml").write_text('output = "s3://bucket/key"\nlog = "here"\n')
    expected = Copy(Path("a"), "s3://bucket/key", Path("here"))
    assert copy_from("a", "--config", str(tmp_path / "job.toml")) == expected


def test_an_address_is_refused_where_only_a_path_will_do():
    with pytest.raises(AssertionError, match="Expected a local path, found the address s3://bucket/log"):
        copy_from("a", "--log", "s3://bucket/log")


def test_a_choice_that_is_none_is_refused_by_click():
    with pytest.raises(SystemExit):
        job_from("x", "--kind", "c")


def test_the_settings_file_fills_what_the_flags_leave(tmp_path):
    file = tmp_path / "job.toml"
    file.write_text('source = "from-file.csv"\nn = 7\nseed = 1\nheader = false\n[settings]\nvae.beta = 0.1\nl2 = 3\n')
    job = job_from("--config", str(file), "--seed", "2")
    assert (job.source, job.n, job.inner) == (Path("from-file.csv"), 7, Inner(2, False))
    assert job.settings == ("vae.beta=0.1", "l2=3")


def test_a_value_of_the_settings_file_is_taken_as_if_it_were_typed(tmp_path):
    file = tmp_path / "job.toml"
    file.write_text('fast = 1\ntrack = "no"\nlimit = 2\nsettings = "l2=3"\n')
    job = job_from("x", "--config", str(file))
    assert (job.fast, job.track, job.limit, job.settings) == (True, False, 2.0, ("l2=3",))
    for line in ("n = 1.7", "limit = true", 'seed = "one"'):
        file.write_text(line)
        with pytest.raises(SystemExit):
            job_from("x", "--config", str(file))
    file.write_text("[kind]\na = 1\n")
    with pytest.raises(ConfigError, match=r"Expected a value or a list of values for kind, found \{'a': 1\}"):
        job_from("x", "--config", str(file))


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_a_seed_that_no_generator_takes_is_refused_at_once(seed):
    with pytest.raises(SystemExit):
        job_from("x", "--seed", seed)


def test_an_unknown_key_names_the_nearest_and_the_known_ones(tmp_path):
    file = tmp_path / "job.toml"
    file.write_text("sead = 1\n")
    with pytest.raises(ConfigError, match=r"Unknown setting 'sead'.*Did you mean 'seed'\?.*Known: fast, header"):
        job_from("x", "--config", str(file))


def test_known_keys_are_listed_as_the_flags_are_written(tmp_path):
    (tmp_path / "job.toml").write_text("user_colum = 1\n")
    result = CliRunner().invoke(main, ["train", "r.csv", "--config", str(tmp_path / "job.toml")])
    message = " ".join(result.stderr.split())
    assert "Unknown setting 'user-colum'" in message and "Did you mean 'user-column'?" in message
    assert "user_column" not in message and "On the command line" not in message


def test_a_file_that_is_not_toml_says_so(tmp_path):
    file = tmp_path / "job.toml"
    file.write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="Expected TOML"):
        job_from("x", "--config", str(file))


def test_settings_are_key_equals_value():
    assert parse_settings(("a=1", "vae.b = x=y ")) == {"a": "1", "vae.b": "x=y"}
    for wrong in ("a", "=1", ""):
        with pytest.raises(ConfigError, match="Expected a setting such as latent=50"):
            parse_settings((wrong,))


def test_tables_within_tables_are_laid_flat():
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}


def test_known_keys_pass():
    refuse_unknown({"a": 1}, {"a", "b"}, "here")
