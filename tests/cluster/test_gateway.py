"""A server that has its clients' commands run by a cluster: they see one server, as far as a cluster lets them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import redis
from cluster.harness import Cluster, free_port, real_cluster, until
from conformance.oracle import Wire, request

import kvclient
import kvserver
from kvclient.cluster.slots import slot_of
from kvserver import ConfigError
from kvserver.session import Session

KEYS = [f"key:{number}" for number in range(100)]


@pytest.fixture
def gateway(cluster: Cluster) -> Iterator[kvserver.Server]:
    before = set(threading.enumerate())
    with kvserver.Server(port=0, backend=cluster.url, debug_command="yes") as server:
        yield server
    assert set(threading.enumerate()) <= before


@pytest.fixture(params=[2, 3])
def client(gateway: kvserver.Server, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with redis.Redis(port=gateway.port, protocol=request.param) as found:
        yield found


def test_a_client_that_knows_no_cluster(client: redis.Redis, cluster: Cluster) -> None:
    for key in KEYS:
        assert client.set(key, key, ex=100)
    assert [client.get(key) for key in KEYS] == [key.encode() for key in KEYS]
    assert client.mget(KEYS) == [key.encode() for key in KEYS]
    assert client.mset(dict.fromkeys(KEYS, "1"))
    assert client.incr(KEYS[0], 5) == 6
    assert client.incrbyfloat(KEYS[1], 0.5) == 1.5
    assert 0 < client.ttl(KEYS[2]) <= 100 or client.ttl(KEYS[2]) == -1
    assert client.exists(*KEYS) == len(KEYS)
    assert sorted(client.scan_iter(match="key:1*", count=3)) == sorted(
        key.encode() for key in KEYS if key.startswith("key:1")
    )
    assert client.dbsize() == len(KEYS)
    assert sum(int(node.raw("DBSIZE")[1:]) for node in cluster.primaries()) == len(KEYS)
    assert client.delete(*KEYS[:10]) == 10
    assert client.get(KEYS[0]) is None
    client.flushall()
    assert client.dbsize() == 0
    assert client.publish("channel", "x") == 0


def test_replies_are_those_of_the_real_one(gateway: kvserver.Server, cluster: Cluster) -> None:
    """Byte for byte, in both versions of the protocol, errors too."""
    key = b"k"
    node = cluster.owner(slot_of(key))
    lines = [
        b"SET k 10", b"GET k", b"GET none", b"INCR k", b"INCRBYFLOAT k 0.25", b"STRLEN k", b"APPEND k x", b"INCR k",
        b"GET", b"TYPE k", b"TTL k", b"EXPIRE k 100", b"SETRANGE k 3 abc", b"GETRANGE k 0 -1", b"OBJECT ENCODING k",
        b"LCS k k IDX", b"DEL k", b"SET k v NX GET", b"SET k v NX", b"EVAL 1 0", b"MGET k", b"MSET k", b"LPUSH k x",
        b"GETEX k PERSIST", b"BITCOUNT k", b"RENAME k k", b"RENAME k other", b"EVALSHA aaaa 1 k", b"SETBIT k 9 1",
    ]  # fmt: skip
    for protocol in (b"2", b"3"):
        node.raw("DEL", key)
        with Wire(gateway.port) as ours:
            ours.ask("HELLO", protocol)
            here = [ours.run(line.split())[0] for line in lines]
        node.raw("DEL", key)
        with Wire(node.port) as theirs:
            theirs.ask("HELLO", protocol)
            there = [theirs.run(line.split())[0] for line in lines]
        for line, mine, real in zip(lines, here, there, strict=True):
            if line.startswith((b"LPUSH", b"EVAL 1", b"GET\n")) or line == b"GET":
                continue  # what this server refuses itself, before it asks
            assert mine == real, line


def test_transactions(client: redis.Redis) -> None:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("{u}a", 1).incr("{u}a").ping().incr("{u}a").lpos("{u}a", "x")
        with pytest.raises(redis.ResponseError, match="unknown command"):
            pipeline.execute()
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("{u}a", 1).incr("{u}a").ping().append("{u}a", "x").incr("{u}a").get("{u}a")
        found = pipeline.execute(raise_on_error=False)
    assert found[:4] == [True, 2, True, 2]
    assert isinstance(found[4], redis.ResponseError)
    assert found[5] == b"2x"
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("a", 1).set("b", 1)
        with pytest.raises(redis.ResponseError, match="same slot"):
            pipeline.execute()
    assert client.mget("a", "b") == [None, None]


def test_watching(gateway: kvserver.Server) -> None:
    with Wire(gateway.port) as one, Wire(gateway.port) as other:
        assert one.ask("WATCH", "{u}a", "{u}b") == b"+OK\r\n"
        assert one.ask("WATCH", "{u}c") == b"+OK\r\n"
        other.ask("SET", "{u}c", "x")
        assert one.run([b"MULTI"], [b"SET", b"{u}a", b"1"], [b"EXEC"])[-1] == b"*-1\r\n"
        assert one.ask("GET", "{u}a") == b"$-1\r\n"
        one.ask("WATCH", "{u}a")
        assert one.run([b"MULTI"], [b"SET", b"{u}a", b"1"], [b"PING"], [b"EXEC"])[-1] == b"*2\r\n+OK\r\n+PONG\r\n"
        one.ask("WATCH", "{u}a")
        other.ask("SET", "{u}a", "2")
        assert one.ask("UNWATCH") == b"+OK\r\n"
        assert one.run([b"MULTI"], [b"GET", b"{u}a"], [b"EXEC"])[-1] == b"*1\r\n$1\r\n2\r\n"
        one.ask("WATCH", "{u}a")
        other.ask("SET", "{u}a", "3")
        assert one.run([b"MULTI"], [b"DISCARD"], [b"MULTI"], [b"GET", b"{u}a"], [b"EXEC"])[-1].endswith(b"3\r\n")
        assert one.ask("WATCH", "a", "b") == b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
        one.ask("WATCH", "{u}a")
        other.ask("SET", "{u}a", "3")
        assert one.run([b"MULTI"], [b"PING"], [b"EXEC"])[-1] == b"*-1\r\n"
        for _ in range(100):  # who leaves while it watches gives its connection back
            with Wire(gateway.port) as third:
                third.ask("WATCH", "{u}a")
        one.ask("WATCH", "{u}a")
    assert gateway.stop()


def test_what_a_cluster_cannot_do_is_told(gateway: kvserver.Server) -> None:
    with Wire(gateway.port) as wire:
        assert wire.ask("SELECT", 0) == b"+OK\r\n"
        assert wire.ask("SELECT", 1) == b"-ERR DB index is out of range\r\n"
        assert wire.ask("RENAME", "a", "b") == b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
        assert wire.ask("MSETNX", "a", 1, "b", 1).startswith(b"-CROSSSLOT ")
        for words in ("SSUBSCRIBE x", "MONITOR", "CLIENT TRACKING ON", "BGSAVE", "KV.CLOCK", "DEBUG SLEEP 0"):
            assert b" is not for a gateway: connect to the server behind it" in wire.ask(*words.split()), words


def test_publish_and_subscribe(cluster: Cluster) -> None:
    """What is published at the cluster or by any gateway is heard by those who subscribe at any, once each."""
    with (
        kvserver.Server(port=0, backend=cluster.url) as one,
        kvserver.Server(port=0, backend=cluster.url) as two,
        kvclient.connect(one.url, timeout=20) as here,
        kvclient.connect(two.url, timeout=20) as there,
        kvclient.connect(cluster.url, timeout=20) as behind,
        here.listen("news", patterns=["n*"]) as first,
        there.listen("news") as second,
    ):
        for number, client in enumerate((here, there, behind) * 3):
            client.publish("news", str(number))
            client.publish("other", "x")
            wanted = str(number).encode()
            got = [first.next(20), first.next(20), second.next(20)]
            assert [message and message.data for message in got] == [wanted] * 3
            assert {message.pattern for message in got if message} == {None, b"n*"}
        assert first.next(0.01) is None
        assert here.pubsub_numsub("news") == {b"news": 1}


def test_listening_while_the_backend_is_away() -> None:
    with (
        kvserver.Server(port=0, backend="valkey+cluster://127.0.0.1:1?timeout=0.2") as server,
        Wire(server.port) as wire,
    ):
        assert wire.ask("SUBSCRIBE", "x").startswith(b"-TRYAGAIN the backend cannot be reached now")
        assert wire.ask("PING") == b"+PONG\r\n"


def test_limits_and_users_are_the_gateways_own(cluster: Cluster) -> None:
    with kvserver.Server(port=0, backend=cluster.url, requirepass="secret") as server:
        with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("a")
        with redis.Redis(port=server.port, password="secret") as client:
            client.acl_setuser("ann", enabled=True, passwords=["+word"], keys=["ann:*"], commands=["+get", "+set"])
            assert client.info("stats")["total_commands_processed"] > 0
        with redis.Redis(port=server.port, username="ann", password="word") as ann:
            assert ann.set("ann:x", 1)
            with pytest.raises(redis.exceptions.NoPermissionError):
                ann.set("other", 1)
            with pytest.raises(redis.exceptions.NoPermissionError):
                ann.incr("ann:x")


def test_many_clients_at_once_and_several_gateways(cluster: Cluster) -> None:
    with (
        kvserver.Server(port=0, backend=cluster.url) as one,
        kvserver.Server(port=0, backend=cluster.url) as two,
    ):

        def work(number: int) -> None:
            with redis.Redis(port=(one, two)[number % 2].port) as client:
                for key in KEYS:
                    client.incr(key)

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(work, range(16)))
        with kvclient.connect(one.url) as kv:
            assert kv.mget(*KEYS) == [b"16"] * len(KEYS)


def test_a_pipeline_keeps_its_order(gateway: kvserver.Server) -> None:
    with Wire(gateway.port) as wire:
        replies = wire.run(*[[b"INCR", key.encode()] for key in KEYS for _ in range(3)])
    assert replies == [b":1\r\n", b":2\r\n", b":3\r\n"] * len(KEYS)


def test_many_that_watch_hold_nobody_up(gateway: kvserver.Server) -> None:
    """More than the connections that all share."""
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(50)]
        for wire in wires:
            assert wire.ask("WATCH", "{u}a") == b"+OK\r\n"
        assert wires[0].ask("SET", "{u}a", "x") == b"+OK\r\n"
        for wire in wires:
            assert wire.run([b"MULTI"], [b"GET", b"{u}a"], [b"EXEC"])[-1] == b"*-1\r\n"


def test_what_a_transaction_runs_is_counted(gateway: kvserver.Server) -> None:
    with Wire(gateway.port) as wire:
        wire.run([b"MULTI"], [b"SET", b"k", b"1"], [b"EXEC"], [b"SET", b"k", b"2"])
        assert b"cmdstat_set:calls=2," in wire.ask("INFO", "commandstats")


@pytest.mark.parametrize("cursor", ["abc", "-1", "9" * 25, "9" * 5000, ""])
def test_cursors_that_are_none(gateway: kvserver.Server, cluster: Cluster, cursor: str) -> None:
    with Wire(gateway.port) as ours, Wire(cluster.nodes[0].port) as theirs:
        assert ours.ask("SCAN", cursor) == theirs.ask("SCAN", cursor) == b"-ERR invalid cursor\r\n"


def test_values_that_are_kept(cluster: Cluster) -> None:
    """Who changes something through the gateway sees it at once, others as soon as the cluster has told."""
    with (
        kvserver.Server(port=0, backend=cluster.url, backend_cache=1000) as server,
        kvclient.connect(server.url, timeout=20) as kv,
        kvclient.connect(cluster.url, timeout=20) as behind,
    ):
        gateway = server._state.gateway
        assert gateway is not None
        assert gateway._near is not None
        until(lambda: gateway._near._kept.is_told)  # type: ignore[union-attr]

        def own(number: int) -> None:
            for value in range(100):
                kv.set(f"{{u}}{number}", value)
                assert kv.get(f"{{u}}{number}") == b"%d" % value
                with kv.transaction() as transaction:
                    transaction.incr(f"{{u}}{number}")
                assert kv.get(f"{{u}}{number}") == b"%d" % (value + 1)
                with kv.pipeline() as pipeline:
                    pipeline.incr(f"{{u}}{number}")
                    pipeline.incr(f"{{u}}{number}")
                assert kv.get(f"{{u}}{number}") == b"%d" % (value + 3)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(own, range(4)))
        kv.set("k", "v")
        hits = gateway._near.statistics.hits
        assert [kv.get("k") for _ in range(50)] == [b"v"] * 50
        assert gateway._near.statistics.hits >= hits + 48
        behind.set("k", "changed")
        until(lambda: kv.get("k") == b"changed")
        kv.execute("EVAL", "return redis.call('set', KEYS[1], 'by a script')", 1, "k")
        assert kv.get("k") == b"by a script"
        kv.flushall()
        assert kv.get("k") is None
        behind.execute("LPUSH", "list", "x")
        with pytest.raises(kvclient.errors.WrongTypeError):
            kv.get("list")


def test_settings_about_data_are_refused(gateway: kvserver.Server) -> None:
    with Wire(gateway.port) as wire:
        for name, value in (("maxmemory", "1mb"), ("notify-keyspace-events", "KEA")):
            assert wire.ask("CONFIG", "SET", name, value).endswith(b"a gateway has no data\r\n")
        assert wire.ask("CONFIG", "SET", "slowlog-max-len", "5") == b"+OK\r\n"


def test_what_comes_together_is_answered_as_if_it_came_alone(gateway: kvserver.Server) -> None:
    """Whatever is among it: transactions, errors, commands of the gateway's own, what is not answered."""
    key, other = b"{u}a", b"{u}b"
    commands = [
        [b"SET", key, b"1"], [b"INCR", key], [b"GET", key], [b"PING"], [b"INCR", key], [b"GET"], [b"NONSENSE"],
        [b"INCR", other], [b"MULTI"], [b"INCR", key], [b"INCR", other], [b"EXEC"], [b"GET", key], [b"GET", other],
        [b"APPEND", key, b"x"], [b"INCR", key], [b"GET", key], [b"RENAME", key, b"z"], [b"DEL", key, b"x", b"y"],
        [b"WATCH", key], [b"SET", key, b"2"], [b"GET", key], [b"MULTI"], [b"GET", key], [b"EXEC"], [b"GET", key],
        [b"CLIENT", b"REPLY", b"SKIP"], [b"INCR", key], [b"INCR", key], [b"SELECT", b"0"], [b"GET", key], [b"DBSIZE"],
    ]  # fmt: skip
    with Wire(gateway.port) as wire:
        answered = [words for words in commands if words[:2] != [b"CLIENT", b"REPLY"]]
        alone = [wire.ask(*words) for words in answered]
        wire.ask("FLUSHALL")
        wire.send(b"".join(map(request, commands)))
        together = [wire.read() for _ in answered[1:]]
    skipped = len(answered) - 5  # the first of the last two INCR
    assert [*together[:skipped], b":3\r\n", *together[skipped:]] == alone


