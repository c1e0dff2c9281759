"""What may be wrong with an API key."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import NotAllowed, NotFound, Permanent


class NoSuchKey(NotFound):
    """There is none, or it is another tenant's."""

    def __init__(self, key_id: str, known: Sequence[str]) -> None:
        super().__init__("key", key_id, list(known))


class KeyExpired(NotAllowed):
    """Its time is over."""

    code = "key_expired"

    def __init__(self, key_id: str, name: str, late_s: float) -> None:
        super().__init__(
            f"the API key {name!r} ({key_id}) expired or was replaced {late_s:.0f} s ago; use its successor, or ask "
            "an admin for another: mcpfleet keys create"
        )


class KeyElsewhere(NotAllowed):
    """It is good from other addresses only."""

    code = "key_elsewhere"

    def __init__(self, key_id: str, name: str, peer: str | None) -> None:
        super().__init__(
            f"the API key {name!r} ({key_id}) may not be used from {peer or 'here'}; its networks are in "
            "`mcpfleet keys list`"
        )


class KeyTooYoung(Permanent):
    """Its holder need not replace it yet."""

    code = "key_not_due"
    http_status = 409

    def __init__(self, key_id: str, left_s: float) -> None:
        super().__init__(
            f"key {key_id} may be rotated by its holder in {left_s / 86_400:.1f} days; until then an admin may: "
            f"mcpfleet keys rotate {key_id}"
        )


class KeyReplaced(Permanent):
    """One successor is enough."""

    code = "key_replaced"
    http_status = 409

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"key {key_id} has a successor that is in use: use that one. If that was not your doing: mcpfleet keys "
            f"revoke {key_id}, which voids both"
        )


class KeyHasNoSecret(Permanent):
    """A signing key is rotated by its holder: he makes another pair."""

    code = "key_has_no_secret"
    http_status = 409

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"key {key_id} signs challenges and has no secret to rotate: make another pair, then "
            "mcpfleet keys create --public-key, and revoke this one"
        )


class MoreThanOwn(Permanent):
    """Nobody gives what he does not have."""

    code = "forbidden"
    http_status = 403

    def __init__(self, by: str, what: str) -> None:
        super().__init__(f"{by!r} may not give {what}, which he may not do himself")


class TooManyKeys(Permanent):
    """No room for another."""

    code = "too_many_keys"
    http_status = 409

    def __init__(self, most: int) -> None:
        super().__init__(f"there are {most} API keys, which is the limit; mcpfleet keys revoke those not used any more")
