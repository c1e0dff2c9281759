"""Flower's web application behind one password, on every path.

Flower itself leaves `/metrics`, `/healthcheck` and its static files open where a password is set: they name
tools and nodes. Refuses every request without the password before any handler is chosen.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any

from flower.app import Flower
from flower.views import BaseHandler
from tornado.httputil import HTTPServerRequest

REALM = 'Basic realm="mcpfleet"'


class GuardedFlower(Flower):  # type: ignore[misc]
    """Asks for the login first."""

    def __init__(self, login: tuple[str, str], **rest: Any) -> None:  # noqa: ANN401 - Flower is untyped
        super().__init__(**rest)
        self._login = ":".join(login).encode()

    def find_handler(self, request: HTTPServerRequest, **rest: Any) -> Any:  # noqa: ANN401 - Tornado's own
        """Tornado's own choice, for those who may come in."""
        if not is_known(request.headers.get("Authorization", ""), self._login):
            return self.get_handler_delegate(request, Refused)
        return super().find_handler(request, **rest)


class Refused(BaseHandler):  # type: ignore[misc]
    """401, whatever was asked."""

    def prepare(self) -> None:
        """Before any method is looked at."""
        self.set_status(401)
        self.set_header("WWW-Authenticate", REALM)
        self.finish("Flower asks for user and password: MCPFLEET_FLOWER_LOGIN.\n")


def is_known(header: str, login: bytes) -> bool:
    """Whether an `Authorization` header carries this `user:password`. Source: RFC 7617."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, login)
