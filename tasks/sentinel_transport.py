# mypy: disable-error-code="no-untyped-call,assignment"
# kombu ships types for a part of itself only.
"""kombu's Redis transport on connections that lead to the master of the moment.

kombu's own `sentinel://` asks the sentinels one after the other, waits seconds for each that is dead,
and dies of the answer that a blocked BRPOP gets when its master is demoted: see `sentinel.py`.
Everything else is the Redis transport's.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis

from tasks.redis_url import Sentinels
from tasks.sentinel import MasterConnection


class Channel(kombu_redis.Channel):
    """Takes the transport option `sentinels`, a tasks.redis_url.Sentinels."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, "sentinels")
    connection_class = MasterConnection
    sentinels: Sentinels

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous)
        params |= {"sentinels": self.sentinels}
        del params["host"], params["port"]
        return params


class Transport(kombu_redis.Transport):
    """What `broker_transport` names."""

    Channel = Channel
