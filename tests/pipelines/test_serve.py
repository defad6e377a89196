import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from pipelines.serve import ServeJob, listening, read_keys, run
from recsys import fit, save_model
from recsys.data.item_features import FeatureOptions
from recsys.data.item_features.features import read_item_features
from recsys.errors import ArtifactError, ConfigError, DataError

ROWS = "user_id,item_id\nu1,a\nu1,b\nu2,a\nu2,c\nu3,a\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    (folder / "ratings.csv").write_text(ROWS)
    save_model(folder / "model", fit(folder / "ratings.csv", "popularity", held_out=0))
    return folder


def start(folder, *flags):
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "serve",
        "model",
        "--ratings",
        "ratings.csv",
        "--port",
        "0",
        *flags,
    ]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    return process, re.search(r"http://\S+", line)[0] if line else process.communicate()[1]


def test_it_serves_items_that_came_after_training_and_keeps_rules(tmp_path):
    (tmp_path / "ratings.csv").write_text(ROWS)
    (tmp_path / "items.csv").write_text("item_id,color\na,red\nb,red\nc,blue\n")
    (tmp_path / "new.csv").write_text("item_id,color\nd,red\ne,red\n")
    (tmp_path / "rules.toml").write_text('items = "new.csv"\n[[rule]]\nonly = { color = "red" }\n')
    features = read_item_features(tmp_path / "items.csv", FeatureOptions(min_items=1))
    save_model(tmp_path / "model", fit(tmp_path / "ratings.csv", "content-knn", held_out=0, item_features=features))
    process, address = start(tmp_path, "--new-items", "new.csv", "--rules", "rules.toml")
    try:
        with urllib.request.urlopen(f"{address}/recommend/u3") as answer:
            assert [one["item_id"] for one in json.load(answer)["items"]] == ["d", "e"]
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(place, number):
    process, address = start(place)
    with urllib.request.urlopen(f"{address}/recommend/u3") as answer:
        assert [one["item_id"] for one in json.load(answer)["items"]] == ["b", "c"]
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in err and "rror" not in err


def test_with_reload_a_new_model_takes_over(place, tmp_path):
    (tmp_path / "ratings.csv").write_text(ROWS)
    save_model(tmp_path / "model", fit(tmp_path / "ratings.csv", "popularity", held_out=0))
    process, address = start(tmp_path, "--reload")
    try:
        (tmp_path / "more.csv").write_text(ROWS + "u4,c\nu5,c\nu6,c\n")
        save_model(tmp_path / "model", fit(tmp_path / "more.csv", "popularity", held_out=0), overwrite=True)
        limit = time.monotonic() + 60
        while first(address) != "c":
            assert time.monotonic() < limit
            time.sleep(0.1)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def first(address):
    with urllib.request.urlopen(f"{address}/recommend/u3") as answer:
        return json.load(answer)["items"][0]["item_id"]


def test_a_port_in_use_is_refused_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"free port on 127.0.0.1, found {port}: .* another --port"):
            run(ServeJob(tmp_path / "no-model", port=port))


def test_a_host_that_is_not_of_this_machine_is_refused():
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        listening("192.0.2.1", 0)


def test_an_answer_does_not_wait_for_the_acknowledgment_of_its_headers():
    with listening("127.0.0.1", 0) as place, socket.create_connection(place.getsockname()):
        accepted, _ = place.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_keys_are_lines_long_enough_and_never_shown(tmp_path):
    file = tmp_path / "keys"
    file.write_text("  a-key-of-16-chars\n\nanother-key-of-20-ch\n")
    assert read_keys(file) == ["a-key-of-16-chars", "another-key-of-20-ch"]
    file.write_text("secret\n")
    with pytest.raises(ConfigError, match="at least 16 characters") as found:
        read_keys(file)
    assert "secret" not in str(found.value)
    for content in (b"", b"\xff\xfe" * 20):
        file.write_bytes(content)
        with pytest.raises(ConfigError):
            read_keys(file)
    with pytest.raises(ConfigError, match="can be read"):
        read_keys(tmp_path / "none")


def test_what_is_missing_is_said_as_everywhere(place):
    with pytest.raises(DataError, match=r"nothing\.csv"):
        run(ServeJob(place / "model", ratings=place / "nothing.csv", port=0))
    with pytest.raises(ArtifactError, match=r"model directory with model\.json, found none in .*no-model"):
        run(ServeJob(place / "no-model", port=0))
    with pytest.raises(ConfigError, match="--ui together with --beside"):
        run(ServeJob(place / "model", beside=place / "model", port=0))
