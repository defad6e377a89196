"""The HTTP service: FastAPI around CurrentModel and MicroBatcher. Imported only where a service starts.

```
GET  /recommend/{user_id}    a list for a user with a known history
POST /recommend              a list for a history that comes with the request
GET  /similar/{item_id}      the nearest items
GET  /explain/{user_id}/{item_id}    the items of the user's history that support and oppose an item
GET  /                       the page, where it was asked for
GET  /v2/health/live, /v2/health/ready, /metrics
GET  /docs, /openapi.json    this interface, for people and for machines
```
A request that cannot be met is answered by 4xx with the reason under `detail`; every answer names the model's version
and has an `x-request-id`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, StrictStr
from starlette.exceptions import HTTPException

from recsys.errors import ConfigError, RecsysError
from recsys.serving import interface, lists
from recsys.serving.batching import MicroBatcher, QueueFullError
from recsys.serving.current import CurrentModel, Loaded
from recsys.serving.gatekeeper import Gatekeeper, ServiceMetrics
from recsys.serving.lists import ListMaker, UnknownIdError
from recsys.serving.page import PAGE, POLICY, Catalog
from recsys.serving.queries import Query as ListQuery
from recsys.serving.queries import Wishes

MOST_REASONS = 10

ItemId = StrictStr | StrictInt
Entries = list[dict[str, Any]]


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may wait.

    Parameters
    ----------
    n : int
        Longest list.
    body : int
        Bytes of a request's body.
    history : int
        Items of a history, and of each other list of ids in a request.
    seconds : float
        Longest time a request may take; then it is answered by 503.
    waiting : int
        Requests that may wait; one more is answered by 503 and Retry-After.
    batch : int
        Requests scored together, at most.
    """

    n: int = 1000
    body: int = 1_000_000
    history: int = 10_000
    seconds: float = 10.0
    waiting: int = 1024
    batch: int = 64


class HistoryItem(BaseModel):
    """An item that the user has had."""

    model_config = ConfigDict(extra="forbid")
    item_id: ItemId
    rating: FiniteFloat | None = None


class ListRequest(BaseModel):
    """A history, and what may be in the list."""

    model_config = ConfigDict(extra="forbid")
    history: list[HistoryItem]
    n: StrictInt = Field(10, ge=1)
    filter_seen: bool = True
    exclude_items: list[ItemId] = []
    candidate_items: list[ItemId] | None = None
    reasons: StrictInt = Field(0, ge=0, le=MOST_REASONS)


class Service:
    """Answers queries in the order they come, together with those that wait.

    Parameters
    ----------
    current : CurrentModel
    limits : Limits
    metrics : ServiceMetrics
    """

    def __init__(self, current: CurrentModel, limits: Limits, metrics: ServiceMetrics):
        self.current, self.limits, self._metrics = current, limits, metrics
        self.batcher: MicroBatcher[tuple[ListMaker, ListQuery], Entries] = MicroBatcher(
            self._answer, limits.batch, limits.waiting
        )

    def _answer(self, queries: Sequence[tuple[ListMaker, ListQuery]]) -> list[Entries]:
        """Each query is answered by the model it was made on, though another may be current by now."""
        self._metrics.batches.observe(len(queries))
        answers: dict[int, Entries] = {}
        for maker in {id(maker): maker for maker, _ in queries}.values():
            own = [at for at, (one, _) in enumerate(queries) if one is maker]
            found = maker.answer([queries[at][1] for at in own])
            answers.update(zip(own, found, strict=True))
        return [answers[at] for at in range(len(queries))]

    async def list_for(self, loaded: Loaded, query: ListQuery) -> Entries:
        """Wait for the list of a query."""
        return await asyncio.wrap_future(self.batcher.submit((loaded.lists, query)))

    async def for_user(self, request: Request, loaded: Loaded, user_id: str, wishes: Wishes) -> Response:
        """The list of a known user by one model."""
        lists.check_most(wishes.n, self.limits.n)
        entries = await self.list_for(loaded, loaded.lists.for_user(user_id, wishes))
        return _answer(request, loaded, entries, user_id=user_id)

    async def for_history(self, request: Request, loaded: Loaded, asked: ListRequest) -> Response:
        """The list for the history of a request by one model."""
        lists.check_most(asked.n, self.limits.n)
        for ids in (asked.history, asked.exclude_items, asked.candidate_items or ()):
            if len(ids) > self.limits.history:
                raise ConfigError(f"Expected lists of at most {self.limits.history:,} items, found {len(ids):,}.")
        wishes = Wishes(asked.n, asked.filter_seen, asked.exclude_items, asked.candidate_items, asked.reasons)
        query = loaded.lists.for_history([one.item_id for one in asked.history], _ratings(asked.history), wishes)
        return _answer(request, loaded, await self.list_for(loaded, query), unknown_items=list(query.unknown))


