"""Fuzz target: any request to the service is answered with a list, or refused with the reason; never by 500."""

import asyncio
import functools
import json
import math
import urllib.parse

from recsys.errors import DataError

HISTORY = {"history": [{"item_id": "i1", "rating": 4.0}, {"item_id": "i2", "rating": 5.0}], "n": 3}


@functools.cache  # once in each fork, which is where its thread runs
def service(folder):
    """The application around a small model."""
    from recsys.artifacts import load_model
    from recsys.data.reading import read_interactions
    from recsys.serving.current import CurrentModel
    from recsys.serving.http import create_app
    from recsys.serving.lists import ListMaker

    def load():
        return ListMaker(load_model(folder / "ease"), read_interactions(folder / "ratings.csv"), {"i1": "<b>"})

    return create_app(CurrentModel(lambda: "same", load), has_page=True)


def http_request(rng, bench):
    """Any path, query, headers and body."""
    from fuzzing import damaged_bytes, damaged_json, some_json, some_text

    method, path, query, body = "GET", "/", "", b""
    if rng.random() < 0.6:
        method, path = "POST", "/recommend"
        body = damaged_json(rng, json.dumps(HISTORY)).encode("utf-8", "replace")
        if rng.random() < 0.3:
            more = {str(rng.choice(["exclude_items", "candidate_items", "n", "reasons", "history"])): some_json(rng)}
            body = json.dumps({**HISTORY, **more}).encode("utf-8", "replace")
        body = damaged_bytes(rng, body) if rng.random() < 0.3 else body
    else:
        routes = ["/recommend/", "/similar/", "/explain/u1/", "/explain/", "/page/history/", "/page/items", "/v2/", "/"]
        path = f"{rng.choice(routes)}{rng.choice(['u1', 'i1', some_text(rng)])}"
        names = ["n", "reasons", "filter_seen", "search"]
        pairs = [(rng.choice(names), str(rng.choice(["3", some_text(rng)]))) for _ in range(rng.integers(0, 3))]
        query = urllib.parse.urlencode(pairs, errors="replace")
    kind = b"application/json" if rng.random() < 0.8 else some_text(rng).encode("utf-8", "replace")
    status, text = asyncio.run(answer(service(bench.folder), method, path, query, kind, body))
    found = json.loads(text) if text.startswith("{") else {}
    assert status in (200, 307, 400, 401, 404, 405, 413, 422), (status, text)
    scores = [entry["score"] for entry in found.get("items", ()) if "score" in entry]
    assert all(map(math.isfinite, scores)) and scores == sorted(scores, reverse=True)
    if status != 200:
        assert status == 307 or found["detail"], text
        raise DataError(text)


async def answer(app, method, path, query, kind, body):
    """Status and text of what the application sends."""
    sent = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": urllib.parse.quote(path, errors="replace").encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"content-type", kind), (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent).decode()
    return sent[0]["status"], text
