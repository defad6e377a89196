"""The steps of the Dockerfile, checked where there is no docker: what it copies, installs, runs and asks is there."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from paths import ROOT

from pipelines.cli.main import COMMANDS, main

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = [
    line.partition(" ")[::2]
    for line in re.sub(r"\\\n", " ", TEXT).splitlines()
    if line.strip() and not line.startswith("#")
]


def steps(name):
    return [rest for step, rest in STEPS if step == name]


def test_what_is_copied_is_there_and_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for step in steps("COPY") for source in shlex.split(step)[:-1]}
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)


def test_what_is_copied_is_enough_to_build_the_package(tmp_path):
    for step in steps("COPY"):
        *sources, target = shlex.split(step)
        for source in sources:
            place = tmp_path / (target if len(sources) == 1 else source)
            place.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", str(ROOT / source), str(place)], check=True)
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "build")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    built = tmp_path / "build" / "lib"
    assert (built / "recsys" / "serving" / "page.html").is_file()
    assert (built / "recsys_pipelines" / "cli" / "main.py").is_file()
    assert (built / "recsys_pipelines" / "sample" / "ratings.csv").is_file()


def test_the_process_is_not_root():
    assert steps("USER") == ["recsys"] and "useradd" in steps("RUN")[0]
    assert [name for name, _ in STEPS].index("USER") < [name for name, _ in STEPS].index("ENTRYPOINT")


def test_it_installs_with_the_constraints_and_runs_recsys():
    assert '-c constraints.txt ".[all]"' in steps("RUN")[-1]
    assert json.loads(steps("ENTRYPOINT")[0]) == ["recsys"]


def test_the_health_check_asks_what_the_service_answers():
    program = json.loads(steps("HEALTHCHECK")[0].partition("CMD ")[2])
    compile(program[2], "HEALTHCHECK", "exec")
    assert "/v2/health/ready" in program[2] and steps("EXPOSE") == ["8000"]
    port = next(option for option in main.get_command(None, "serve").params if option.name == "port")
    assert port.default == 8000


@pytest.mark.parametrize("line", re.findall(r"#\s+docker run \S+ \S+ (?:-p \S+ )?recsys (.+)", TEXT))
def test_the_examples_are_commands(line):
    words = shlex.split(line)
    assert words[0] in COMMANDS
    known = {flag for option in main.get_command(None, words[0]).params for flag in option.opts}
    assert {word for word in words if word.startswith("-")} <= known
