"""Every command against the HTTP API over a fake fleet: what it prints, where, and its exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from orchestrator.cli.main import run
from orchestrator.testing.doors import OPERATOR_TOKEN
from orchestrator.testing.http import served
from tasks.scale_wire import EnrolmentView
from tasks.wire import BacklogView, DeadLetterView, ExplainView, InvocationView, NodeView, PoolView, QueueView, ToolView

UNKNOWN = "00000000-0000-7000-8000-000000000000"


@dataclass
class Said:
    """What one command did."""

    status: int
    out: str
    err: str

    @property
    def json(self):  # noqa: ANN201
        """Standard output, parsed."""
        return json.loads(self.out)


@dataclass
class Cli:
    """A command line with a fleet behind it."""

    environ: dict[str, str]

    def __call__(self, *words: str, stdin: bytes = b"", **environ: str) -> Said:
        """Run one command; keywords are further variables."""
        out, err = io.StringIO(), io.StringIO()
        status = run(words, environ={**self.environ, **environ}, out=out, err=err, stdin=io.BytesIO(stdin))
        return Said(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """One fake fleet for the module: tests use tools and projects of their own."""
    with served() as address:
        yield address


@pytest.fixture
def cli(url: str, tmp_path: Path) -> Cli:
    """A command line that is told where the fleet is."""
    return Cli({"MCPFLEET_URL": url, "MCPFLEET_TOKEN": OPERATOR_TOKEN, "MCPFLEET_STATE_DIR": str(tmp_path)})


def _submitted(cli: Cli, *words: str) -> str:
    said = cli("call", *words, "--detach")
    assert said.status == 0, said.err
    return said.out.strip()


def _interrupt_once_there(cli: Cli, project: str) -> None:
    """Ctrl-C, as soon as the fleet knows a call of that project."""
    until = time.monotonic() + 20
    while not cli("ps", "--project", project, "--json").json:
        assert time.monotonic() < until, "the call was never accepted"
    os.kill(os.getpid(), signal.SIGINT)


def test_answer_goes_to_stdout_and_the_rest_to_stderr(cli: Cli) -> None:
    """A pipe gets the tool's answer and nothing else."""
    said = cli("call", "probe.echo", "text=hello")
    assert (said.status, said.out) == (0, "hello\n")
    assert "probe.echo on a in" in said.err


def test_json_is_the_whole_invocation(cli: Cli) -> None:
    """Scripts get the wire model, nothing on standard error."""
    said = cli("call", "probe.stats", "text=abc", "--json")
    view = InvocationView.model_validate(said.json)
    assert view.result is not None
    assert view.result["structuredContent"] == {"text": "abc", "length": 3}
    assert (said.status, said.err, said.out.count("\n")) == (0, "", 1)


def test_tool_that_says_error_fails_the_command(cli: Cli) -> None:
    """Its answer is still printed: it says why."""
    said = cli("call", "probe.fail", "text=no bread")
    assert (said.status, said.out) == (1, "no bread\n")
    assert "answered with an error" in said.err


@pytest.mark.parametrize(
    ("words", "status", "hint"),
    [
        (("call", "probe.ecko", "text=x"), 3, "did you mean 'probe.echo'"),
        (("call", "probe.echo", "txt=x"), 2, "did you mean 'text'"),
        (("call", "probe.sleep", "seconds=soon"), 2, "is not a number"),
        (("call", "probe.echo", "text:=1"), 2, "probe.echo"),
        (("call", "probe.echo", "text=x", "--project", "Not Allowed"), 2, "project"),
        (("call", "probe.echo", "text=x", "--require", "wings"), 2, "wings"),
        (("call", "probe.echo", "text=x", "--deadline", "soon"), 2, "is not a duration"),
        (("call", "probe.echo", "--args-json", "[1]"), 2, "one object"),
        (("call", "probe.echo", "--args-json", "@/no/such/file"), 2, "cannot read /no/such/file"),
        (("call", "probe.echo", "--priority", "11"), 2, "priority"),
        (("call",), 2, "Missing argument"),
        (("cal",), 2, "Did you mean"),
        (("show", UNKNOWN), 3, UNKNOWN),
        (("show", "zz"), 2, "too short"),
        (("node", "cordon", "nobody"), 3, "mcpfleet nodes lists those that are joined"),
        (("up", "--port", "many"), 2, ". Try: mcpfleet up --help"),
        (("tools", "probe.nothing"), 3, "probe.nothing"),
        (("pause", "planet", "x"), 2, "planet"),
        (("dead", "replay"), 2, "--all"),
    ],
)
def test_bad_input_is_one_line_and_a_status(cli: Cli, words: Sequence[str], status: int, hint: str) -> None:
    """What was wrong and what to do, never a traceback, nothing on standard output."""
    said = cli(*words)
    assert (said.status, said.out) == (status, "")
    assert hint in said.err
    assert said.err.count("\n") == 1