def test_a_reply_that_nobody_takes_is_nobody_elses(gateway: kvserver.Server) -> None:
    """Commands that were asked ahead and are refused, or not run, when their turn comes."""
    state = gateway._state
    assert state.gateway is not None
    session = Session(state, 1_000_000, "127.0.0.1:0", "")
    session.be(state.users.default)
    batch = [[b"INCR", b"n"], [b"INCR", b"n"], [b"PING"], [b"INCR", b"n"], [b"INCR", b"n"]]
    commands = state.gateway.ahead(session, batch)
    assert next(commands) is batch[0]
    assert len(session.ahead) == 2
    assert next(commands) is batch[1]
    assert next(commands) is batch[2]
    assert not session.ahead
    assert next(commands) is batch[3]
    assert len(session.ahead) == 2
    commands.close()  # type: ignore[attr-defined]
    assert not session.ahead


def test_what_came_before_an_error_of_the_protocol_is_answered(gateway: kvserver.Server) -> None:
    with Wire(gateway.port) as wire:
        sent = request([b"INCR", b"n"]) * 3 + b"*1\r\n:1\r\n"
        assert wire.ends(sent).startswith(b":1\r\n:2\r\n:3\r\n-ERR Protocol error")


def test_a_password_and_more_together(cluster: Cluster) -> None:
    with kvserver.Server(port=0, backend=cluster.url, requirepass="secret") as server, Wire(server.port) as wire:
        long = b"x" * 100_000
        replies = wire.run([b"GET", b"k"], [b"AUTH", b"secret"], [b"SET", b"k", long], [b"GET", b"k"])
    assert replies[0].startswith(b"-NOAUTH")
    assert replies[1:] == [b"+OK\r\n", b"+OK\r\n", b"$100000\r\n" + long + b"\r\n"]


