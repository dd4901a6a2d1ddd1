"""One server that stands for a cluster: clients for clusters work, and it answers as a real node that has all slots.

What it notes of calls that would break in a cluster is in test_report.py.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio.cluster
import redis.cluster
import valkey.cluster
from authorities import Authority, Identity
from cluster.harness import one_node
from conformance.generators import batches
from conformance.oracle import Pair, Wire, parse
from conformance.test_against_valkey import compare_replies
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.lock import Lock
from support import need

import kvclient
import kvserver
from kvclient.errors import ClusterError
from kvserver.config import ConfigError

CROSS_SLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
each_protocol = pytest.mark.parametrize("protocol", [2, 3])


@pytest.fixture
def emulated() -> Iterator[kvserver.Server]:
    with kvserver.Server(port=0, cluster_mode="emulated") as server:
        yield server


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A connection to one that is emulated, and one to a real cluster of one node."""
    with (
        kvserver.Server(port=0, cluster_mode="emulated") as server,
        one_node() as node,
        Wire(server.port) as ours,
        Wire(node.port) as theirs,
    ):
        yield Pair(ours, theirs)


# Clients for clusters


@each_protocol
@pytest.mark.parametrize("make", [redis.cluster.RedisCluster, valkey.cluster.ValkeyCluster])
def test_clients_for_clusters_work(emulated: kvserver.Server, make: Any, protocol: int) -> None:
    with make(host="127.0.0.1", port=emulated.port, protocol=protocol) as client:
        assert client.set("a", "1")
        assert client.get("a") == b"1"
        assert client.mset_nonatomic({"b": "2", "c": "3"})
        assert client.mget_nonatomic("a", "b", "c") == [b"1", b"2", b"3"]
        assert client.mset({"{a}1": "x", "{a}2": "y"})
        assert sorted(client.keys()) == [b"a", b"b", b"c", b"{a}1", b"{a}2"]
        assert client.dbsize() == 5
        assert client.delete("b", "c") == 2
        assert client.cluster_keyslot("a") == client.keyslot("a")
        with client.pipeline() as pipeline:
            pipeline.incr("n")
            pipeline.get("a")
            assert pipeline.execute() == [1, b"1"]
        with client.lock("lock", timeout=10):
            assert client.exists("lock") == 1


def test_an_asynchronous_client_for_clusters_works(emulated: kvserver.Server) -> None:
    async def use() -> list[bytes | None]:
        async with redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=emulated.port) as client:
            await client.mset_nonatomic({"a": "1", "b": "2"})
            return await client.mget_nonatomic("a", "b")

    assert asyncio.run(use()) == [b"1", b"2"]