def test_arguments_come_from_words_files_and_stdin(cli: Cli, tmp_path: Path) -> None:
    """Words win over `--args-json`."""
    (tmp_path / "note").write_text("from a file")
    (tmp_path / "all.json").write_text('{"text": "from json"}')
    assert cli("call", "probe.echo", f"text=@{tmp_path / 'note'}").out == "from a file\n"
    assert cli("call", "probe.echo", "--args-json", f"@{tmp_path / 'all.json'}").out == "from json\n"
    assert cli("call", "probe.echo", "--args-json", "-", stdin=b'{"text": "from stdin"}').out == "from stdin\n"
    assert cli("call", "probe.echo", "text=word", "--args-json", '{"text": "json"}').out == "word\n"
    assert cli("call", "probe.echo", "--args-json", "-", stdin=b"\xff").status == 2


def test_detached_call_is_found_by_its_short_id(cli: Cli) -> None:
    """The last characters are enough for every command."""
    whole = _submitted(cli, "probe.echo", "text=later")
    short = whole[-8:]
    assert cli("result", short, "--wait", "10").out == "later\n"
    assert cli("show", short, "--json").json["id"] == whole
    assert ExplainView.model_validate(cli("why", short, "--json").json).id == whole
    events = cli("show", short, "--follow", "--json").out.splitlines()
    assert [json.loads(line)["kind"] for line in (events[0], events[-1])] == ["accepted", "ended"]


def test_waiting_has_an_end_of_its_own(cli: Cli) -> None:
    """`--wait` gives up waiting (7), not the call; cancelling it then ends it (4)."""
    said = cli("call", "probe.sleep", "seconds=60", "--wait", "50ms", "--json")
    assert said.status == 7
    name = said.json["id"]
    assert cli("result", name).status == 7
    assert cli("cancel", name).status == 0
    ended = cli("result", name, "--wait", "10", "--json")
    assert (ended.status, ended.json["state"]) == (4, "cancelled")
    assert "is cancelled" in cli("cancel", name).err


def test_cancelling_several_tells_which_were_not_there(cli: Cli) -> None:
    """One unknown id does not keep the others running."""
    name = _submitted(cli, "probe.sleep", "seconds=60")
    said = cli("cancel", UNKNOWN, name)
    assert said.status == 3
    assert UNKNOWN in said.err
    assert cli("result", name, "--wait", "10").status == 4


def test_deadline_expires_the_call(cli: Cli) -> None:
    """Status 5, and the message says what happened."""
    said = cli("call", "probe.sleep", "seconds=60", "--deadline", "100ms")
    assert said.status == 5
    assert "expired" in said.err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what it runs in the background with SIGINT ignored, and that is inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_cancels_the_call(cli: Cli) -> None:
    """Who interrupts a call does not leave it running somewhere."""
    project = "interrupted"
    threading.Thread(target=_interrupt_once_there, args=(cli, project)).start()
    said = cli("call", "probe.sleep", "seconds=60", "--project", project)
    assert said.status == 130
    assert "Ctrl-C" in said.err
    [view] = cli("ps", "--all", "--project", project, "--json").json
    assert cli("result", view["id"], "--wait", "10").status == 4


class Interrupting(httpx.HTTPTransport):
    """Ctrl-C after the call was accepted, before the command line knows it."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As sent, once."""
        answer = super().handle_request(request)
        if request.method == "POST" and request.url.path == "/v1/invocations":
            answer.read()
            raise KeyboardInterrupt
        return answer


def test_ctrl_c_before_the_answer_cancels_what_was_accepted(cli: Cli) -> None:
    """The id is the caller's own, so the call can be named without the answer."""
    out, err = io.StringIO(), io.StringIO()
    words = ("call", "probe.sleep", "seconds=60", "--project", "interrupted-early")
    with Interrupting() as transport:
        status = run(words, environ=cli.environ, out=out, err=err, stdin=io.BytesIO(), transport=transport)
    assert status == 130
    assert "Ctrl-C" in err.getvalue()
    [view] = cli("ps", "--all", "--project", "interrupted-early", "--json").json
    assert cli("result", view["id"], "--wait", "10").status == 4


