"""A Redis or Valkey server, alone or a cluster: commands in one pipeline, and the few things that are not about a call.

The library ``redis`` (extra ``redis``) is imported when the first connection is made, and nowhere else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from time import perf_counter, time
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.history.clock import Offset
from otel_promptcache.history.sharing import NAMESPACE, Command

TIMEOUT: Final = 0.25
"""Seconds that a connection or an answer is waited for, on our own thread, where calls wait less than that."""
ROSTER: Final = f"{NAMESPACE.partition(':')[0]}:workers"
"""Which hash keys and versions are in use. It has no tenant and no key in its name: that is what it is about."""
ROSTER_SECONDS: Final = 3600
ACL: Final = (
    "resetkeys",
    "~promptcache:*",
    "resetchannels",
    "-@all",
    "+hmget",
    "+hgetall",
    "+hset",
    "+hdel",
    "+get",
    "+set",
    "+incr",
    "+expire",
    "+unlink",
    "+time",
    "+zadd",
    "+zrange",
    "+zremrangebyscore",
    "+zremrangebyrank",
    "+client|setname",
)
"""What a user of the server must be allowed, as ``ACL SETUSER`` takes it. That the library may not say its own name
(``client|setinfo``) does not matter to it, and older servers refuse a line that speaks of it."""
ACL_CLUSTER: Final = ("+cluster|slots", "+command")
"""What it needs beside that in a cluster."""
ACL_ERASE: Final = ("+scan",)
"""What ``otel-promptcache fleet erase`` needs beside that."""
_SCANNED: Final = 1000
_MEMBERS: Final = 10_000
_MEMBER: Final = re.compile(r"(\S+) (\d+) (\S+) (\S+)(?: ([+-]\d+)s)?(?: .*)?")


class Member(NamedTuple):
    """A kind of worker, as it says of itself on the roster: ``KEY+OTHER SCHEMA VERSION HOST``, a name that it was given
    behind that and a slash, and where its clock is seconds off the server's, ``+37s`` at the end."""

    keys: tuple[str, ...]
    schema: int
    version: str
    host: str
    name: str = ""
    """Service and a ``service.instance.id`` that somebody chose; empty where it is of one process only."""
    clock: int = 0
    """Seconds that its clock is ahead of the server's."""

    def __str__(self) -> str:
        clock = f" {self.clock:+d}s" if self.clock else ""
        where = f"{self.host}/{self.name}" if self.name else self.host
        return f"{'+'.join(self.keys)} {self.schema} {self.version} {where}{clock}"

    @classmethod
    def of(cls, said: str) -> Member | None:
        """What a worker of any version has said, None where that is nothing of ours."""
        found = _MEMBER.fullmatch(said)
        if found is None:
            return None
        host, _, name = found[4].partition("/")
        return cls(tuple(found[1].split("+")), int(found[2]), found[3], host, name, int(found[5] or 0))

    def reads(self, other: Member) -> bool:
        """Whether two workers read what the other writes, by their keys."""
        return self.keys[0] in other.keys or other.keys[0] in self.keys


