"""What a cloud may answer besides yes. Each says what the actuator may do next."""

from __future__ import annotations

from tasks.errors import Permanent, Retryable


class CloudDown(Retryable):
    """No answer, or one that says nothing about the order: it may have been carried out."""

    code = "cloud_down"

    def __init__(self, provider: str, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"the cloud {provider!r} does not answer ({detail}); it is asked again")
        self.retry_after_s = retry_after_s


class OutOfCapacity(Retryable):
    """The provider has none of these now."""

    code = "out_of_capacity"

    def __init__(self, provider: str, what: str, detail: str) -> None:
        super().__init__(f"the cloud {provider!r} has no {what} now ({detail}); the next rung of the ladder is tried")


class QuotaReached(Retryable):
    """The account may have no more. `is_ours`: not the provider says so, but its table in the pools file."""

    code = "quota_reached"

    def __init__(self, provider: str, detail: str, *, is_ours: bool = False) -> None:
        table = f"[providers.{provider}] of the pools file"
        who = f"by {table}, {provider!r}" if is_ours else f"the account at {provider!r}"
        mend = "raise the limit there for more" if is_ours else "ask the provider for a higher limit"
        super().__init__(f"{who} may have no more machines ({detail}); the next rung of the ladder is tried, {mend}")


class CredentialsRefused(Permanent):
    """The account does not let us."""

    code = "credentials_refused"

    def __init__(self, provider: str, detail: str) -> None:
        super().__init__(
            f"the cloud {provider!r} refuses our credentials ({detail}); nothing is ordered or ended there until "
            f"[providers.{provider}] of the pools file names good ones"
        )


class OrderRefused(Permanent):
    """The order itself is wrong."""

    code = "order_refused"

    def __init__(self, provider: str, detail: str) -> None:
        super().__init__(f"the cloud {provider!r} refuses the order ({detail}); correct the pool's ladder")