def test_idempotency_key_gives_the_same_invocation(cli: Cli) -> None:
    """Sent twice, accepted once; with other arguments refused."""
    words = ("probe.echo", "--idempotency-key", "k-1")
    assert _submitted(cli, *words, "text=a") == _submitted(cli, *words, "text=a")
    assert "k-1" in cli("call", *words, "text=b").err


def test_failure_is_kept_replayed_and_discarded(cli: Cli) -> None:
    """The whole way of a dead letter."""
    first = cli("call", "probe.flaky", "key=cli", "times=1", "--retries", "0", "--json")
    assert first.status == 1
    name = first.json["id"]
    assert name in {DeadLetterView.model_validate(item).id for item in cli("dead", "list", "--json").json}
    [again] = cli("dead", "replay", name[-8:], "--json").json
    assert cli("result", again["id"], "--wait", "10").out == "worked after 1\n"
    assert cli("dead", "discard", name, "--json").json == {"discarded": 1}
    assert name not in {item["id"] for item in cli("dead", "list", "--json").json}


def test_retry_calls_again_and_follows(cli: Cli) -> None:
    """A new Invocation, linked to the old one."""
    name = _submitted(cli, "probe.echo", "text=again")
    cli("result", name, "--wait", "10")
    said = cli("retry", name, "--json")
    assert (said.status, said.json["replay_of"]) == (0, name)


def test_listings_have_the_wire_shapes(cli: Cli) -> None:
    """What scripts parse is what the API's models say."""
    for words, model in (
        (("tools",), ToolView),
        (("nodes",), NodeView),
        (("pools",), PoolView),
        (("ps", "--all"), InvocationView),
    ):
        for item in cli(*words, "--json").json:
            model.model_validate(item)
    flow = cli("queues", "--json").json
    assert [QueueView.model_validate(item) for item in flow["queues"]]
    BacklogView.model_validate(flow["backlog"])
    assert ToolView.model_validate(cli("tools", "probe.echo", "--json").json).name == "probe.echo"