def create_app(
    current: CurrentModel,
    limits: Limits | None = None,
    keys: Sequence[str] = (),
    metrics: ServiceMetrics | None = None,
    has_page: bool = False,
    beside: CurrentModel | None = None,
) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    current : CurrentModel
        The model, with the histories of the known users.
    limits : Limits, optional
    keys : sequence of str
        API keys: with any, requests need one of them in the header `x-api-key` (health checks do not).
    metrics : ServiceMetrics, optional
        What `/metrics` shows.
    has_page : bool
        Whether the page is served at `/`.
    beside : CurrentModel, optional
        Another model, whose lists the page shows beside those of the first.

    Returns
    -------
    FastAPI
        An ASGI application, for uvicorn or Ray Serve.
    """
    limits, metrics = limits or Limits(), metrics or ServiceMetrics()
    service = Service(current, limits, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for one in (current, beside):
            if one is not None:
                one.close()
        service.batcher.close()

    app = FastAPI(
        title="recsys", description="Recommendations by one model.", docs_url=None, redoc_url=None, lifespan=lifespan
    )
    _add_lists(app, service)
    _add_health(app, service, metrics)
    _add_interface(app)
    if has_page:
        _add_page(app, service, beside)
    for kind, answer in ((RecsysError, _refused), (RequestValidationError, _invalid), (HTTPException, _http_error)):
        app.add_exception_handler(kind, answer)
    app.add_middleware(Gatekeeper, body=limits.body, seconds=limits.seconds, keys=tuple(keys), metrics=metrics)
    return app


def _add_lists(app: FastAPI, service: Service) -> None:
    limits = service.limits

    @app.get("/recommend/{user_id:path}", summary="A list for a user with a known history")
    async def recommend_to_user(
        request: Request,
        user_id: Annotated[str, Path()],
        n: Annotated[int, Query(ge=1)] = 10,
        filter_seen: bool = True,
        reasons: Annotated[int, Query(ge=0, le=MOST_REASONS)] = 0,
    ) -> Response:
        return await service.for_user(request, service.current.loaded, user_id, Wishes(n, filter_seen, reasons=reasons))

    @app.post("/recommend", summary="A list for a history that comes with the request")
    async def recommend_to_history(request: Request, asked: ListRequest) -> Response:
        return await service.for_history(request, service.current.loaded, asked)

    @app.get("/similar/{item_id:path}", summary="The nearest items of an item")
    async def similar(
        request: Request, item_id: Annotated[str, Path()], n: Annotated[int, Query(ge=1)] = 10
    ) -> Response:
        lists.check_most(n, limits.n)
        loaded = service.current.loaded
        return _answer(request, loaded, await asyncio.to_thread(loaded.lists.similar, item_id, n), item_id=item_id)

    @app.get("/explain/{user_id}/{item_id}", summary="Why an item is recommended to a known user, or is not")
    async def explain(request: Request, user_id: Annotated[str, Path()], item_id: Annotated[str, Path()]) -> Response:
        loaded = service.current.loaded
        found = await asyncio.to_thread(loaded.lists.explain, user_id, item_id)
        return _json(request, {"user_id": user_id, **asdict(found), **_model(loaded)})


def _add_health(app: FastAPI, service: Service, metrics: ServiceMetrics) -> None:
    @app.get("/v2/health/live", summary="Whether the process answers")
    async def live(request: Request) -> Response:
        return _json(request, {"live": True})

    @app.get("/v2/health/ready", summary="Whether lists are made, and by which model")
    async def ready(request: Request) -> Response:
        loaded, full = service.current.loaded, len(service.batcher) >= service.limits.waiting
        facts = {"ready": not full, "known_users": loaded.lists.n_users, "items": len(loaded.lists.item_ids)}
        facts |= {"explains": loaded.lists.can_explain}
        return _json(request, {**facts, **_model(loaded)}, 503 if full else 200)

    @app.get("/metrics", summary="Counters and times, for Prometheus")
    async def show_metrics() -> Response:
        return Response(metrics.text(len(service.batcher), service.current.loaded.version), media_type=metrics.TYPE)


def _add_interface(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        headers = {"content-security-policy": interface.POLICY}
        return Response(interface.interface_page(app.openapi()), headers=headers, media_type="text/html")


def _add_page(app: FastAPI, service: Service, beside: CurrentModel | None) -> None:
    """The page, and what it asks for besides lists; these are no part of the interface for others."""
    made: list[tuple[Loaded, Catalog]] = []

    def catalog() -> tuple[Loaded, Catalog]:
        loaded = service.current.loaded
        if not made or made[-1][0] is not loaded:
            made[:] = [(loaded, Catalog(loaded.lists))]
        return made[-1]

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE.read_text("utf-8"), headers={"content-security-policy": POLICY}, media_type="text/html")

    @app.get("/page/popular", include_in_schema=False)
    async def popular(request: Request) -> Response:
        loaded, items = await asyncio.to_thread(catalog)
        return _answer(request, loaded, items.popular())

    @app.get("/page/items", include_in_schema=False)
    async def search(request: Request, search: Annotated[str, Query(max_length=200)]) -> Response:
        loaded, items = await asyncio.to_thread(catalog)
        return _answer(request, loaded, await asyncio.to_thread(items.search, search))

    @app.get("/page/history/{user_id:path}", include_in_schema=False)
    async def history(request: Request, user_id: Annotated[str, Path()]) -> Response:
        loaded = service.current.loaded
        return _answer(request, loaded, loaded.lists.history_of(user_id))

    @app.get("/page/facts", include_in_schema=False)
    async def facts(request: Request) -> Response:
        loaded, other = service.current.loaded, beside.loaded if beside else None
        known, explains = loaded.lists.n_users, loaded.lists.can_explain
        compared = None if other is None else {**_model(other), "explains": other.lists.can_explain}
        return _json(request, {"known_users": known, "explains": explains, "beside": compared, **_model(loaded)})

    if beside is not None:
        _add_beside(app, service, beside)


def _add_beside(app: FastAPI, service: Service, beside: CurrentModel) -> None:
    """Lists by the other model, for the page."""

    @app.get("/page/beside/{user_id:path}", include_in_schema=False)
    async def beside_for_user(
        request: Request, user_id: Annotated[str, Path()], n: int = 10, reasons: int = 0
    ) -> Response:
        return await service.for_user(request, beside.loaded, user_id, Wishes(n, reasons=min(reasons, MOST_REASONS)))

    @app.post("/page/beside", include_in_schema=False)
    async def beside_for_history(request: Request, asked: ListRequest) -> Response:
        return await service.for_history(request, beside.loaded, asked)


def _ratings(history: Sequence[HistoryItem]) -> list[float] | None:
    given = [one.rating for one in history if one.rating is not None]
    if given and len(given) < len(history):
        raise ConfigError("Expected a rating for every item of the history or for none, found both.")
    return given or None


def _model(loaded: Loaded) -> dict[str, str]:
    return {"model": loaded.lists.trained.model.name, "model_version": loaded.version}


def _answer(request: Request, loaded: Loaded, entries: Entries, **more: Any) -> Response:
    return _json(request, {**more, "items": entries, **_model(loaded)})


def _json(
    request: Request, content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    body = json.dumps({**content, "request_id": request.state.request_id}, ensure_ascii=False, allow_nan=False)
    return Response(body, status, headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, QueueFullError):
        return _json(request, {"detail": str(error)}, 503, {"retry-after": "1"})
    return _json(request, {"detail": str(error)}, 404 if isinstance(error, UnknownIdError) else 400)


async def _invalid(request: Request, error: Exception) -> Response:
    """What pydantic found, each with its place; the value itself is not sent back."""
    assert isinstance(error, RequestValidationError)
    found = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()[:5]]
    is_json = request.method == "GET" or "json" in request.headers.get("content-type", "")
    advice = "" if is_json else " Send content-type: application/json."
    return _json(
        request, {"detail": f"Expected a request as in /openapi.json, found: {'; '.join(found)}.{advice}"}, 422
    )


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(request, {"detail": str(error.detail)}, error.status_code, dict(error.headers or {}))
