"""What MCPFLEET_REDIS_URL may say: one Redis, or a set that Sentinel watches.

    redis://[user[:password]@]host[:port][/db]      also rediss:// (TLS) and unix://
    sentinel://[user[:password]@]host[:port][,host[:port]…]/master[/db]
        [?sentinel_username=…&sentinel_password=…]

The hosts of a `sentinel://` address are the sentinels, `master` is the name they know the set by, user
and password are those of the data nodes. All of it is in the address, because nodes learn it at their
join and need no setting of their own. Pure; `redis_clients.py` connects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tasks.errors import SettingsError

ONE_SERVER = ("redis", "rediss", "unix")
SENTINEL = "sentinel"
SENTINEL_PORT = 26379
PORT_MAX = 65535
EXAMPLE = "sentinel://:password@host1:26379,host2:26379,host3:26379/mymaster/0"
OPTIONS = ("sentinel_username", "sentinel_password")
_MASTER = re.compile(r"[A-Za-z0-9._-]+")
"""What Sentinel itself takes as a name. Source: sentinelHandleConfiguration of Valkey 9 and Redis 7."""


@dataclass(frozen=True, slots=True)
class Sentinels:
    """A set of Redis servers of which sentinels say who is the master.

    Attributes:
        hosts: of the sentinels, with their ports.
        master: the name under which they watch the set.
        username: of the data nodes.
        sentinel_username: of the sentinels themselves, where they ask for one.
    """

    hosts: tuple[tuple[str, int], ...]
    master: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def broker_url(self) -> str:
        """As kombu takes it: user, password and database. The transport has the sentinels by an option."""
        who = ":".join(quote(word or "", safe="") for word in (self.username, self.password))
        prefix = f"{who}@" if self.username or self.password else ""
        return f"{SENTINEL}://{prefix}{_shown(*self.hosts[0])}/{self.db}"

    def shown(self) -> str:
        """Without any secret."""
        return f"{SENTINEL}://{','.join(_shown(*host) for host in self.hosts)}/{self.master}/{self.db}"


def parse(url: str) -> Sentinels | None:
    """The set that `url` names; None where it names one server, which redis-py and kombu parse themselves.

    Raises:
        SettingsError: neither; says what is wrong without showing a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong("cannot be read") from None  # what urlsplit says of it may show the password
    if parts.scheme in ONE_SERVER:
        return None
    if parts.scheme != SENTINEL:
        raise _wrong(f"begins with {parts.scheme or 'no scheme'!r}")
    if ";" in url:
        raise _wrong("holds ';'; separate sentinels by ',' and write user and password once (';' in them is %3B)")
    if "@" in parts.path + parts.query + parts.fragment:
        raise _wrong("holds '@' after the hosts; in user and password write / as %2F, ? as %3F, # as %23, @ as %40")
    who, at, hosts = parts.netloc.rpartition("@")
    username, _, password = who.partition(":") if at else ("", "", "")
    master, db = _path(parts.path)
    options = _options(parts.query)
    return Sentinels(
        hosts=tuple(_host(text) for text in hosts.split(",")),
        master=master,
        db=db,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
    )


def _path(path: str) -> tuple[str, int]:
    master, _, db = path.strip("/").partition("/")
    if not _MASTER.fullmatch(master):
        raise _wrong(f"names the master {master!r}" if master else "names no master after the hosts")
    if db and not db.isdecimal():
        raise _wrong(f"names the database {db!r}, but Redis counts them")
    return master, int(db or 0)


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _wrong(f"holds {text!r}, which is not host:port") from None
    if not host:
        raise _wrong("holds an empty host")
    return host, SENTINEL_PORT if port is None else port


def _options(query: str) -> dict[str, str]:
    found = dict(parse_qsl(query, keep_blank_values=True))
    for name in found:
        if name not in OPTIONS:
            raise _wrong(f"has the option {name!r}; there are {' and '.join(OPTIONS)}")
    return found


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _wrong(why: str) -> SettingsError:
    return SettingsError(f"the address of Redis {why}; write redis://host:6379/0 or {EXAMPLE}")
