"""What may be wrong with a request to AuthGuardian. A no of the policy is none of these: it is an answer."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import NotFound, Permanent


class InvalidRequest(Permanent):
    """It asks for what cannot be asked for."""

    code = "invalid_grant_request"
    http_status = 422

    def __init__(self, argument: str, detail: str) -> None:
        super().__init__(f"{argument}: {detail}")
        self.argument = argument


class NotThatAgent(Permanent):
    """Nobody asks in another's name."""

    code = "forbidden"
    http_status = 403

    def __init__(self, by: str, agent: str) -> None:
        super().__init__(
            f"{by!r} may not ask for {agent!r}: an agent asks for itself, and a service that asks for its agents needs "
            "the scope grants:request-for"
        )


class MayNotAnswer(Permanent):
    """Not this person."""

    code = "forbidden"
    http_status = 403

    def __init__(self, by: str, why: str) -> None:
        super().__init__(f"{by!r} may not answer this: {why}")


class OtherTerms(Permanent):
    """The answer is to something else than is asked."""

    code = "other_terms"
    http_status = 409

    def __init__(self, grant_id: str) -> None:
        super().__init__(f"request {grant_id} asks for other terms than this answer was given to; look at it again")


class AnsweredBefore(Permanent):
    """Nobody waits for an answer any more."""

    code = "grant_answered"
    http_status = 409

    def __init__(self, grant_id: str, state: str) -> None:
        super().__init__(f"request {grant_id} is {state} already")


class NoSuchGrant(NotFound):
    """There is none, or it is another's."""

    def __init__(self, grant_id: str, known: Sequence[str] = ()) -> None:
        super().__init__("grant", grant_id, list(known))


class TooManyGrants(Permanent):
    """No room for another."""

    code = "too_many_grants"
    http_status = 409

    def __init__(self, whose: str, most: int) -> None:
        super().__init__(f"{whose} has {most} requests and grants open, which is the limit; revoke what is not needed")
