"""What is wrong with a token, and what keeps us from telling.

Messages name the check, never the token. A wrong token is 401; an issuer that does not answer is 503,
because the same token may be good a moment later.
"""

from __future__ import annotations

from tasks.errors import NotAllowed, Retryable


class BadToken(NotAllowed):
    """A JWT that opens nothing here. Source: RFC 6750, section 3.1, `invalid_token`."""

    code = "invalid_token"

    def __init__(self, why: str, todo: str = "ask the issuer for a new one") -> None:
        super().__init__(f"this token is refused: {why}; {todo}")


class ForgedToken(BadToken):
    """Nobody issued it: no key of its issuer signed it. The rest may have been good once, or elsewhere."""


class IssuerDown(Retryable):
    """The issuer's keys are too old to be relied on, and it does not give new ones."""

    code = "issuer_down"

    def __init__(self, issuer: str, detail: str) -> None:
        super().__init__(
            f"the issuer {issuer} does not say which keys it signs with ({detail}), so its tokens cannot be checked; "
            "ask again, and check that this orchestrator reaches it"
        )


class OAuthError(Exception):
    """An answer of the authorization server. Source: RFC 6749, section 5.2.

    `is_basic` answers 401 with a challenge, as section 5.2 asks of one who tried HTTP Basic.
    """

    def __init__(self, error: str, description: str, *, status: int = 400, is_basic: bool = False) -> None:
        super().__init__(f"{error}: {description}")
        self.error, self.description, self.status, self.is_basic = error, description, status, is_basic
