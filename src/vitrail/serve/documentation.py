"""A page that lists the routes out of the OpenAPI document, without a script, and without anything of another host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any


def page_of(document: Mapping[str, Any]) -> str:
    """The page in HTML; its style is ``documentation.css``."""
    routes = "\n".join(
        _route(method, path, route) for path, methods in document["paths"].items() for method, route in methods.items()
    )
    title = escape(document["info"]["title"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: routes</title>
<link rel="icon" href="page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page/docs.css">
</head>
<body>
<h1>{title}</h1>
<p>{escape(document["info"]["summary"])}</p>
<p><a href="./">To the page</a>; for programs, <a href="openapi.json">the same in OpenAPI</a>.</p>
{routes}
</body>
</html>
"""


def _route(method: str, path: str, route: Mapping[str, Any]) -> str:
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", f"<p>{escape(route['summary'])}.</p>", "<dl>"]
    lines += (f"<dt>{escape(name)}</dt><dd>{escape(what)}</dd>" for name, what in _facts(route))
    return "\n".join([*lines, "</dl>"])


def _facts(route: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What goes in and comes out, by name."""
    if "requestBody" in route:
        yield "body", " or ".join(route["requestBody"]["content"])
    for parameter in route.get("parameters", ()):
        default = parameter["schema"].get("default")
        words = parameter.get("description") or "which one"
        yield (
            f"?{parameter['name']}=" if parameter["in"] == "query" else parameter["name"],
            f"{words} ({default})" if default is not None else words,
        )
    for status, response in route["responses"].items():
        if status == "200":
            yield "answer", " or ".join(kind.partition(";")[0] for kind in response["content"])
        else:
            yield status, response["description"]
