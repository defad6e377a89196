import concurrent.futures
import http.client
import json
import threading
import time

import pandas as pd
import pytest
import uvicorn

from recsys import fit, load_model, save_model
from recsys.data.reading import read_interactions
from recsys.errors import ArtifactError
from recsys.serving.current import CurrentModel, folder_stamp, model_folder
from recsys.serving.gatekeeper import ServiceMetrics
from recsys.serving.http import Limits, create_app
from recsys.serving.lists import ListMaker

ROWS = [*(("u1", i) for i in "abc"), *(("u/2", i) for i in "abd"), *(("007", i) for i in "ab"), ("7", "a"), ("u5", "e")]
RATINGS = pd.DataFrame(ROWS, columns=["user_id", "item_id"])
OTHER = pd.DataFrame([("u1", "a"), ("x", "e"), ("y", "e"), ("z", "d")], columns=["user_id", "item_id"])
KEY = "a-key-of-enough-characters"


def save(folder, rows=RATINGS, model="popularity", overwrite=False):
    return save_model(folder, fit(rows, model, held_out=0), overwrite)


def load(folder):
    return ListMaker(load_model(model_folder(folder)), read_interactions(RATINGS))


def current(folder, on_reload=None, load=load):
    return CurrentModel(lambda: folder_stamp(folder), lambda: load(folder), on_reload)


class Client:
    """Asks a service that runs in this process, over a real socket."""

    def __init__(self, port):
        self.port = port

    def ask(self, path, body=None, method=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body)
        named = {"content-type": "application/json"} if body is not None else {}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if body is None else "POST"), path, content, named)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, json.loads(text) if text.startswith("{") else text, dict(answer.getheaders())


class Running:
    """A service on a free port."""

    def __init__(self, app):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        return Client(self.server.servers[0].sockets[0].getsockname()[1])

    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="module")
def client(folder):
    with Running(create_app(current(folder), Limits(n=100, body=5000, history=20))) as client:
        yield client


def items(found):
    return [entry["item_id"] for entry in found["items"]]


def test_a_list_for_a_known_user(client, folder):
    status, found, headers = client.ask("/recommend/u1?n=2")
    assert (status, items(found), found["user_id"]) == (200, ["d", "e"], "u1")
    assert found["model"] == "popularity" and found["model_version"] == load_model(folder).digest[:12]
    assert found["request_id"] == headers["x-request-id"]


def test_ids_are_text_and_may_hold_a_slash(client):
    assert items(client.ask("/recommend/007")[1]) == ["c", "d", "e"]
    assert items(client.ask("/recommend/7")[1]) == ["b", "c", "d", "e"]
    assert items(client.ask("/recommend/u%2F2")[1]) == ["c", "e"]


def test_what_was_seen_may_be_listed_when_asked(client):
    assert items(client.ask("/recommend/u1?filter_seen=false")[1]) == list("abcde")


def test_a_history_may_come_with_the_request(client):
    body = {"history": [{"item_id": "a"}, {"item_id": "new"}], "n": 2, "exclude_items": ["b"]}
    status, found, _ = client.ask("/recommend", body)
    assert (status, items(found), found["unknown_items"]) == (200, ["c", "d"], ["new"])
    assert items(client.ask("/recommend", {**body, "candidate_items": ["e", "b"]})[1]) == ["e"]


def test_an_id_of_a_request_is_kept_where_it_is_a_good_one(client):
    assert client.ask("/recommend/u1", x_request_id="night-7")[1]["request_id"] == "night-7"
    assert len(client.ask("/recommend/u1", x_request_id="<script>")[1]["request_id"]) == 16


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/recommend/nobody", None, 404, "known history, found 'nobody'"),
        ("/similar/zz", None, 404, "item of the model, found 'zz'"),
        ("/similar/a", None, 400, "popularity has no"),
        ("/explain/u1/a", None, 400, "popularity"),
        ("/explain/u1/zz", None, 404, "found 'zz'"),
        ("/explain/nobody/a", None, 404, "found 'nobody'"),
        ("/recommend/u1?reasons=11", None, 422, "reasons: "),
        ("/recommend/u1?n=0", None, 422, "n: "),
        ("/recommend/u1?n=101", None, 400, "n of at most 100, found 101"),
        ("/recommend/u1?n=many", None, 422, "n: "),
        ("/recommend", b"{", 422, "found: "),
        ("/recommend", b"\xff\xfe", 422, "found: "),
        ("/recommend", {"history": [{"item_id": 1.5}]}, 422, "history.0.item_id"),
        ("/recommend", {"history": [], "m": 3}, 422, "m: "),
        ("/recommend", {"history": [{"item_id": "a", "rating": 3}, {"item_id": "b"}]}, 400, "for every item"),
        ("/recommend", {"history": [{"item_id": "a"}] * 21}, 400, "at most 20 items, found 21"),
        ("/recommend", b"x" * 5001, 413, "at most 5,000 bytes"),
        ("/nothing", None, 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(client, path, body, status, reason):
    found_status, found, headers = client.ask(path, body)
    assert found_status == status and reason in found["detail"]
    assert found["request_id"] == headers["x-request-id"]


def test_health_and_counters(client):
    assert client.ask("/v2/health/live")[1]["live"] is True
    ready = client.ask("/v2/health/ready")[1]
    assert (ready["ready"], ready["known_users"], ready["items"]) == (True, 5, 5)
    text = client.ask("/metrics")[1]
    assert 'recsys_requests_total{route="/recommend/{user_id:path}",status="200"}' in text
    assert "recsys_request_seconds_bucket" in text and "recsys_model{version=" in text


def test_the_interface_describes_itself(client):
    paths = client.ask("/openapi.json")[1]["paths"]
    assert {"/recommend", "/recommend/{user_id}", "/similar/{item_id}"} <= set(paths)


def test_without_a_key_only_health_is_open(folder):
    with Running(create_app(current(folder), keys=["another-key-of-characters", KEY])) as client:
        assert client.ask("/recommend/u1")[0] == 401
        assert client.ask("/recommend/u1", x_api_key=KEY + "x")[0] == 401
        assert client.ask("/recommend/u1", x_api_key=KEY)[0] == 200
        assert client.ask("/v2/health/ready")[0] == 200
        assert client.ask("/metrics")[0] == 401


class Slow(ListMaker):
    """Answers when it is told to."""

    go_on = threading.Event()

    def answer(self, queries):
        assert self.go_on.wait(20)
        return super().answer(queries)


def slow(folder):
    Slow.go_on.clear()
    return Slow(load_model(folder), read_interactions(RATINGS))


def test_a_full_queue_and_a_late_answer_are_503_and_say_when_to_try_again(folder):
    limits = Limits(seconds=0.5, waiting=1, batch=1)
    with Running(create_app(current(folder, load=slow), limits)) as client:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: client.ask("/recommend/u1"), range(4)))
        Slow.go_on.set()
        assert [status for status, _, _ in answers] == [503] * 4
        assert {headers["retry-after"] for _, _, headers in answers} == {"1"}
        reasons = [found["detail"] for _, found, _ in answers]
        assert any("within 0.5 s" in reason for reason in reasons)
        assert any("waiting requests" in reason for reason in reasons)
        while client.ask("/v2/health/ready")[0] == 503:  # until those that no longer wait are passed over
            time.sleep(0.01)
        assert client.ask("/recommend/u1")[0] == 200