class Server:
    """One server, or one cluster. For one thread at a time."""

    def __init__(self, url: str, timeout: float = TIMEOUT, clock: Callable[[], float] = time) -> None:
        """``url``: ``redis://``, ``rediss://`` or ``unix://``, with user and password in it; ``?cluster=true`` for a
        cluster. ``clock``: this machine's, in POSIX seconds."""
        self._url, self._clustered = _without_cluster(url)
        self._timeout = timeout
        self._client: Any = None
        self._orphan: Any = None
        self._clock = clock
        self._offset = Offset()
        self.troubles: Counter[str] = Counter()
        """What was refused beside the commands of ``run``."""
        after_fork_in_child(self._after_fork)

    def _after_fork(self) -> None:
        # The connection is the parent's. It is neither used nor closed here: both would be seen over there.
        self._orphan, self._client = self._client, None

    @staticmethod
    def prepare() -> None:
        """Imports the library."""
        import redis  # noqa: F401

    @property
    def client(self) -> Any:
        """The client of the library, for what is not about a call. Raises ImportError without the extra ``redis``."""
        if self._client is None:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            options: dict[str, Any] = {
                "socket_timeout": self._timeout,
                "socket_connect_timeout": self._timeout,
                "client_name": "otel-promptcache",
            }
            if self._clustered:
                from redis.cluster import RedisCluster

                self._client = RedisCluster.from_url(self._url, **options, retry=Retry(NoBackoff(), 1))
            else:
                self._client = redis.Redis.from_url(self._url, **options, retry=Retry(NoBackoff(), 0))
        return self._client

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands, sent at once; an error in place of the reply of a command that failed. Raises what
        the library raises where there is no answer at all."""
        client = self.client
        pipeline = client.pipeline() if self._clustered else client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        if self._clustered:
            replies: list[Any] = pipeline.execute(raise_on_error=False)
            return replies
        pipeline.execute_command("TIME")
        begun, asked = perf_counter(), self._clock()
        *replies, told = pipeline.execute(raise_on_error=False)
        self._heard(told, asked, begun)
        return replies

    def ahead(self) -> float:
        """Seconds that the server's clock is ahead of this machine's. Asks where it has not been heard of late: all
        workers of a cluster the same node."""
        if not self._offset.known(perf_counter()):
            from redis.exceptions import ResponseError

            node = {"target_nodes": self.client.get_node_from_key(ROSTER)} if self._clustered else {}
            begun, asked = perf_counter(), self._clock()
            try:
                told = self.client.execute_command("TIME", **node)
                self._heard(told, asked, begun)
            except ResponseError as error:
                self._offset.unheard(perf_counter())
                self.troubles[type(error).__name__] += 1
        return self._offset.seconds

    @property
    def now(self) -> float:
        """The server's time, as far as it is known."""
        return self._clock() + self._offset.seconds

    def _heard(self, told: object, asked: float, begun: float) -> None:
        now = perf_counter()
        if isinstance(told, tuple):
            self._offset.heard(told[0] + told[1] / 1e6, asked, now - begun, now)

    # --- Not about a call -----------------------------------------------------------------------------------

    def erase(self, prefix: str) -> int:
        """Takes away every key that begins with this; how many there were."""
        keys, gone = self.keys(prefix), 0
        while some := list(islice(keys, _SCANNED)):
            gone += sum(reply for reply in self.run([("UNLINK", key) for key in some]) if isinstance(reply, int))
        return gone

    def keys(self, prefix: str) -> Iterator[bytes]:
        """The keys that begin with this."""
        pattern = prefix.replace("[", "\\[") + "*"
        yield from self.client.scan_iter(match=pattern, count=_SCANNED)

    def enrol(self, member: str, now: float) -> list[Command]:
        """Says that a worker of this kind is here, and who else was in the last hour."""
        return [
            ("ZADD", ROSTER, now, member),
            ("ZREMRANGEBYSCORE", ROSTER, "-inf", now - ROSTER_SECONDS),
            ("ZREMRANGEBYRANK", ROSTER, 0, -_MEMBERS),
            ("EXPIRE", ROSTER, ROSTER_SECONDS),
            ("ZRANGE", ROSTER, 0, -1),
        ]

    def roster(self) -> list[tuple[str, float]]:
        """What the workers said of themselves, and when they last did (the server's clock)."""
        found = self.client.zrange(ROSTER, 0, -1, withscores=True)
        return [(member.decode("utf-8", "replace"), float(at)) for member, at in found]


def _without_cluster(url: str) -> tuple[str, bool]:
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query)
    rest = [(name, value) for name, value in pairs if name != "cluster"]
    clustered = any(name == "cluster" and value.lower() in ("true", "1", "yes", "on") for name, value in pairs)
    return urlunsplit(parts._replace(query=urlencode(rest))), clustered
