"""boto3, held on a short lead: no retries of its own, time limits, and its errors in our words."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from orchestrator.autoscaler.cloud.errors import (
    CloudDown,
    CredentialsRefused,
    OrderRefused,
    OutOfCapacity,
    QuotaReached,
)
from orchestrator.autoscaler.cloud.options import place_of, redacted
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.autoscaler.cloud.threads import CONNECT_S, READ_S, THREADS

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientAddressCapacity",
        "InsufficientFreeAddressesInSubnet",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
        "IdempotentInstanceTerminated",
    }
)
QUOTA = frozenset({"MaxSpotInstanceCountExceeded", "InstanceLimitExceeded", "PendingVerification"})
QUOTA_ENDING = "LimitExceeded"
"""Of `VcpuLimitExceeded`, `AddressLimitExceeded` and their like, but for the next."""
CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "UnauthorizedOperation",
        "AccessDenied",
        "AccessDeniedException",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "UnrecognizedClientException",
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "OptInRequired",
        "Blocked",
    }
)
PASSING = frozenset(
    {"RequestLimitExceeded", "BandwidthLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException"}
    | {"Unavailable", "ServiceUnavailable", "InternalError", "InternalFailure", "InternalServerError"}
    | {"RequestTimeout", "RequestTimeoutException", "ConcurrentTagAccess", "IncorrectInstanceState"}
)
"""Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html; others by HTTP status."""
GONE = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "InvalidInstanceID"})
OTHER_PARAMETERS = "IdempotentParameterMismatch"
CLIENT_ERROR, TOO_MANY, SERVER_ERROR = 400, 429, 500


@dataclass(frozen=True, slots=True)
class Keys:
    """What is given by reference; without any, boto3 looks where it always does (role of the host, profile)."""

    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    profile: str = ""


class Ec2Wire:
    """One account's API, in any region. Its methods block."""

    def __init__(self, provider: str, keys: Keys, endpoint_url: str, answer_within_s: float) -> None:
        self._provider = provider
        self._keys = keys
        self._endpoint_url = endpoint_url
        self._answer_within_s = min(READ_S, answer_within_s)
        self._clients: dict[str, Any] = {}
        self._session: Any = None
        self._making = threading.Lock()
        # at DEBUG it writes whole requests, and a session token is among their headers
        logging.getLogger("botocore").setLevel(logging.INFO)

    def client(self, region: str) -> Any:  # noqa: ANN401 - boto3 makes its classes when it runs
        """Of one region; made once, because that takes a while."""
        import boto3
        from botocore.config import Config

        with self._making:
            if region not in self._clients:
                keys = (self._keys.access_key, self._keys.secret_key, self._keys.session_token)
                access_key, secret_key, session_token = (key.get_secret_value() if key else None for key in keys)
                # one session: it reads EC2's description, some megabytes, once for all regions
                self._session = self._session or boto3.Session(profile_name=self._keys.profile or None)
                self._clients[region] = self._session.client(
                    "ec2",
                    region_name=region,
                    endpoint_url=self._endpoint_url or None,
                    aws_access_key_id=access_key,
                    aws_secret_access_key=secret_key,
                    aws_session_token=session_token,
                    config=Config(
                        retries={"total_max_attempts": 1, "mode": "standard"},
                        connect_timeout=min(CONNECT_S, self._answer_within_s),
                        read_timeout=self._answer_within_s,
                        max_pool_connections=THREADS,
                    ),
                )
            return self._clients[region]

    def close(self) -> None:
        """Let go of connections."""
        for client in self._clients.values():
            client.close()

    @contextmanager
    def translated(self, order: Order | None = None) -> Iterator[None]:
        """What boto3 raises comes out in our words. With an order, a refusal is of that order."""
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        try:
            yield
        except exceptions.ClientError as error:
            raise self._in_our_words(error, order) from None  # the cause holds the whole exchange
        except (
            exceptions.NoCredentialsError,
            exceptions.PartialCredentialsError,
            exceptions.ProfileNotFound,
            exceptions.TokenRetrievalError,
        ) as error:
            raise CredentialsRefused(self._provider, self._said(error)) from None
        except exceptions.ParamValidationError as error:
            if order is None:
                raise
            raise OrderRefused(self._provider, self._said(error)) from None
        except exceptions.BotoCoreError as error:
            raise CloudDown(self._provider, f"{type(error).__name__}: {self._said(error)}") from None
        except (ResponseParserError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            # what an API of tomorrow, or a proxy's page, makes of our reading
            raise CloudDown(self._provider, f"its answer is not understood, {place_of(error)}") from None

    def _in_our_words(self, error: ClientError, order: Order | None) -> Exception:
        code, status, detail = code_of(error), _status_of(error), self._said(error)
        if code in PASSING or status == TOO_MANY or (status >= SERVER_ERROR and code not in CAPACITY):
            return CloudDown(self._provider, detail, retry_after_s=_retry_after_s(error))
        if code in CREDENTIALS:
            return CredentialsRefused(self._provider, detail)
        if code in QUOTA or code.endswith(QUOTA_ENDING):
            return QuotaReached(self._provider, detail)
        if code in CAPACITY and order is not None:
            return OutOfCapacity(self._provider, f"{order.type} in {order.region}", detail)
        if order is None or status < CLIENT_ERROR:
            return CloudDown(self._provider, detail)
        return OrderRefused(self._provider, detail)

    def _said(self, error: Exception) -> str:
        return redacted(error, self._keys.secret_key, self._keys.session_token, self._keys.access_key)


def code_of(error: ClientError) -> str:
    """EC2's word for it."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _retry_after_s(error: ClientError) -> float | None:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    after = str(headers.get("retry-after", ""))
    return float(after) if after.isdecimal() else None
