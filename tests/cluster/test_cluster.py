"""The client on a real cluster: the same calls as on one server, whichever node has the keys."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster.harness import Cluster

import kvclient
from kvclient import serializers
from kvclient.cli import main
from kvclient.cluster.slots import slot_of
from kvclient.connection import Connection
from kvclient.errors import (
    AuthError,
    BadURLError,
    CannotConnectError,
    ClientClosedError,
    CommandRefusedError,
    CrossSlotError,
    PipelineAbandonedError,
    PipelineError,
    ServerError,
    TransactionConflictError,
)

KEYS = [f"key:{number}" for number in range(300)]  # of all nodes


@pytest.fixture
def kv(cluster: Cluster) -> Iterator[kvclient.Client]:
    with kvclient.connect(cluster.url, timeout=20) as client:
        yield client


def test_every_node_has_some(cluster: Cluster, kv: kvclient.Client) -> None:
    for key in KEYS:
        assert kv.set(key, key)
    assert [kv.get(key) for key in KEYS] == [key.encode() for key in KEYS]
    assert kv.mget(*KEYS, "none") == [*(key.encode() for key in KEYS), None]
    counts = [int(node.raw("DBSIZE")[1:]) for node in cluster.primaries()]
    assert sum(counts) == len(kv) == len(KEYS)
    assert min(counts) > 50
    assert sorted(kv) == sorted(key.encode() for key in KEYS) == sorted(kv.keys())
    assert set(kv.scan_iter(match="key:1*", count=5)) == {key.encode() for key in KEYS if key.startswith("key:1")}
    assert kv.randomkey() in kv
    assert kv.exists(*KEYS, "none", KEYS[0]) == len(KEYS) + 1
    assert kv.delete(*KEYS[:100]) == 100
    assert kv.unlink(*KEYS[:150]) == 50
    kv.mset(dict.fromkeys(KEYS, "x"))
    assert len(kv) == len(KEYS)
    kv.flushall()
    assert kv.randomkey() is None


def test_pages_of_keys_by_hand(kv: kvclient.Client) -> None:
    kv.mset(dict.fromkeys(KEYS, "x"))
    cursor, found = kv.scan(0, count=7)
    pages = 1
    while cursor:
        cursor, more = kv.scan(cursor, count=7)
        found += more
        pages += 1
    assert sorted(found) == sorted(key.encode() for key in KEYS)
    assert pages > 10
    assert kv.scan(4095) == (0, [])  # of a node that is not there


def test_what_must_be_whole_is_not_split(kv: kvclient.Client) -> None:
    for call in (
        lambda: kv.mget("a", "b", atomic=True),
        lambda: kv.mset({"a": 1, "b": 2}, atomic=True),
        lambda: kv.delete("a", "b", atomic=True),
        lambda: kv.exists("a", "b", atomic=True),
        lambda: kv.msetnx({"a": 1, "b": 2}),
        lambda: kv.rename("a", "b"),
        lambda: kv.execute("BITOP", "AND", "a", "b", "c"),
    ):
        with pytest.raises(CrossSlotError, match="the same part in braces"):
            call()
    assert not list(kv)
    kv.mset({"{u}a": 1, "{u}b": 2}, atomic=True)
    assert kv.mget("{u}a", "{u}b", atomic=True) == [b"1", b"2"]
    kv.rename("{u}a", "{u}c")


def test_what_one_server_refuses_is_refused(kv: kvclient.Client) -> None:
    kv.set("text", "x")
    with pytest.raises(ServerError, match="not an integer"):
        kv.incr("text")
    with pytest.raises(ServerError, match="unknown command"):
        kv.execute("NONSENSE", "a", "b")
    with pytest.raises(ServerError, match="wrong number of arguments"):
        kv.execute("GET")
    with pytest.raises(CommandRefusedError):
        kv.execute("SUBSCRIBE", "x")


def test_pipelines(kv: kvclient.Client) -> None:
    with kv.pipeline() as pipeline:
        for key in KEYS:
            pipeline.incr(key)
            pipeline.incr(key)
        whole = pipeline.mget(*KEYS[:50])
        size = pipeline.dbsize()
    assert whole.result() == [b"2"] * 50  # a key's commands are run in their order
    assert size.result() <= len(KEYS)
    with kv.pipeline() as pipeline:
        values = [pipeline.getdel(key) for key in KEYS]
        large = [pipeline.set(key, "x" * 10_000) for key in KEYS]
    assert [value.result() for value in values] == [b"2"] * len(KEYS)
    assert all(each.result() for each in large)
    pipeline = kv.pipeline()
    pipeline.set("a", "x")
    pipeline.incr("a")
    pipeline.rename("a", "b")
    last = pipeline.get("a")
    with pytest.raises(PipelineError) as caught:
        pipeline.run()
    assert [type(each) for each in caught.value.results] == [bool, ServerError, CrossSlotError, bytes]
    assert last.result() == b"x"
    assert kv.pipeline().run() == ()


def test_transactions(kv: kvclient.Client) -> None:
    with kv.transaction() as transaction:
        first, second = transaction.incr("{u}a"), transaction.incr("{u}b")
    assert (first.result(), second.result()) == (1, 1)
    transaction = kv.transaction()
    transaction.incr("a")
    lost = transaction.incr("b")
    for call in (transaction.run, lost.result):
        with pytest.raises((CrossSlotError, PipelineAbandonedError)):
            call()
    assert transaction.run() == ()
    assert kv.mget("a", "b") == [None, None]

    def add(t: kvclient.WatchingTransaction) -> None:
        t.set("{u}a", int(t.now.get("{u}a") or 0) + 1)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: [kv.transaction(add, watch=["{u}a"], timeout=60) for _ in range(25)], range(4)))
    assert kv.get("{u}a") == b"101"
    with pytest.raises(CrossSlotError):
        kv.transaction(add, watch=["{u}a", "b"])
    with pytest.raises(CrossSlotError):
        kv.transaction(lambda t: t.now.get(other_than(slot_of(b"u"))), watch=["{u}a"])

    def disturbed(t: kvclient.WatchingTransaction) -> None:
        kv.incr("{u}a")
        t.incr("{u}b")

    with pytest.raises(TransactionConflictError):
        kv.transaction(disturbed, watch=["{u}a"], timeout=0.2)


def other_than(slot: int) -> str:
    """A key of another node."""
    return next(key for key in KEYS if abs(slot_of(key.encode()) - slot) > 16384 // 2 - 1000)


def test_namespaces_and_types(kv: kvclient.Client) -> None:
    numbers = kv.ns("n:").typed(serializers.JSON)
    numbers.mset({key: [1] for key in KEYS})
    assert numbers.mget(*KEYS[:3]) == [[1]] * 3
    assert len(numbers) == len(KEYS)
    assert min(numbers) == b"key:0"
    with numbers.pipeline() as pipeline:
        found = pipeline.get("key:0")
    assert found.result() == [1]
    assert set(kv) == {b"n:" + key.encode() for key in KEYS}


def test_what_is_built_on_commands(kv: kvclient.Client) -> None:
    for name in ("l", "other", "third"):  # on different nodes
        with kv.lock(name) as lock:
            assert lock.fence == 1
            with pytest.raises(kvclient.errors.LockTimeoutError), kv.lock(name, wait=0):
                raise AssertionError
        with kv.semaphore(f"s{name}", 2), kv.semaphore(f"s{name}", 2):
            pass
        assert kv.rate_limit(f"r{name}", 1, per=60)
        assert not kv.rate_limit(f"r{name}", 1, per=60)
        assert kv.get_or_set(f"c{name}", lambda: b"value", ttl=60) == b"value"
        with kv.open(f"f{name}", "wb") as file:
            file.write(b"x" * 100_000)
        with kv.open(f"f{name}", "rb") as file:
            assert len(file.read()) == 100_000
    mapping = kv.mapping("m:")
    mapping.update(dict.fromkeys(KEYS, b"v"))
    assert len(mapping) == len(KEYS)


def test_listening(kv: kvclient.Client) -> None:
    with kv.listen("news", patterns=["sport.*"]) as messages:
        kv.publish("news", "a")  # by whichever node
        kv.publish("sport.x", "b")
        assert {message.data for message in (messages.next(20), messages.next(20)) if message} == {b"a", b"b"}
    for name in ("one", "two", "three", "four"):
        with kv.listen(shards=[name]) as messages:
            kv.spublish(name, "c")
            message = messages.next(20)
            assert message is not None
            assert message.data == b"c"
    with pytest.raises(CrossSlotError):
        kv.listen(shards=["one", "two"])


def test_many_threads(kv: kvclient.Client) -> None:
    def work(number: int) -> None:
        for key in KEYS:
            kv.incr(key)
            assert kv.set(f"{number}:{key}", key)
            assert kv.get(f"{number}:{key}") == key.encode()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert kv.mget(*KEYS) == [b"8"] * len(KEYS)


def test_by_any_node_and_an_old_protocol(cluster: Cluster) -> None:
    for node in cluster.nodes:  # replicas too
        url = f"redis+cluster://127.0.0.1:{node.port}?protocol=2"
        with kvclient.connect(url) as kv:
            kv.mset(dict.fromkeys(KEYS, "x"))
            assert kv.mget(*KEYS) == [b"x"] * len(KEYS)
            assert len(kv.keys()) == len(KEYS)
            assert kv.options.address == f"127.0.0.1:{node.port}"


def test_seeds_that_are_not_there_do_no_harm(cluster: Cluster) -> None:
    with kvclient.connect(f"valkey+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[1].port}") as kv:
        kv.set("a", 1)
    with pytest.raises(CannotConnectError, match=r"no node of 127\.0\.0\.1:1,127\.0\.0\.1:2 says who has which slot"):
        kvclient.connect("valkey+cluster://127.0.0.1:1,127.0.0.1:2", timeout=2)


def test_one_server_is_no_cluster(valkey_port: int) -> None:
    with pytest.raises(ServerError, match="cluster support disabled"):
        kvclient.connect(f"valkey+cluster://127.0.0.1:{valkey_port}", timeout=2)


def test_one_server_alone_says_what_to_do(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    elsewhere = next(key for key in KEYS if cluster.owner(slot_of(key.encode())) is not first)
    with (
        kvclient.connect(f"redis://127.0.0.1:{first.port}") as kv,
        pytest.raises(ServerError, match=r"connect with valkey\+cluster://HOST:PORT"),
    ):
        kv.get(elsewhere)


def test_a_wrong_password_is_told(cluster: Cluster) -> None:
    with pytest.raises(AuthError):
        kvclient.connect(cluster.url.replace("://", "://ann:wrong@"), timeout=2)


@pytest.mark.parametrize(
    "url", ["valkey+cluster://a:1,[::", "valkey+cluster://a:99999", "valkey+cluster://a:1,b:x", "x+cluster://a"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(BadURLError):
        kvclient.connect(url)


def test_closing(cluster: Cluster) -> None:
    before = threading.active_count()
    kv = kvclient.connect(cluster.url)
    kv.mset(dict.fromkeys(KEYS, "x"))
    kv.close()
    with pytest.raises(ClientClosedError):
        kv.get("a")
    with pytest.raises(ClientClosedError), kv.pipeline() as pipeline:
        pipeline.get("a")
    assert threading.active_count() == before


def test_the_observer_is_told_of_each_node(cluster: Cluster) -> None:
    told: list[str] = []

    class Watching:
        def call(self, event: object) -> None:
            del event

        def connection(self, event: kvclient.observer.ConnectionEvent) -> None:  # type: ignore[name-defined]
            told.append(event.address)

    with kvclient.connect(cluster.url, observer=Watching()) as kv:  # type: ignore[arg-type]
        kv.mset(dict.fromkeys(KEYS, "x"))
    assert {f"127.0.0.1:{node.port}" for node in cluster.primaries()} <= set(told)


class InterruptedByTest(BaseException):
    pass


@pytest.mark.parametrize("at", [*range(12)])
def test_an_interrupted_call_leaves_nothing_behind(
    kv: kvclient.Client, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Whatever is raised at whichever step of a call to all nodes, nobody reads another's reply."""
    kv.mset({key: key for key in KEYS})
    receive, calls = Connection._recv, itertools.count()

    def interrupted(connection: Connection, deadline: float) -> bytes:
        if next(calls) == at:
            raise InterruptedByTest
        return receive(connection, deadline)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "_recv", interrupted)
        with contextlib.suppress(InterruptedByTest):
            for _ in range(4):
                kv.mget(*reversed(KEYS))
    assert kv.mget(*KEYS) == [key.encode() for key in KEYS]
    assert kv.get(KEYS[7]) == KEYS[7].encode()


def test_the_command_line(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    def kv(*words: str) -> tuple[int, str]:
        status = main([cluster.url, *words])
        return status, capsys.readouterr().out

    assert kv("MSET", *(word for key in KEYS for word in (key, "v"))) == (0, "OK\n")
    assert kv("DBSIZE") == (0, f"{len(KEYS)}\n")
    status, out = kv("RENAME", "a", "b")
    assert status == 1
    assert "CROSSSLOT" in out
    status, out = kv("export")
    assert (status, len(out.splitlines())) == (0, len(KEYS))
    for tool in (("top", "--once"), ("watch", "*")):
        assert kv(*tool)[0] == 2  # of one node only, which is told
