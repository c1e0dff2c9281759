"""An ACP agent that does as a script says: `python3 scripted_acp_agent.py SCRIPT.json`. The standard library only.

Speaks the protocol over standard input and output as its schema has it, and breaks it in every way that a test
wants. It runs inside a sandbox, where there are no packages; nothing of ours is in it.
Source: Agent Client Protocol v1, schema 1.19.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

Said = dict[str, Any]
SESSIONS = pathlib.Path.home() / ".scripted"


class Agent:
    """One process; requests are answered in the order that they come in."""

    def __init__(self, script: Said) -> None:
        self.script = script
        self.session = ""
        self.prompt_id: object = None
        self.asked = 0
        self.is_cancelled = False

    def say(self, **message: object) -> None:
        """One line."""
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()

    def update(self, name: str, /, **more: object) -> None:
        """Of the session."""
        said = {"sessionId": self.session, "update": {"sessionUpdate": name, **more}}
        self.say(method="session/update", params=said)

    def heard(self) -> Said:
        """The next message; ends where nothing more comes."""
        line = sys.stdin.readline()
        if not line:
            if self.script.get("stays"):
                while True:
                    time.sleep(60)
            sys.exit(0)
        message: Said = json.loads(line)
        if message.get("method") == "session/cancel":
            self.is_cancelled = True
            note("cancelled", message["params"])
        return message

    def ask(self, method: str, **params: object) -> Said:
        """Of the client; what else comes meanwhile is taken note of."""
        self.asked += 1
        number = f"agent-{self.asked}"
        self.say(id=number, method=method, params={"sessionId": self.session, **params})
        while (message := self.heard()).get("id") != number:
            pass
        return message

    def run(self) -> None:
        """Until the client goes."""
        while True:
            message = self.heard()
            method, params = message.get("method"), message.get("params") or {}
            if method == "initialize":
                self.initialize(message["id"], params)
            elif method == "session/new":
                self.session = "scripted-1"
                note("new", params)
                self.say(id=message["id"], result={"sessionId": self.session, **self.script.get("new", {})})
                while self.script.get("is_deaf"):
                    time.sleep(60)
            elif method == "session/load":
                self.load(message["id"], params)
            elif method == "session/set_config_option":
                note("option", params)
                self.say(id=message["id"], result={"configOptions": []})
            elif method == "session/prompt":
                self.prompt(message["id"], params)
            elif "id" in message:
                self.say(id=message["id"], error={"code": -32601, "message": "Method not found"})

    def initialize(self, number: object, params: Said) -> None:
        """As the script has it; by default what a good agent says."""
        note("initialize", params)
        for line in self.script.get("greets", ()):
            self.do_raw(line + "\n")
        if "refuses" in self.script:
            self.say(id=number, error=self.script["refuses"])
            return
        good = {
            "protocolVersion": 1,
            "agentCapabilities": {"loadSession": True, "mcpCapabilities": {"http": False}},
            "agentInfo": {"name": "scripted", "version": "1.0"},
            "authMethods": [],
        }
        self.say(id=number, result=good | self.script.get("initialize", {}))

    def load(self, number: object, params: Said) -> None:
        """A session is told again from its beginning, with what it cost until then."""
        self.session = params["sessionId"]
        kept = SESSIONS / self.session
        if not kept.exists():
            self.say(id=number, error={"code": -32002, "message": "Resource not found"})
            return
        self.update("user_message_chunk", content={"type": "text", "text": kept.read_text()})
        self.update("agent_message_chunk", content={"type": "text", "text": "what was said before"})
        self.update("usage_update", used=1, size=2, cost={"amount": 0.5, "currency": "USD"})
        self.say(id=number, result={})

    def prompt(self, number: object, params: Said) -> None:
        """Do each step of the script, then end the turn."""
        self.prompt_id = number
        SESSIONS.mkdir(exist_ok=True)
        with (SESSIONS / self.session).open("a") as kept:
            kept.write(params["prompt"][0]["text"])
        for step in self.script["steps"]:
            self.step(dict(step))
        self.say(id=number, result={"stopReason": self.script.get("stop", "end_turn")})

    def step(self, step: Said) -> None:
        """One of the methods `do_…`."""
        getattr(self, f"do_{step.pop('do')}")(**step)

    def do_say(self, text: str) -> None:
        """In pieces."""
        for at in range(0, len(text), 5):
            self.update("agent_message_chunk", content={"type": "text", "text": text[at : at + 5]})

    def do_think(self, text: str) -> None:
        """For itself."""
        self.update("agent_thought_chunk", content={"type": "text", "text": text})

    def do_update(self, **update: object) -> None:
        """Any at all."""
        self.say(method="session/update", params={"sessionId": self.session, "update": update})

    def do_write(  # noqa: PLR0917 - what differs between agents
        self,
        path: str,
        text: str,
        asks: bool = True,
        kind: str = "edit",
        heeds: bool = True,
        offers: tuple[str, ...] = ("allow_always", "allow_once", "reject_once"),
        in_truth: str | None = None,
    ) -> None:
        """A file, with a question before. `in_truth`: the path that it writes to after it was allowed another one."""
        call = {"toolCallId": "call-1", "title": "write", "kind": kind, "rawInput": {"path": path}}
        self.update("tool_call", status="pending", **call)
        outcome = {"optionId": "allow_once"}
        if asks:
            options = [{"optionId": kind, "name": kind, "kind": kind} for kind in offers]
            call["title"] = path
            outcome = self.ask("session/request_permission", toolCall=call, options=options)["result"]["outcome"]
            note("outcome", outcome)
        is_done = outcome.get("optionId") == "allow_once" or not heeds
        if is_done:
            pathlib.Path(in_truth or path).write_text(text)
        end: Said = {"status": "completed" if is_done else "failed", "rawInput": {"path": in_truth or path}}
        self.update("tool_call_update", toolCallId="call-1", **end)

    def do_shell(self, command: str) -> None:
        """What it says is told."""
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
        self.do_say(done.stdout + done.stderr)

    def do_ask(self, method: str, params: Said) -> None:
        """For what no client of ours offers; the answer is told."""
        self.do_say(json.dumps(self.ask(method, **params).get("error", "none")))

    def do_model(self, model: str = "glm-5", times: int = 1, gives_up: bool = True) -> None:
        """Ask it over the way out, as its environment says; what it answers is told, a refusal ends the run."""
        said = {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "hello"}],
        }
        request = urllib.request.Request(  # noqa: S310 - the way out, as it was told
            os.environ["MODEL_URL"] + "/chat/completions",
            json.dumps(said).encode(),
            {"authorization": "Bearer " + os.environ["MODEL_KEY"], "content-type": "application/json"},
        )
        for _ in range(times):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - see above
                    self.do_say(f"{answer.status} {len(answer.read()) > 0}")
            except urllib.error.HTTPError as error:
                if not gives_up:
                    return
                said_back = json.loads(error.read())["error"]["message"]
                raise SystemExit(self.fail(said_back)) from error

    def fail(self, why: str) -> int:
        """As agents do: an error in place of the prompt's answer."""
        self.say(
            id=self.prompt_id,
            error={"code": -32603, "message": "Internal error", "data": {"details": why}},
        )
        return 0

    def do_raw(self, text: str, times: int = 1) -> None:
        """Anything, on standard output."""
        for _ in range(times):
            sys.stdout.write(text)
        sys.stdout.flush()

    def do_flood(self, bytes: int) -> None:  # noqa: A002 - a word of the script
        """One line without an end."""
        piece = "x" * 1_000_000
        for _ in range(bytes // len(piece)):
            sys.stdout.write(piece)
        sys.stdout.write("\n")
        sys.stdout.flush()

    def do_complain(self, text: str) -> None:
        """On standard error."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def do_exit(self, status: int) -> None:
        """In the middle."""
        os._exit(status)

    def do_wait(self, heeds: bool = True) -> None:
        """Until it is cancelled; or it heeds nothing, SIGTERM neither, and has a child that does not."""
        if heeds:
            while not self.is_cancelled:
                self.heard()
            self.script = self.script | {"stop": "cancelled"}
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
        while True:
            time.sleep(60)

    def do_link(self, path: str, to: str) -> None:
        """In HOME, in place of what is there."""
        at = pathlib.Path.home() / path
        shutil.rmtree(at, ignore_errors=True)
        at.symlink_to(to)

    def do_show(self) -> None:
        """What it sees of the machine."""
        seen = {
            "uid": os.getuid(),
            "environ": dict(os.environ),
            "cwd": str(pathlib.Path.cwd()),
            "root": sorted(map(str, pathlib.Path("/").iterdir())),
        }
        home = pathlib.Path.home()
        seen["files"] = {str(at.relative_to(home)): at.read_text() for at in home.rglob("*") if at.is_file()}
        self.do_say(json.dumps(seen))


def note(name: str, said: Said) -> None:
    """What the client said, for the test to read in HOME."""
    SESSIONS.mkdir(exist_ok=True)
    (SESSIONS / f"{name}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    Agent(json.loads(pathlib.Path(sys.argv[1]).read_text())).run()
