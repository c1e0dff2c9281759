"""An HTTP server on loopback that can go wrong where it is told to: beneath the doubles of cloud APIs.

Owns the wire and the faults. What is answered otherwise, and what an operation is, the double says.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

STOPS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. Header names are lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request instead.

    Attributes:
        answer: given; None: the connection is cut.
        is_carried_out: it was done, though the caller does not learn so.
        hangs: silence until the server closes, then a cut.
    """

    answer: Answer | None = None
    is_carried_out: bool = False
    hangs: bool = False


class FaultyServer:
    """Listens from the start on, on a free port of loopback."""

    def __init__(self, reply: Callable[[Asked], Answer], operation: Callable[[Asked], str]) -> None:
        self.asked: list[str] = []
        """Operations, in the order in which they came; those that met a fault too."""
        self._reply, self._operation = reply, operation
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = _Listener(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="faulty-http", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def meet(self, operation: str, fault: Fault, times: int = 1) -> None:
        """So many requests of this operation meet the fault, before those that come after are answered."""
        with self._lock:
            self._faults[operation].extend([fault] * times)

    def forgive(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def close(self) -> None:
        """Stop listening; whoever hangs is cut."""
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(STOPS_WITHIN_S)

    def handle(self, asked: Asked) -> Answer | None:
        """The answer; None cuts the connection."""
        operation = self._operation(asked)
        with self._lock:
            self.asked.append(operation)
            waiting = self._faults[operation]
            fault = waiting.popleft() if waiting else None
        if fault is None:
            return self._reply(asked)
        if fault.is_carried_out:
            self._reply(asked)
        if fault.hangs:
            self._closing.wait()
        return fault.answer


def json_answer(status: int, form: object, headers: Mapping[str, str] | None = None) -> Answer:
    """`form` as JSON."""
    return Answer(status, json.dumps(form).encode(), {"Content-Type": "application/json", **(headers or {})})


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler(server: FaultyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            """Every method alike."""
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.handle(Asked(self.command, parts.path, parse_qs(parts.query), headers, body))
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names that the base class looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Stay silent."""

    return Handler