def test_redis_cli_finds_the_cluster_whole(emulated: kvserver.Server) -> None:
    done = subprocess.run(
        [need("redis-cli"), "--cluster", "check", f"127.0.0.1:{emulated.port}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "[OK] All 16384 slots covered." in done.stdout
    assert "[OK] All nodes agree about slots configuration." in done.stdout


# As a real node


def _masked(reply: bytes, port: int) -> bytes:
    """Without IDs, which are random, and without the node's own port."""
    for number in (port + 10_000, port):
        reply = reply.replace(b"%d" % number, b"PORT")
    return re.sub(
        rb"[0-9a-f]{40}", b"ID", re.sub(rb"([$=])\d+\r\n(?=ID|txt:ID|[0-9a-f]{40}|txt:[0-9a-f])", rb"\1", reply)
    )


_ABOUT = [
    "CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER NODES", "CLUSTER INFO", "CLUSTER MYID", "CLUSTER MYSHARDID",
    "CLUSTER LINKS", "CLUSTER KEYSLOT a", "INFO cluster", "CONFIG GET cluster-enabled", "CONFIG GET databases",
    "CONFIG SET cluster-enabled yes", "CONFIG SET cluster-enabled no", "READONLY", "READWRITE", "ASKING",
]  # fmt: skip
_WRONG = [
    "CLUSTER", "CLUSTER FOO", "CLUSTER SLOTS x", "CLUSTER SHARDS x", "CLUSTER NODES x", "CLUSTER INFO x",
    "CLUSTER MYID x", "CLUSTER MYSHARDID x", "CLUSTER LINKS x", "CLUSTER HELP x", "CLUSTER KEYSLOT",
    "CLUSTER KEYSLOT a b", "CLUSTER COUNTKEYSINSLOT", "CLUSTER COUNTKEYSINSLOT x", "CLUSTER COUNTKEYSINSLOT -1",
    "CLUSTER COUNTKEYSINSLOT 16384", "CLUSTER COUNTKEYSINSLOT 99999999999999999999", "CLUSTER GETKEYSINSLOT 1",
    "CLUSTER GETKEYSINSLOT x 1", "CLUSTER GETKEYSINSLOT 1 x", "CLUSTER GETKEYSINSLOT 16384 1",
    "CLUSTER GETKEYSINSLOT 16384 x", "CLUSTER GETKEYSINSLOT 1 -1", "READONLY x", "READWRITE x", "ASKING x",
]  # fmt: skip


@each_protocol
@pytest.mark.parametrize("typed", _ABOUT + _WRONG)
def test_what_is_told_about_the_cluster(pair: Pair, typed: str, protocol: int) -> None:
    pair.run([b"RESET"], [b"HELLO", b"%d" % protocol])
    ours, theirs = (_masked(wire.ask(*typed.split()), wire.port) for wire in pair)
    assert ours == theirs


def test_hello_and_info_say_that_it_is_a_cluster(pair: Pair) -> None:
    for wire in pair:
        assert b"$4\r\nmode\r\n$7\r\ncluster\r\n" in wire.ask("HELLO", 2)
        assert b"server_mode:cluster\r\n" in wire.ask("INFO", "server")
    assert b"redis_mode:cluster\r\n" in pair.ours.ask("INFO", "server")  # Redis' name for it


def test_readonly_shows_in_the_list_of_clients_until_it_is_over(pair: Pair) -> None:
    for wire in pair:
        wire.run([b"RESET"], [b"READONLY"], [b"CLIENT", b"NO-EVICT", b"ON"], [b"CLIENT", b"NO-TOUCH", b"ON"])
        assert b" flags=reT " in wire.ask("CLIENT", "INFO")
        wire.ask("READWRITE")
        assert b" flags=eT " in wire.ask("CLIENT", "INFO")
        wire.run([b"READONLY"], [b"RESET"])
        assert b" flags=N " in wire.ask("CLIENT", "INFO")


@each_protocol
@given(keys=st.lists(st.binary(max_size=30) | st.text("ab{}", max_size=8).map(str.encode), min_size=1, max_size=30))
def test_slots_of_keys(pair: Pair, keys: list[bytes], protocol: int) -> None:
    commands = [[b"CLUSTER", b"KEYSLOT", key] for key in keys]
    ours, theirs = pair.run(*commands)
    assert ours == theirs


@each_protocol
def test_keys_of_a_slot(pair: Pair, protocol: int) -> None:
    keys = [b"{a}%d" % number for number in range(5)]
    sets = [[b"SET", key, b"x"] for key in [*keys, b"b", b"c"]]
    pair.run([b"RESET"], [b"FLUSHALL"], [b"HELLO", b"%d" % protocol], *sets)
    slot = b"15495"
    asked = [
        [b"CLUSTER", b"KEYSLOT", b"a"], [b"CLUSTER", b"COUNTKEYSINSLOT", slot], [b"CLUSTER", b"COUNTKEYSINSLOT", b"0"],
        [b"CLUSTER", b"GETKEYSINSLOT", slot, b"0"], [b"CLUSTER", b"GETKEYSINSLOT", b"0", b"9"], [b"MULTI"],
        [b"CLUSTER", b"COUNTKEYSINSLOT", slot], [b"CLUSTER", b"GETKEYSINSLOT", b"0", b"9"], [b"EXEC"],
    ]  # fmt: skip
    ours, theirs = pair.run(*asked)
    assert ours == theirs
    for wire in pair:
        assert sorted(parse(wire.ask("CLUSTER", "GETKEYSINSLOT", slot, 9))) == keys  # type: ignore[arg-type]
        assert len(parse(wire.ask("CLUSTER", "GETKEYSINSLOT", slot, 3))) == 3  # type: ignore[arg-type]


@settings(max_examples=5 * settings.default.max_examples)
@given(commands=batches, protocol=st.sampled_from([2, 3]))
def test_any_commands_get_the_replies_of_a_real_node(pair: Pair, commands: list[list[bytes]], protocol: int) -> None:
    commands = [words for words in commands if words[0].upper() != b"MSETEX"]  # see below
    compare_replies(pair, commands, protocol)


_KEYS = [b"a", b"b", b"{a}1", b"x{a}y", b"{}a", b"{}b", b"{a", b"a}b{", b"{{a}}", b""]
_key = st.sampled_from(_KEYS)
_keys = st.lists(_key, min_size=1, max_size=3)
_RELEASE = Lock.LUA_RELEASE_SCRIPT.encode()


def _words(*parts: object) -> st.SearchStrategy[list[bytes]]:
    """A command: words as they are, and strategies for a word or several."""
    drawn = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts]
    return st.tuples(*drawn).map(
        lambda words: [word for part in words for word in (part if isinstance(part, list) else [part])]
    )


_with_keys = st.one_of(
    _words(st.sampled_from([b"MGET", b"DEL", b"UNLINK", b"EXISTS", b"TOUCH", b"mset", b"MSETNX"]), _keys),
    _words(st.sampled_from([b"RENAME", b"RENAMENX", b"COPY", b"LCS", b"SPUBLISH", b"PUBLISH", b"SET"]), _key, _key),
    _words(b"MSET", _key, b"1", _key, b"2"),
    _words(b"COPY", _key, _key, b"DB", st.sampled_from([b"0", b"1", b"99", b"x"])),
    _words(b"BITOP", st.sampled_from([b"AND", b"NOT", b"FOO"]), _keys),
    _words(b"MOVE", _key, st.sampled_from([b"0", b"1", b"16", b"x"])),
    _words(b"EVAL", _RELEASE, st.sampled_from([b"1", b"2", b"3", b"9", b"-1", b"x"]), _keys, b"token"),
    _words(b"EVALSHA", b"0" * 40, b"2", _keys, b"token"),
    _words(b"GET", _key),
    _words(b"OBJECT", b"ENCODING", _key),
    st.sampled_from([[b"SSUBSCRIBE", b"a", b"b"], [b"SUNSUBSCRIBE", b"a", b"b"]]),
)
_any = st.one_of(
    _with_keys,
    _with_keys,
    _with_keys,
    _words(b"SELECT", st.sampled_from([b"0", b"1", b"15", b"16", b"-1", b"x"])),
    _words(b"SWAPDB", st.sampled_from([b"0", b"x"]), st.sampled_from([b"0", b"1"])),
    st.sampled_from([[b"PING"], [b"DBSIZE"], [b"SWAPDB", b"0"], [b"FOO"], [b"GET"], [b"READONLY"], [b"ASKING"]]),
)
_transactions = st.tuples(
    st.lists(st.one_of(_words(b"WATCH", _keys), st.just([b"UNWATCH"])), max_size=2),
    st.lists(_any, max_size=4),
    st.sampled_from([b"EXEC", b"EXEC", b"EXEC", b"DISCARD"]),
).map(lambda parts: [*parts[0], [b"MULTI"], *parts[1], [parts[2]]])
_groups = st.lists(_any.map(lambda words: [words]) | _transactions, min_size=1, max_size=12)


@settings(max_examples=5 * settings.default.max_examples)
@given(groups=_groups, protocol=st.sampled_from([2, 3]))
def test_several_keys_get_the_replies_of_a_real_node(
    pair: Pair, groups: list[list[list[bytes]]], protocol: int
) -> None:
    commands = [words for group in groups for words in group]
    ours, theirs = pair.run([b"RESET"], [b"FLUSHALL"], [b"HELLO", b"%d" % protocol], *commands)
    for words, our_reply, their_reply in zip(commands, ours[3:], theirs[3:], strict=True):
        assert our_reply == their_reply, words


def test_msetex_is_refused_as_in_redis(pair: Pair) -> None:
    """The row of differences.py that shows in a cluster only."""
    ours, theirs = pair.run([b"RESET"], [b"FLUSHALL"], [b"MSETEX", b"2", b"a", b"1", b"b", b"2"])
    assert (ours[-1], theirs[-1]) == (CROSS_SLOT, b":1\r\n")


# What only our own server has


def test_the_address_is_the_one_that_the_client_has_found(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with kvserver.Server(port=0, unix_socket=path, cluster_mode="emulated") as server:
        for url, host in (
            (server.url, b"127.0.0.1"),
            (f"redis://[::1]:{server.port}", b"::1"),
            (f"unix://{path}", b""),
        ):
            with kvclient.connect(url) as kv:
                ((first, last, node),) = kv.cluster_slots()  # type: ignore[misc, union-attr]
                assert (first, last) == (0, 16383)
                assert node[:2] == [host, server.port]  # type: ignore[index]


def test_a_client_with_tls_is_told_the_port_for_tls(identity: Identity, authority: Authority) -> None:
    settings = {"tls_cert": identity.cert, "tls_key": identity.key, "cluster_mode": "emulated"}
    with kvserver.Server(port=0, tls_port=0, **settings) as server:
        port = server.tls_port
        with kvclient.connect(f"rediss://127.0.0.1:{port}?tls_ca={authority.file}") as kv:
            (shard,) = kv.cluster_shards()
            assert "tls-port" in str(shard[b"nodes"])
            assert f":{port}@" in kv.cluster_nodes()


def test_the_typed_client(emulated: kvserver.Server) -> None:
    with kvclient.connect(emulated.url) as kv:
        kv.mset({"{a}1": 1, "{a}2": 2})
        slot = kv.cluster_keyslot("a")
        assert kv.cluster_countkeysinslot(slot) == 2
        assert sorted(kv.cluster_getkeysinslot(slot, 9)) == [b"{a}1", b"{a}2"]
        assert kv.cluster_info()["cluster_state"] == "ok"
        assert kv.cluster_nodes().startswith(kv.cluster_myid())
        (shard,) = kv.cluster_shards()
        assert shard[b"id"] == kv.cluster_myshardid().encode()
        assert kv.cluster_links() == []
        assert "KEYSLOT" in kv.cluster_help()
        with pytest.raises(ClusterError, match="same slot"):
            kv.mget("a", "b")


def test_kv_once_is_in_the_slot_of_its_command(emulated: kvserver.Server) -> None:
    with Wire(emulated.port) as wire:
        assert wire.ask("KV.ONCE", "t", 1000, "MSET", "a", 1, "b", 2) == CROSS_SLOT
        assert wire.ask("KV.ONCE", "t", 1000, "MSET", "{a}1", 1, "{a}2", 2) == b"+OK\r\n"
        assert wire.ask("KV.ONCE", "t", 1000, "BITOP").startswith(b"-ERR wrong number")
        assert wire.ask("KV.ONCE", "t", 1000, "FOO").startswith(b"-ERR unknown command")


def test_it_restarts_with_its_data_but_not_with_other_databases(tmp_path: Path) -> None:
    with kvserver.Server(port=0, data_dir=str(tmp_path)) as server, Wire(server.port) as wire:
        wire.ask("SET", "a", 1)
        wire.ask("SET", "b", 2)
    with kvserver.Server(port=0, data_dir=str(tmp_path), cluster_mode="emulated") as server, Wire(server.port) as wire:
        assert wire.ask("GET", "a") == b"$1\r\n1\r\n"
        assert wire.ask("MGET", "a", "b") == CROSS_SLOT
    with kvserver.Server(port=0, data_dir=str(tmp_path)) as server, Wire(server.port) as wire:
        wire.run([b"SELECT", b"1"], [b"SET", b"a", b"1"])
    with pytest.raises(ConfigError, match="DB index is out of range"):
        kvserver.Server(port=0, data_dir=str(tmp_path), cluster_mode="emulated").start()


# Without a cluster


_OFF = [
    *_ABOUT, "CLUSTER", "CLUSTER FOO", "CLUSTER KEYSLOT", "CLUSTER COUNTKEYSINSLOT x", "CLUSTER GETKEYSINSLOT x y",
    "CLUSTER HELP", "CLUSTER SLOTS x", "ASKING x", "SWAPDB 0 1", "SELECT 1", "MGET a b",
]  # fmt: skip


@each_protocol
@pytest.mark.parametrize("mode", ["off", "report"])
def test_without_a_cluster_it_answers_as_a_server_without_one(valkey_port: int, mode: str, protocol: int) -> None:
    with kvserver.Server(port=0, cluster_mode=mode) as server, Wire(server.port) as ours, Wire(valkey_port) as theirs:
        asked = [typed.encode().split() for typed in _OFF if not typed.startswith("CONFIG GET databases")]
        queued = [[b"MULTI"], *([b"CLUSTER", name] for name in (b"SLOTS", b"HELP")), [b"ASKING"], [b"EXEC"]]
        start = [[b"RESET"], [b"HELLO", b"%d" % protocol]]
        mine, real = Pair(ours, theirs).run(*start, *asked, *queued, [b"RESET"])
        for words, our_reply, their_reply in zip([*asked, *queued], mine[2:], real[2:], strict=False):
            assert our_reply == their_reply, words


def test_off_costs_nothing(server: kvserver.Server) -> None:
    assert server._state.cluster is None
    assert not server._state.special