def test_ten_thousand_together(gateway: kvserver.Server) -> None:
    with redis.Redis(port=gateway.port) as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(10_000):
            pipeline.incr(KEYS[number % 100])
        assert pipeline.execute() == [1 + number // 100 for number in range(10_000)]


def test_behind_it_may_be_one_server(valkey_port: int) -> None:
    with (
        kvserver.Server(port=0, backend=f"valkey://127.0.0.1:{valkey_port}") as server,
        redis.Redis(port=server.port) as kv,
    ):
        kv.flushall()
        kv.mset({"a": 1, "b": 2})
        with kv.pipeline(transaction=True) as pipeline:
            assert pipeline.incr("a").incr("b").execute() == [2, 3]
        kv.rename("a", "c")
        assert sorted(kv.scan_iter()) == [b"b", b"c"]


def test_the_backend_goes_and_comes_back() -> None:
    with real_cluster(timeout=1000) as mortal:
        url = f"{mortal.url}?timeout=2"
        with kvserver.Server(port=0, backend=url) as server, Wire(server.port) as wire:
            assert wire.ask("SET", "k", 1) == b"+OK\r\n"
            for node in mortal.nodes:
                node.kill()
            first = wire.ask("SET", "k", 2)
            assert first.startswith((b"-TRYAGAIN the backend cannot be reached now", b"-ERR the backend was lost"))
            assert wire.ask("SET", "k", 2).startswith(b"-TRYAGAIN the backend cannot be reached now")
            assert wire.ask("PING") == b"+PONG\r\n"
            for node in mortal.nodes:
                node.start()
            mortal.wait_until_whole()
            until(lambda: wire.ask("SET", "k", 3) == b"+OK\r\n")
            victim = mortal.owner(slot_of(b"k"))
            victim.kill()
            until(lambda: wire.ask("INCR", "k").startswith(b":"))


def test_it_starts_before_its_backend() -> None:
    with (
        kvserver.Server(port=0, backend="valkey+cluster://127.0.0.1:1?timeout=0.2") as server,
        Wire(server.port) as wire,
    ):
        assert wire.ask("PING") == b"+PONG\r\n"
        assert wire.ask("GET", "k") == b"-TRYAGAIN the backend cannot be reached now; the command was not applied\r\n"
        wire.send(request([b"GET", b"k"]))
        assert server.stop()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backend": "nonsense"}, "a URL such as valkey+cluster://"),
        ({"backend": "http://x"}, "--backend: bad URL"),
        ({"backend": "valkey://h", "data_dir": "x"}, "--data-dir is about data"),
        ({"backend": "valkey://h", "maxmemory": "1mb"}, "--maxmemory is about data"),
        ({"backend": "valkey://h", "cluster_mode": "report"}, "--cluster-mode is about data"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kvserver.Server(port=0, **settings)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_what_comes_after_the_end_is_not_asked_for() -> None:
    with kvserver.Server(port=0) as behind, kvserver.Server(port=0, backend=behind.url) as server:
        with Wire(server.port) as wire:
            assert wire.ends(b"PING\r\nQUIT\r\nSET a 1\r\nSET b 2\r\nSET c 3\r\n") == b"+PONG\r\n+OK\r\n"
        assert behind.direct("DBSIZE") == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("scheme", ["redis", "valkey+cluster"])
def test_nobody_is_their_own_backend(host: str, scheme: str) -> None:
    port = free_port()
    server = kvserver.Server(port=port, backend=f"{scheme}://{host}:{port}?timeout=1")
    with pytest.raises(ConfigError, match=f"--backend {host}:{port} is where this server listens itself"):
        server.start()
    with kvserver.Server(port=port) as other, kvserver.Server(port=0, backend=f"redis://{host}:{port}") as server:
        assert server.port != other.port


def test_the_backends_password_is_not_shown(cluster: Cluster) -> None:
    with kvserver.Server(port=0, backend="valkey://ann:S3CRET@127.0.0.1:1?timeout=0.1") as server:
        with redis.Redis(port=server.port) as client:
            assert client.config_get("backend") == {"backend": "valkey://ann:(hidden)@127.0.0.1:1?timeout=0.1"}
            with pytest.raises(redis.ResponseError) as caught:
                client.get("k")
        assert "S3CRET" not in repr(server._state.config) + str(caught.value)


def test_a_script_is_not_a_way_round_permissions(gateway: kvserver.Server) -> None:
    """The backend runs it as the gateway's user, and it touches what it does not name."""
    with Wire(gateway.port) as admin, Wire(gateway.port) as ann:
        admin.ask("ACL", "SETUSER", "ann", "on", ">pw", "~{x}ann:*", "+@all", "-@dangerous")
        ann.ask("AUTH", "ann", "pw")
        admin.ask("SET", "{x}secret", "S")
        script = "return redis.call('get', '{x}secret')"
        assert ann.ask("EVAL", script, 1, "{x}ann:1").startswith(b"-NOPERM ")
        sha1 = admin.ask("SCRIPT", "LOAD", script).split(b"\r\n")[1]
        assert ann.ask("EVALSHA", sha1, 1, "{x}ann:1").startswith(b"-NOPERM ")
        assert ann.ask("EVAL", "return redis.call('flushall')", 0).startswith(b"-NOPERM ")
        assert admin.ask("EVAL", script, 1, "{x}ann:1") == b"$1\r\nS\r\n"


def test_what_is_not_allowed_any_more_is_not_run_by_exec(gateway: kvserver.Server) -> None:
    with Wire(gateway.port) as admin, Wire(gateway.port) as bob:
        admin.ask("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all")
        bob.ask("AUTH", "bob", "pw")
        bob.run([b"MULTI"], [b"SET", b"{x}a", b"1"], [b"INCR", b"{x}a"], [b"PING"])
        admin.ask("ACL", "SETUSER", "bob", "-incr")
        assert bob.ask("EXEC").startswith(b"*3\r\n+OK\r\n-NOPERM ACLs rules changed")
        assert admin.ask("GET", "{x}a") == b"$1\r\n1\r\n"


def test_watching_more_than_can_be(cluster: Cluster) -> None:
    with kvserver.Server(port=0, backend=f"{cluster.url}?timeout=5") as gateway, Wire(gateway.port) as wire:
        assert wire.ask("WATCH", "a") == b"+OK\r\n"
        away = next(key for key in KEYS if cluster.owner(slot_of(key.encode())) is not cluster.owner(slot_of(b"a")))
        assert wire.ask("WATCH", away) == b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
        assert wire.run([b"MULTI"], [b"SET", b"a", b"1"], [b"EXEC"])[-1].startswith(b"-TRYAGAIN ")
        assert wire.ask("GET", "a") == b"$-1\r\n"
        assert wire.run([b"MULTI"], [b"SET", b"a", b"1"], [b"EXEC"])[-1] == b"*1\r\n+OK\r\n"
        assert b" is not for a gateway" in wire.ask("WAIT", 1, 0)


def test_the_backend_does_not_let_the_gateway_in(cluster: Cluster) -> None:
    """A client would take it for its own password."""
    url = f"valkey://ann:wrong@127.0.0.1:{cluster.nodes[0].port}"
    with kvserver.Server(port=0, backend=url) as gateway, Wire(gateway.port) as wire:
        assert wire.ask("GET", "a").startswith(b"-ERR the backend does not let the gateway in")


def test_what_is_done_without_a_connection(valkey_port: int) -> None:
    """Commands are forwarded; what is about data of one's own is refused, where it would do nothing or share it."""
    with kvserver.Server(port=0, backend=f"valkey://127.0.0.1:{valkey_port}") as gateway:
        gateway.direct("SET", "a", 1)
        assert gateway.direct("GET", "a") == b"1"
        with pytest.raises(kvserver.CommandError, match="at the backend"), gateway.direct.atomic():
            pass
        for copy in (gateway.snapshot, gateway.fork):
            with pytest.raises(ConfigError, match="no data of its own"):
                copy()
