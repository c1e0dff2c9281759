"""The console's door: who is logged in, which page, what may be done, and what goes wrong, as pages.

Owns logging in and out, the check of every form, and the way from a `Page` to an answer. Refuses to know the fleet:
pages ask the API through `inside.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from orchestrator.console.forms import NotOurs, form_of, is_foreign_link, place_after
from orchestrator.console.inside import NOT_FOUND, UNAUTHORIZED, Inside, Refused
from orchestrator.console.live import OUT, STREAM_TYPE, Pulse, relay
from orchestrator.console.page import Act, Page, Visit
from orchestrator.console.render import HEADERS, Renderer
from orchestrator.console.session import CREDENTIAL_CHARS_MAX, PATH, Session, Sessions
from orchestrator.console.streams import Streams
from tasks.clock import Clock
from tasks.identity_wire import WhoAmIView

NOTE_COOKIE, THEME_COOKIE = "mcpfleet_note", "mcpfleet_theme"
THEMES = ("auto", "light", "dark")
ASKING = frozenset({"GET", "HEAD"})
"""Methods that change nothing; every other one needs a form of ours."""
YEAR_S = 365 * 86_400
Handler = Callable[[Request], Awaitable[Response]]


class Console:
    """The pages, under /console."""

    def __init__(self, pages: Sequence[Page], *, sessions: Sessions, pulse: Pulse, clock: Clock, version: str) -> None:
        self._pages, self._sessions, self._pulse, self._clock = tuple(pages), sessions, pulse, clock
        self._render = Renderer(version)
        self._streams = Streams(HEADERS)

    def routes(self) -> list[BaseRoute]:
        """They guard themselves."""
        routes = [
            Route(f"{PATH}/static/{{name:path}}", self._render.static, methods=["GET"]),
            Route(f"{PATH}/login", self._login, methods=["GET", "POST"]),
            Route(f"{PATH}/logout", self._guarded(self._logout), methods=["POST"]),
            Route(f"{PATH}/theme", self._guarded(self._theme), methods=["POST"]),
        ]
        for page in self._pages:
            routes += [
                Route(PATH + act.path, self._guarded(partial(self._act, page, act)), methods=["GET", "POST"])
                for act in page.acts
            ]
            if page.is_live:
                live = f"{PATH}{page.path}/live"
                routes.append(Route(live, self._guarded(partial(self._live, page)), methods=["GET"]))
            if page.relays:
                events = f"{PATH}{page.path}/events"
                routes.append(Route(events, self._guarded(partial(self._events, page)), methods=["GET"]))
            routes.append(Route(PATH + page.path, self._guarded(partial(self._page, page)), methods=["GET"]))
        return [
            *routes,
            Route("/", self._home, methods=["GET"]),
            Route(PATH + "/", self._home, methods=["GET"]),
            Route(PATH + "/{rest:path}", self._guarded(self._nowhere), methods=["GET", "POST"]),
        ]

    # ------------------------------------------------------------ what every answer passes

    def _guarded(self, handler: Callable[[Request, Session], Awaitable[Response]]) -> Handler:
        """Logged in, and a form only from a page of ours."""

        async def endpoint(request: Request) -> Response:
            session = self._session(request)
            if session is None:
                if is_foreign_link(request):
                    return self._render.page("bounce.html", {})
                return self._to_login(request)
            try:
                if request.method not in ASKING:
                    request.state.form = await form_of(request, partial(self._sessions.is_form_token, session))
                answer = await handler(request, session)
            except NotOurs as error:
                answer = self._plain_problem(request, 403, str(error))
            except Refused as refused:
                if refused.status == UNAUTHORIZED:
                    return self._to_login(request, forget=True)
                answer = await self._problem(request, session, refused)
            return self._kept_awake(request, session, answer)

        return endpoint

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(request.cookies, is_tls=self._is_tls(request))

    def _is_tls(self, request: Request) -> bool:
        """Whether the browser speaks TLS, with us or with a proxy that ends it.

        Where that proxy's headers are not believed, the browser says it: in the Origin of its forms, and by a
        `__Secure-` cookie, which it sends over TLS alone (RFC 6265bis, section 4.1.3.1). Who lies hurts nobody else:
        a cookie that is for TLS alone does not come back.
        """
        said = request.headers.get("origin", "").startswith("https://")
        return said or request.url.scheme == "https" or self._sessions.cookie(is_tls=True) in request.cookies

    def _kept_awake(self, request: Request, session: Session, answer: Response) -> Response:
        """What a person asks for keeps a login awake; what a page fetches by itself does not."""
        if "hx-request" in request.headers or isinstance(answer, StreamingResponse):
            return answer
        seen = self._sessions.seen(session)
        if seen is not None and not self._sessions.has_ended(session):
            self._give(request, answer, seen)
        return answer

    def _give(self, request: Request, answer: Response, session: Session) -> None:
        is_tls = self._is_tls(request)
        answer.set_cookie(
            self._sessions.cookie(is_tls=is_tls),
            self._sessions.sealed(session),
            path=PATH,
            secure=is_tls,
            httponly=True,
            samesite="strict",
        )

    def _to_login(self, request: Request, *, forget: bool = False) -> Response:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        to = f"{PATH}/login?" + urlencode({"next": path} if request.method == "GET" else {})
        if request.headers.get("accept") == STREAM_TYPE:  # a browser takes no redirect for a stream, and asks for ever
            return Response(OUT, 200, HEADERS, STREAM_TYPE)
        if "hx-request" in request.headers:  # a redirect would be followed by the script, and its page shown inside
            to = f"{PATH}/login?" + urlencode({"next": place_after(request.headers.get("hx-current-url", ""))})
            return Response("", UNAUTHORIZED, {**HEADERS, "hx-redirect": to})
        answer = RedirectResponse(to, 303, HEADERS)
        if forget:
            self._forget(request, answer)
        return answer

    def _forget(self, request: Request, answer: Response) -> None:
        is_tls = self._is_tls(request)
        answer.delete_cookie(self._sessions.cookie(is_tls=is_tls), PATH, secure=is_tls, httponly=True)

    def _forget_note(self, request: Request, answer: Response) -> None:
        """It was for this page, or for whoever is logged out: not for who comes next."""
        if NOTE_COOKIE in request.cookies:
            answer.delete_cookie(NOTE_COOKIE, PATH, secure=self._is_tls(request), httponly=True)

    # ------------------------------------------------------------ in and out

    async def _home(self, _request: Request) -> Response:
        return RedirectResponse(PATH, 303, HEADERS)

    async def _login(self, request: Request) -> Response:
        target = place_after(request.query_params.get("next", ""))
        if request.method in ASKING:
            return self._login_page(request, target)
        try:
            form = await form_of(request)
        except NotOurs as error:
            return self._plain_problem(request, 403, str(error))
        credential = form.get("credential", "").strip()
        if len(credential) > CREDENTIAL_CHARS_MAX:
            return self._login_page(
                request, target, 400, "This token is too long for a cookie; log in with an API key."
            )
        if not credential:
            return self._login_page(request, target, 400, "Write an API key or a token first.")
        try:
            await Inside(request.app.router, request.scope, credential).get("/v1/whoami", WhoAmIView)
        except Refused as refused:
            return self._login_page(request, target, refused.status, _why_not_in(refused))
        before = self._session(request)
        if before is not None:  # whoever logs in anew has no use for the old cookie, and a copy of it has none either
            self._sessions.end(before)
        answer = RedirectResponse(target, 303, HEADERS)
        self._give(request, answer, self._sessions.begin(credential))
        return answer

    def _login_page(self, request: Request, target: str, status: int = 200, wrong: str = "") -> Response:
        values = {"next": target, "wrong": wrong, "theme": _theme_of(request), "title": "Log in"}
        return self._render.page("login.html", values, status)

    async def _logout(self, request: Request, session: Session) -> Response:
        self._sessions.end(session)
        answer = RedirectResponse(f"{PATH}/login", 303, HEADERS)
        self._forget(request, answer)
        self._forget_note(request, answer)
        return answer

    async def _theme(self, request: Request, _session: Session) -> Response:
        wanted = request.state.form.get("theme", "")
        answer = RedirectResponse(place_after(request.state.form.get("back", "")), 303, HEADERS)
        if wanted in THEMES:
            answer.set_cookie(
                THEME_COOKIE, wanted, YEAR_S, path=PATH, httponly=True, samesite="strict", secure=self._is_tls(request)
            )
        return answer

    # ------------------------------------------------------------ pages

    async def _page(self, page: Page, request: Request, session: Session) -> Response:
        visit = await self._visit(request, session)
        values = {**self._frame(request, session, visit, page.title), **await page.load(visit)}
        if "hx-request" in request.headers:
            return self._render.part(page.template, values)
        answer = self._render.page(
            page.template,
            {**values, "live": f"{request.url.path}/live" if page.is_live and not values.get("is_over") else ""},
        )
        self._forget_note(request, answer)
        return answer

    async def _act(self, page: Page, act: Act, request: Request, session: Session) -> Response:
        """GET asks, POST does. HEAD comes along with GET: it must not do anything either."""
        visit = await self._visit(request, session)
        if act.scope not in visit.me.scopes:
            raise Refused(403, "forbidden", f"{visit.me.id} may not do this: it needs the scope {act.scope}")
        if request.method in ASKING:
            question = await act.ask(visit)
            values = self._frame(request, session, visit, question.title)
            return self._render.page("confirm.html", {**values, "question": question, "live": "", "page": page})
        done = await act.do(visit)
        answer = RedirectResponse(PATH + done.to, 303, HEADERS)
        note = self._sessions.note(done.sentence)
        answer.set_cookie(
            NOTE_COOKIE, note, 60, path=PATH, httponly=True, samesite="strict", secure=self._is_tls(request)
        )
        return answer

    async def _live(self, page: Page, request: Request, session: Session) -> Response:
        api = self._inside(request, session)
        whose = _whose(await api.get("/v1/whoami", WhoAmIView))
        self._streams.admit(whose)
        news = None if page.feed is None else api.stream(page.feed.format(**request.path_params))
        is_good = partial(self._is_good, api, session)
        return self._streams.answer(whose, self._pulse.stream(is_good, news))

    async def _events(self, page: Page, request: Request, session: Session) -> Response:
        """The feed itself. What may not be seen is refused before the stream begins."""
        api, path = self._inside(request, session), (page.feed or "").format(**request.path_params)
        whose = _whose(await api.get("/v1/whoami", WhoAmIView))
        self._streams.admit(whose)
        source = api.stream(path, last_seen=request.headers.get("last-event-id", ""))
        first = await anext(source)
        is_good = partial(self._is_good, api, session)
        return self._streams.answer(whose, relay(first, source, is_good))

    async def _is_good(self, api: Inside, session: Session) -> bool:
        """Whether a stream may go on: the credential is good, and nobody logged out."""
        try:
            await api.get("/v1/whoami", WhoAmIView)
        except Refused as refused:
            return refused.status != UNAUTHORIZED
        return not self._sessions.has_ended(session)

    async def _nowhere(self, request: Request, _session: Session) -> Response:
        raise Refused(NOT_FOUND, "no_such_path", f"nothing is at {request.url.path[:200]}")

    async def _visit(self, request: Request, session: Session) -> Visit:
        api = self._inside(request, session)
        query: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            query.setdefault(name, []).append(value)
        return Visit(
            api=api,
            me=await api.get("/v1/whoami", WhoAmIView),
            now_s=self._clock.wall_s(),
            path=request.path_params,
            query=query,
            form=getattr(request.state, "form", {}),
            is_part="hx-request" in request.headers,
        )

    def _inside(self, request: Request, session: Session) -> Inside:
        return Inside(request.app.router, request.scope, session.credential)

    def _frame(self, request: Request, session: Session, visit: Visit, title: str) -> dict[str, object]:
        """What the layout needs."""
        shown = [page for page in self._pages if page.group and (page.scope is None or page.scope in visit.me.scopes)]
        groups: dict[str, list[Page]] = {}
        for page in shown:
            groups.setdefault(page.group, []).append(page)
        return {
            "visit": visit,
            "title": title,
            "groups": groups,
            "known": {page.path for page in self._pages if page.scope is None or page.scope in visit.me.scopes},
            "here": request.url.path.removeprefix(PATH),
            "address": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "token": self._sessions.form_token(session),
            "theme": _theme_of(request),
            "note": self._sessions.noted(request.cookies.get(NOTE_COOKIE, "")),
        }

    # ------------------------------------------------------------ what goes wrong

    async def _problem(self, request: Request, session: Session, refused: Refused) -> Response:
        try:
            visit = await self._visit(request, session)
        except Refused as again:
            if again.status == UNAUTHORIZED:
                return self._to_login(request, forget=True)
            return self._plain_problem(request, refused.status, refused.detail)
        values = self._frame(request, session, visit, TITLES.get(refused.status, "This did not work"))
        if "hx-request" in request.headers:
            return self._render.part("problem.html", {**values, "refused": refused})
        return self._render.page("problem.html", {**values, "refused": refused, "live": ""}, refused.status)

    def _plain_problem(self, request: Request, status: int, sentence: str) -> Response:
        values = {"sentence": sentence, "theme": _theme_of(request), "title": TITLES.get(status, "This did not work")}
        return self._render.page("plain.html", values, status)


TITLES = {
    403: "Not for you",
    404: "Not here",
    409: "Not now",
    422: "That was not understood",
    429: "Too much at once",
    503: "Not ready",
}


def _why_not_in(refused: Refused) -> str:
    if refused.status == UNAUTHORIZED and refused.code == "not_allowed":
        return "Nobody knows this key or token. Check that it is whole, and of this fleet."
    if refused.status == 403:  # noqa: PLR2004
        return f"This credential is good, but not for the console: {refused.detail}."
    return f"{refused.detail[:1].upper()}{refused.detail[1:]}."


def _whose(me: WhoAmIView) -> str:
    return f"{me.tenant}/{me.id}"


def _theme_of(request: Request) -> str:
    said = request.cookies.get(THEME_COOKIE, "")
    return said if said in THEMES else THEMES[0]
