"""What every request passes: a request id, the API key, the size of the body, a time limit, and the counters."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

_OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # a load balancer has no key, and the page asks for one
_ID = re.compile(rb"[\w.:-]{1,64}\Z")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class ServiceMetrics:
    """Counters and times of a service, in a registry of their own."""

    TYPE = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "recsys_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "recsys_request_seconds", "Time of a request.", ["route"], registry=registry, buckets=_SECONDS
        )
        self.batches = Histogram(
            "recsys_batch_size", "Requests scored together.", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.reloads = Counter(
            "recsys_reloads", "Models that took over, or were refused.", ["result"], registry=registry
        )
        self._waiting = Gauge("recsys_waiting", "Requests that wait.", registry=registry)
        self._model = Gauge("recsys_model", "The model in use.", ["version"], registry=registry)

    def count_reload(self, is_loaded: bool) -> None:
        """Count a model that took over, or one that could not be loaded."""
        self.reloads.labels("loaded" if is_loaded else "refused").inc()

    def text(self, waiting: int, version: str) -> bytes:
        """Return all of them in the text format of Prometheus."""
        self._waiting.set(waiting)
        self._model.clear()
        self._model.labels(version).set(1)
        return generate_latest(self._registry)


class Gatekeeper:
    """ASGI middleware around the whole application.

    Parameters
    ----------
    app : ASGI application
    body : int
        Bytes of a body, at most; more is answered by 413.
    seconds : float
        Time of a request, at most; then it is answered by 503.
    keys : sequence of str
        API keys; none: everybody may ask.
    metrics : ServiceMetrics
    """

    def __init__(self, app: ASGIApp, body: int, seconds: float, keys: Sequence[str], metrics: ServiceMetrics):
        self._app, self._body, self._seconds, self._metrics = app, body, seconds, metrics
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _ID.match(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        try:
            if not self._may_pass(scope["path"], headers):
                await answer.refuse(401, "Expected a valid API key in the header x-api-key.")
            elif _size(headers) > self._body:
                await answer.refuse(413, _too_large(self._body))
            else:
                await asyncio.wait_for(self._app(scope, _limited(receive, self._body), answer), self._seconds)
        except TimeoutError:
            await answer.refuse(503, f"Expected an answer within {self._seconds:g} s, found none: try again.")
        except Exception:
            logger.exception("request %s failed", request_id)
            await answer.refuse(500, "An internal error; the log of the service has it under the request_id.")
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(answer.status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _may_pass(self, path: str, headers: dict[bytes, bytes]) -> bool:
        given = headers.get(b"x-api-key", b"")
        matches = [hmac.compare_digest(given, key) for key in self._keys]  # all of them, in constant time
        return not self._keys or any(matches) or path in _OPEN


class _Answer:
    """The way out: adds the request id to the headers, and remembers the status."""

    def __init__(self, send: Send, request_id: str):
        self._send, self._request_id = send, request_id
        self.status, self._has_begun = 500, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self._has_begun = message["status"], True
            message = {**message, "headers": [*message["headers"], (b"x-request-id", self._request_id.encode())]}
        await self._send(message)

    async def refuse(self, status: int, reason: str) -> None:
        """Answer with a reason, unless an answer has begun."""
        if self._has_begun:
            return
        body = json.dumps({"detail": reason, "request_id": self._request_id}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


def _too_large(most: int) -> str:
    return f"Expected a body of at most {most:,} bytes, found a longer one."


def _size(headers: dict[bytes, bytes]) -> int:
    """What the request says of its size; 0 where it says nothing that can be read."""
    text = headers.get(b"content-length", b"0")
    return int(text) if text.isdigit() else 0


def _limited(receive: Receive, most: int) -> Receive:
    """The way in, which ends where a body without a stated size becomes too long."""
    left = most

    async def limited() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, _too_large(most))
        return message

    return limited