def test_a_body_of_another_type_is_refused_and_the_type_to_send_is_named(client):
    status, found, _ = client.ask("/recommend", {"history": []}, content_type="text/plain")
    assert status == 422 and "content-type: application/json" in found["detail"]


def test_a_new_model_takes_over_without_a_failed_request(tmp_path):
    folder = save(tmp_path / "model")
    metrics = ServiceMetrics()
    served = current(folder, metrics.count_reload)
    with Running(create_app(served, metrics=metrics)) as client:
        ended, found = threading.Event(), []

        def keep_asking():
            while not ended.is_set():
                found.append(client.ask("/recommend/u1?filter_seen=false&n=1"))

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(keep_asking) for _ in range(2)]
            versions = {served.loaded.version}
            for rows in (OTHER, RATINGS, OTHER):
                save(folder, rows, overwrite=True)
                assert served.refresh() and not served.refresh()
                versions.add(served.loaded.version)
                assert client.ask("/recommend/u1")[1]["model_version"] == served.loaded.version
            ended.set()
            assert [future.result(20) for future in asking] == [None, None]
        assert {status for status, _, _ in found} == {200}
        assert {one["model_version"] for _, one, _ in found} <= versions
        assert {items(one)[0] for _, one, _ in found} <= {"a", "e"}
        assert 'recsys_reloads_total{result="loaded"} 3.0' in client.ask("/metrics")[1]


def test_a_damaged_model_is_refused_and_the_old_one_stays(tmp_path, caplog):
    folder = save(tmp_path / "model")
    reported = []
    served = current(folder, reported.append)
    version = served.loaded.version
    save(folder, OTHER, overwrite=True)
    (folder / "weights.safetensors").write_bytes(b"damaged")
    assert not served.refresh() and not served.refresh()  # said once
    assert served.loaded.version == version and reported == [False]
    assert f"The model {version} stays" in caplog.text
    save(folder, OTHER, overwrite=True)
    assert served.refresh() and reported == [False, True]


def test_current_points_to_the_model_in_use(tmp_path):
    save(tmp_path / "monday")
    save(tmp_path / "tuesday", OTHER)
    (tmp_path / "CURRENT").write_text("monday\n")
    served = current(tmp_path)
    assert served.loaded.version == load_model(tmp_path / "monday").digest[:12]
    (tmp_path / "CURRENT").write_text("tuesday\n")
    assert served.refresh()
    assert served.loaded.version == load_model(tmp_path / "tuesday").digest[:12]


@pytest.mark.parametrize("name", ["../elsewhere", "", ".", "..", "a/b", "one\ntwo"])
def test_current_may_not_point_elsewhere(tmp_path, name):
    (tmp_path / "CURRENT").write_text(name)
    with pytest.raises(ArtifactError, match="name of a model folder"):
        model_folder(tmp_path)


def test_the_interface_is_described_on_one_page_without_any_script(tmp_path):
    save(tmp_path / "model")
    with Running(create_app(current(tmp_path / "model"))) as client:
        status, text, headers = client.ask("/docs")
    assert status == 200 and "default-src 'none'" in headers["content-security-policy"]
    assert "<script" not in text and "//" not in text and "/page/" not in text
    for words in (
        "<b>GET</b>/recommend/{user_id}<",
        "<code>n</code><td>query<td>integer, at least 1<td>10",
        "<code>history</code><td>body<td>list of {item_id: text or integer; rating: number or null}<td>required",
        "<code>reasons</code><td>body<td>integer, at least 0 and at most 10<td>0",
        "<code>filter_seen</code><td>query<td>boolean<td>true",
    ):
        assert words in text, words
