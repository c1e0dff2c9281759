"""What a browser sends on somebody's behalf: whether it came from a page of ours, and what the form says.

Three things have to agree before anything is done: the cookie is `SameSite=Strict`, the `Origin` is our own, and the
form carries a token that only a page of this login has. Source: OWASP, Cross-Site Request Forgery Prevention.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlsplit

from starlette.requests import Request

from orchestrator.console.session import PATH

FORM_BYTES_MAX = 64 * 1024
FIELDS_MAX = 100
TOKEN_FIELD, TOKEN_HEADER = "token", "x-form-token"
FORM_TYPE = "application/x-www-form-urlencoded"


class NotOurs(Exception):
    """No page of ours sent this form."""


async def form_of(request: Request, is_token: Callable[[str], bool] | None = None) -> dict[str, str]:
    """The fields of a form.

    Args:
        request: a POST.
        is_token: whether a form's token is this login's; None before there is a login.

    Raises:
        NotOurs: another page sent it, or nobody's.
    """
    origin = request.headers.get("origin")
    scheme, _, place = (origin or "").partition("://")
    is_lower = request.url.scheme == "https" and scheme != "https"  # of a page that anybody on the way could write
    if not place or is_lower or place.lower() != request.headers.get("host", "").lower():
        raise NotOurs("This form did not come from a page of this console. Open the page again and repeat it there.")
    if not request.headers.get("content-type", "").startswith(FORM_TYPE):
        raise NotOurs("This is not a form of the console.")
    form = await _fields(request)
    if is_token is not None and not is_token(form.get(TOKEN_FIELD) or request.headers.get(TOKEN_HEADER, "")):
        raise NotOurs("This form belongs to another login. Open the page again and repeat it there.")
    return form


def place_after(said: str) -> str:
    """Where to go next: a page of the console, never another site's."""
    try:
        parts = urlsplit(said)
    except ValueError:
        return PATH
    path = parts.path
    is_ours = path == PATH or path.startswith(f"{PATH}/")
    if (
        not is_ours
        or "\\" in said
        or "/.." in unquote(path)
        or not said.isprintable()
        or path.startswith(f"{PATH}/log")
    ):
        return PATH
    return path + (f"?{parts.query}" if parts.query else "")


def is_foreign_link(request: Request) -> bool:
    """Somebody followed a link of another site: a strict cookie stays away until a page of ours asks again."""
    return request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site"


async def _fields(request: Request) -> dict[str, str]:
    text = b""
    async for chunk in request.stream():
        text += chunk
        if len(text) > FORM_BYTES_MAX:
            raise NotOurs("This form is too long.")
    try:
        return dict(parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError as error:  # not UTF-8, or too many fields
        raise NotOurs("This form cannot be read.") from error
