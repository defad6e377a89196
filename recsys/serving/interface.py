"""The description of the service for people: one plain page, made of what /openapi.json says, without any script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

_STYLE = """:root{color-scheme:light dark;--page:#fbfaf8;--card:#fff;--ink:#1d1d1f;--soft:#5c5c62;--rule:#e4e2dd;
--accent:#0063a8}@media(prefers-color-scheme:dark){:root{--page:#141518;--card:#1d1f23;--ink:#ececec;--soft:#a6a9b1;
--rule:#34373d;--accent:#6db9ee}}*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}main{max-width:860px;margin:0 auto;
padding:2.2rem 1.25rem 4rem}h1{font-size:1.8rem;letter-spacing:-.02em;margin:0 0 .3rem}h2{font-size:1rem;margin:0;
overflow-wrap:anywhere}section{background:var(--card);border:1px solid var(--rule);border-radius:14px;
padding:1rem 1.25rem;margin-top:1rem}code,h2{font-family:ui-monospace,Menlo,Consolas,monospace}
b{color:var(--accent);margin-right:.5rem}p{margin:.35rem 0 0}.soft{color:var(--soft)}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;margin-top:.7rem;font-size:.9rem}a{color:var(--accent)}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-top:1px solid var(--rule);vertical-align:top}
th{color:var(--soft);font-weight:500;border:0}"""


def interface_page(description: Mapping[str, Any]) -> str:
    """Write the page of a description.

    Parameters
    ----------
    description : mapping
        OpenAPI, as `FastAPI.openapi()` returns it.

    Returns
    -------
    str
        HTML: each request with what it does, its parameters, and the fields of its body.
    """
    parts = "".join(_section(description, *one) for one in _requests(description))
    about = description["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(about['title'])}: interface</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(about['title'])}</h1><p class=soft>{escape(about['description'])} For machines: "
        f'<a href="openapi.json">openapi.json</a>.</p>{parts}</main></body></html>\n'
    )


def _requests(description: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each request: its method, path, and description."""
    for path, methods in description["paths"].items():
        for method, one in methods.items():
            yield method.upper(), path, one


def _section(description: Mapping[str, Any], method: str, path: str, one: Mapping[str, Any]) -> str:
    rows = [(f["name"], f["in"], f["schema"], f.get("required", False)) for f in one.get("parameters", ())]
    body = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        schema = _followed(description, body)
        needed = schema.get("required", ())
        rows += [(name, "body", field, name in needed) for name, field in schema.get("properties", {}).items()]
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{place}<td>{escape(_kind(description, schema))}"
        f"<td>{'required' if needed else escape(_default(schema))}"
        for name, place, schema, needed in rows
    )
    head = "<tr><th>name<th>in<th>type<th>if not given"
    table = f'<div class="scroll"><table>{head}{cells}</table></div>' if rows else ""
    heading = f"<h2><b>{method}</b>{escape(path)}</h2>"
    return f"<section>{heading}<p>{escape(one.get('summary', ''))}</p>{table}</section>"


def _followed(description: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema, or the one that it refers to."""
    name = schema.get("$ref")
    found: Mapping[str, Any] = schema if name is None else description["components"]["schemas"][name.rsplit("/", 1)[1]]
    return found


def _kind(description: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A type in words: `list of {item_id: text or integer; rating: number or null}`."""
    schema = _followed(description, schema)
    if "anyOf" in schema:
        return " or ".join(_kind(description, one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(description, schema['items'])}"
    if schema.get("type") == "object":
        own = "; ".join(f"{name}: {_kind(description, one)}" for name, one in schema.get("properties", {}).items())
        return f"{{{own}}}"
    name = {"string": "text"}.get(schema.get("type", ""), schema.get("type", "anything"))
    limits = [
        f"{word} {schema[key]:g}" for key, word in (("minimum", "at least"), ("maximum", "at most")) if key in schema
    ]
    return f"{name}, {' and '.join(limits)}" if limits else name


def _default(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or isinstance(value, list) else str(value)
