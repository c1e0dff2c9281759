"""When silence in a long call counts, and when it does not."""

from __future__ import annotations

from worker.upstreams.pulse import Flight, Pulse

EVERY_S, LIMIT_S = 10.0, 300.0


class Session:
    """A pulse, and a clock that goes on with every look."""

    def __init__(self, *proven: str, **declared: float) -> None:
        self.proven = set(proven)
        self.pulse = Pulse(0.0, every_s=EVERY_S, default_limit_s=LIMIT_S, proven=self.proven)
        self.pulse.declared = declared
        self.now_s = 0.0

    def call(self, tool: str) -> Flight:
        """Begins now."""
        return self.pulse.began(tool, self.now_s)

    def silent(self, seconds: float) -> str | None:
        """Nothing is heard for so long; the tool whose limit was passed first."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + self.pulse.tick_s)
            over = self.pulse.look(self.now_s)
            if over is not None:
                return over.tool
        return None

    def beat(self) -> None:
        """A heartbeat, answered at once; and the next look."""
        self.pulse.heard(self.now_s)
        self.pulse.answered(frozenset(self.pulse.flights))
        assert self.silent(EVERY_S) is None


def test_a_server_that_never_answered_in_a_tool_may_be_silent_for_ever() -> None:
    """It does one thing at a time, for all that is known."""
    session = Session()
    session.call("build")
    assert session.silent(100 * LIMIT_S) is None


def test_one_that_did_answer_may_not() -> None:
    """In this call or in an earlier one of the same tool."""
    session = Session()
    first = session.call("build")
    session.beat()
    assert session.silent(LIMIT_S - 2 * EVERY_S) is None
    session.pulse.flights.discard(first)
    session.call("build")
    assert session.silent(LIMIT_S + EVERY_S) == "build"


def test_the_silence_of_a_call_counts_from_its_own_beginning() -> None:
    """A server that had nothing to say before has not been silent."""
    session = Session("build")
    session.silent(10 * LIMIT_S)
    session.call("build")
    assert session.silent(LIMIT_S - EVERY_S) is None
    assert session.silent(2 * EVERY_S) == "build"


def test_any_word_of_the_server_counts() -> None:
    """Progress of one call speaks for all: it is one process."""
    session = Session("build")
    session.call("build")
    for _ in range(10):
        assert session.silent(LIMIT_S - EVERY_S) is None
        session.pulse.heard(session.now_s)


def test_an_answer_in_the_same_breath_as_the_call_proves_nothing() -> None:
    """A blocked server answers the heartbeat when it is done, a moment before or after the call itself."""
    session = Session()
    flight = session.call("block")
    session.pulse.answered(frozenset({flight}))
    session.pulse.flights.discard(flight)
    session.silent(EVERY_S)
    assert session.proven == set()


def test_a_call_that_began_after_the_heartbeat_is_not_proven_by_it() -> None:
    """The answer was on its way already."""
    session = Session()
    asked_during = frozenset(session.pulse.flights)
    session.call("block")
    session.pulse.answered(asked_during)
    session.silent(EVERY_S)
    assert session.proven == set()


def test_nothing_is_held_against_a_tool_that_waits_behind_an_unproven_one() -> None:
    """The other one blocks the server, and may."""
    session = Session("chat")
    session.call("chat")
    session.call("build")
    assert session.silent(10 * LIMIT_S) is None


def test_a_declared_limit_counts_for_any_server_and_zero_for_none() -> None:
    """Whoever runs the server knows better."""
    assert Session(build=60.0).pulse.tick_s == EVERY_S
    hasty = Session(build=6.0)
    assert hasty.pulse.tick_s == 2.0
    hasty.call("build")
    assert hasty.silent(4.0) is None
    assert hasty.silent(4.0) == "build"
    patient = Session("build", build=0.0)
    patient.call("build")
    assert patient.silent(100 * LIMIT_S) is None


def test_time_in_which_the_node_did_not_look_is_nobodys_silence() -> None:
    """A frozen node heard nothing because it did not listen."""
    session = Session("build")
    session.call("build")
    session.silent(EVERY_S)
    session.now_s += 10 * LIMIT_S
    assert session.pulse.look(session.now_s) is None
    assert session.silent(LIMIT_S - 3 * EVERY_S) is None
    assert session.silent(3 * EVERY_S) == "build"
