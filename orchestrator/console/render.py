"""Templates and static files, and the headers under which a browser may show them.

Owns the environment of templates: everything is escaped, and a name that is not there is an error. No page has a
script or a style of its own, so that the policy for browsers can forbid all that is not a file of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from orchestrator.console.words import FILTERS
from tasks.scopes import Scope

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    # "no-referrer" would make the browser's own Origin header of every form "null"
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
STATIC = {
    "app.css": "text/css; charset=utf-8",
    "pages.css": "text/css; charset=utf-8",
    "follow.js": "text/javascript; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "favicon.svg": "image/svg+xml",
    "vendor/htmx.min.js": "text/javascript; charset=utf-8",
    "vendor/idiomorph-ext.min.js": "text/javascript; charset=utf-8",
}
FOR_EVER = "public, max-age=31536000, immutable"
"""Their address changes when they do."""


class Renderer:
    """Made once."""

    def __init__(self, version: str) -> None:
        folder = files("orchestrator.console") / "static"
        self._static = {name: (folder / name).read_bytes() for name in STATIC}
        self._env = Environment(
            loader=PackageLoader("orchestrator.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.filters.update(FILTERS)
        self._env.globals.update(version=version, Scope=Scope, static=self._address)
        # a page fetched again is one block alone, which sees no imports of its file
        self._env.globals["m"] = self._env.get_template("macros.html").module

    def page(self, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
        """A whole page."""
        return HTMLResponse(self._env.get_template(template).render(values), status, HEADERS)

    def part(self, template: str, values: Mapping[str, Any]) -> Response:
        """What of a page is fetched again: its block `live`."""
        found = self._env.get_template(template)
        context = found.new_context(dict(values))
        return HTMLResponse("".join(found.blocks["live"](context)), 200, HEADERS)

    async def static(self, request: Request) -> Response:
        """A script, a style sheet or a picture."""
        name = request.path_params["name"]
        if name not in self._static:
            return Response("there is no such file", 404, HEADERS, "text/plain")
        is_current = request.query_params.get("v") == self._mark(name)
        headers = {**HEADERS, "cache-control": FOR_EVER if is_current else "no-cache"}
        return Response(self._static[name], 200, headers, STATIC[name])

    def _address(self, name: str) -> str:
        return f"/console/static/{name}?v={self._mark(name)}"

    def _mark(self, name: str) -> str:
        return sha256(self._static[name]).hexdigest()[:12]
