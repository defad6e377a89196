import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from pipelines.serve import on_ray
from recsys import fit, save_model
from recsys.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# In a process of its own: Ray's controller and proxies end with it.
RUN = """
import sys, ray
from ray import serve
from pipelines.serve import on_ray

ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(on_ray({"model": sys.argv[2], "ratings": sys.argv[3], "most": "3"}))
print("ready", flush=True)
sys.stdin.readline()
serve.shutdown()
ray.shutdown()
"""


def ask(port, path, body=None):
    content = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", content, {"content-type": "application/json"} if content else {}
    )
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_ray_serves_the_same_application(tmp_path):
    (tmp_path / "ratings.csv").write_text("user_id,item_id\nu1,a\nu1,b\nu2,a\nu2,c\nu3,a\n")
    model = save_model(tmp_path / "model", fit(tmp_path / "ratings.csv", "popularity", held_out=0))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-c", RUN, str(port), str(model), str(tmp_path / "ratings.csv")]
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=quiet
        )
        try:
            lines = iter(process.stdout.readline, "")
            assert any(line == "ready\n" for line in lines), (tmp_path / "log").read_text()[-3000:]
            status, found = ask(port, "/recommend/u3?n=2")
            assert status == 200 and [one["item_id"] for one in found["items"]] == ["b", "c"]
            status, found = ask(port, "/recommend", {"history": [{"item_id": "b"}], "n": 1})
            assert status == 200 and [one["item_id"] for one in found["items"]] == ["a"]
            assert ask(port, "/recommend/u3?n=4")[0] == 400  # most=3
            assert ask(port, "/v2/health/ready")[1]["known_users"] == 3
        finally:
            process.communicate("end\n", timeout=60)


def test_what_ray_is_given_is_checked_before_anything_starts():
    with pytest.raises(ConfigError, match=r"'rating' for Ray Serve.* mean 'ratings'"):
        on_ray({"model": "model", "rating": "ratings.csv"})
    for given in ({}, {"model": "model", "replicas": "0"}, {"model": "model", "replicas": "many"}):
        with pytest.raises(ConfigError, match="model=MODEL and replicas of at least 1"):
            on_ray(given)
    with pytest.raises(ConfigError, match="Unknown setting 'port' for Ray Serve"):
        on_ray({"model": "model", "port": "80"})