def test_piped_tables_are_plain_and_whole(cli: Cli) -> None:
    """No colour, no glyphs, no cut-off text: `awk` gets what it expects."""
    name = _submitted(cli, "probe.echo", "text=x", "--project", "a-project-with-quite-a-long-name-that-stays-whole")
    cli("result", name, "--wait", "10")
    lines = cli("ps", "--all", "--tool", "probe.echo", COLUMNS="40").out.splitlines()
    assert lines[0].split() == ["ID", "TOOL", "PROJECT", "STATE", "NODE", "TRIES", "AGE", "TOOK"]
    assert any(name[-8:] in line and "stays-whole  succeeded" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_terminal_gets_colour_unless_it_says_no(cli: Cli) -> None:
    """NO_COLOR is honoured. Source: no-color.org."""
    coloured = cli("nodes", FORCE_COLOR="1", TERM="xterm").out
    plain = cli("nodes", FORCE_COLOR="1", TERM="xterm", NO_COLOR="1").out
    assert "\x1b[32m" in coloured
    assert "\x1b[32m" not in plain


def test_answer_cannot_steer_the_terminal(cli: Cli) -> None:
    """Control characters of a tool's answer reach a pipe as they are, a terminal never."""
    evil = json.dumps({"text": "\x1b]0;owned\x07"})
    assert cli("call", "probe.echo", "--args-json", evil).out == "\x1b]0;owned\x07\n"
    assert "\x1b]0" not in cli("call", "probe.echo", "--args-json", evil, FORCE_COLOR="1", TERM="xterm").out


def test_search_and_server_narrow_the_tools(cli: Cli) -> None:
    """All words of a search must be found."""
    assert [item["name"] for item in cli("tools", "--search", "sleep probe", "--json").json] == ["probe.sleep"]
    assert len(cli("tools", "probe", "--json").json) == 5
    assert cli("tools", "nobody", "--json").json == []


def test_a_node_is_enrolled_and_revoked(cli: Cli) -> None:
    """The token alone goes to standard output, so that `$(mcpfleet node enrol …)` is the token."""
    said = cli("node", "enrol", "fresh-1", "--pool", "main", "--ttl", "30m")
    assert (said.status, said.out.count("\n"), said.out[:10]) == (0, 1, "mcf_enrol_")
    assert "MCPFLEET_NODE_ENROL_TOKEN" in said.err
    assert said.out.strip() not in said.err
    view = EnrolmentView.model_validate(cli("node", "enrol", "fresh-1", "--pool", "main", "--json").json)
    assert (view.name, view.pool, view.is_rotation) == ("fresh-1", "main", False)
    assert cli("node", "revoke", "fresh-1", "--json").json == {"name": "fresh-1", "is_revoked": True}
    assert cli("node", "revoke", "fresh-1").status == 3
    assert cli("node", "enrol", "Not A Name", "--pool", "main").status == 2


def test_nodes_are_cordoned_and_projects_paused(cli: Cli) -> None:
    """Steering says what it did and how to undo it."""
    assert cli("node", "cordon", "a", "--json").json["state"] == "cordoned"
    assert cli("node", "uncordon", "a", "--json").json["state"] == "active"
    assert "mcpfleet resume project shop" in cli("pause", "project", "shop").err
    assert cli("resume", "project", "shop").status == 0


@pytest.mark.parametrize(
    ("environ", "status", "hint"),
    [
        ({"MCPFLEET_TOKEN": "wrong"}, 77, "MCPFLEET_TOKEN"),
        ({"MCPFLEET_TOKEN": ""}, 77, "MCPFLEET_TOKEN"),
        ({"MCPFLEET_URL": "http://127.0.0.1:9"}, 69, "mcpfleet up"),
        ({"MCPFLEET_URL": ""}, 69, "mcpfleet up"),
        ({"MCPFLEET_URL": "fleet"}, 2, "http://"),
    ],
)
def test_fleet_that_cannot_be_asked_is_one_line(cli: Cli, environ: dict[str, str], status: int, hint: str) -> None:
    """Unreachable is 69, not allowed is 77; both say what to set."""
    said = cli("ps", **environ)
    assert said.status == status
    assert hint in said.err
    assert said.err.count("\n") == 1


def test_answer_that_is_no_problem_json_is_still_one_line(tmp_path: Path) -> None:
    """A proxy in between answers in HTML."""
    out, err = io.StringIO(), io.StringIO()
    transport = httpx.MockTransport(lambda _: httpx.Response(502, text="<html>bad gateway</html>"))
    environ = {"MCPFLEET_URL": "http://x", "MCPFLEET_TOKEN": "t", "MCPFLEET_STATE_DIR": str(tmp_path)}
    status = run(["ps"], environ=environ, out=out, err=err, stdin=io.BytesIO(), transport=transport)
    assert (status, err.getvalue()) == (69, "mcpfleet: /v1/invocations answered 502 Bad Gateway\n")


def test_doctor_finds_an_unknown_setting_and_says_how_to_mend_it(cli: Cli) -> None:
    """A misspelt variable is found, the rest is still looked at."""
    said = cli("doctor", "--json", MCPFLEET_REDSI_URL="redis://x")
    found = {item["check"]: item for item in said.json}
    assert said.status == 2
    assert found["settings"]["health"] == "fail"
    assert "MCPFLEET_REDIS_URL" in found["settings"]["detail"]
    assert found["orchestrator"]["health"] == "ok"


def test_doctor_looks_for_the_commands_of_a_servers_file(cli: Cli, tmp_path: Path) -> None:
    """A server whose command is missing would only be noticed when its node starts."""
    path = tmp_path / "servers.json"
    servers = {"good": {"command": "sh"}, "bad": {"command": "no-such-command"}, "web": {"url": "http://x/mcp"}}
    path.write_text(json.dumps({"mcpServers": servers}))
    said = cli("doctor", "--servers", str(path), "--json", PATH=os.environ["PATH"])
    found = {item["check"]: item["health"] for item in said.json}
    assert said.status == 2
    assert [found[f"server {name}"] for name in servers] == ["ok", "fail", "ok"]


def test_doctor_is_well_where_all_is(cli: Cli) -> None:
    """What is not on this machine is skipped, not failed."""
    said = cli("doctor")
    assert said.status == 0, said.out
    assert "all is well" in said.err


def test_version_is_a_line(cli: Cli) -> None:
    """For bug reports."""
    assert cli("version").out.startswith("mcpfleet ")
    assert set(cli("version", "--json").json) == {"mcpfleet", "python"}
    assert cli("--version").out == cli("-V").out == cli("version").out
