"""What is known of a cluster without talking to it: slots, keys of commands, parts of commands, what follows errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.harness import Cluster
from hypothesis import given
from hypothesis import strategies as st

import kvclient
from kvclient.cluster.keys import CommandInfo, parse_info
from kvclient.cluster.redirects import Step, step_after
from kvclient.cluster.slots import SLOTS, Address, SlotMap, beside, parse_slots, slot_of
from kvclient.cluster.split import merged, parts_of
from kvclient.commands.base import Whole
from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    ConnectionLostError,
    CrossSlotError,
    KVError,
    ProtocolError,
    ServerError,
    TransactionAbortedError,
)
from kvclient.errors import server_error as refusal

A, B, C = (Address("127.0.0.1", port) for port in (7001, 7002, 7003))
MAP = SlotMap([(0, 5000, A), (5001, 9999, B), (10_000, 16383, C)], [Address("127.0.0.1", 7004)])
names = st.binary(max_size=20) | st.lists(st.sampled_from([b"{", b"}", b"a", b"\r\n", b"\x00"]), max_size=8).map(
    b"".join
)


@pytest.fixture(scope="module")
def node(shared_cluster: Cluster) -> Iterator[kvclient.Client]:
    """One node of a real cluster, which knows better."""
    with kvclient.connect(f"redis://127.0.0.1:{shared_cluster.nodes[0].port}") as client:
        yield client


def test_slots_are_those_of_the_real_one(node: kvclient.Client) -> None:
    @given(names)
    def same(key: bytes) -> None:
        assert slot_of(key) == node.execute("CLUSTER", "KEYSLOT", key)

    same()
    assert slot_of(b"123456789") == 0x31C3  # of the specification


@given(names, st.sampled_from(["fence", "lease", "open:7", ""]))
def test_what_is_beside_a_key_is_in_its_slot(key: bytes, name: str) -> None:
    found = beside(key, name)
    assert slot_of(found) == slot_of(key)
    assert found.startswith(key + b":" + name.encode())
    assert found == beside(key, name)


COMMANDS = [
    "GET a", "SET a v EX 5", "MGET a b c", "MSET a 1 b 2", "DEL a b", "BITOP AND d a b", "LCS a b LEN",
    "EVAL s 2 a b c", "EVALSHA s 0", "MSETEX 2 a 1 b 2 EX 5", "OBJECT ENCODING k", "MEMORY USAGE k", "COPY a b",
    "RENAME a b", "BLPOP a b 0", "LMPOP 2 a b LEFT", "ZUNIONSTORE d 2 a b", "XREAD COUNT 1 STREAMS a b 0 0",
    "XREADGROUP GROUP g c STREAMS a b > >", "GEORADIUS k 1 2 3 m STORE d", "PFCOUNT a b", "SINTERCARD 2 a b",
    "XADD s * f v", "FCALL f 1 a x",
]  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("line", COMMANDS)
def test_keys_are_those_of_the_real_one(shared_cluster: Cluster, protocol: int, line: str) -> None:
    words = tuple(line.split())
    port = shared_cluster.nodes[0].port
    with kvclient.connect(f"redis://127.0.0.1:{port}", protocol=protocol) as client:  # type: ignore[arg-type]
        row = client.command_info(words[0])[0]
        info = parse_info(row)
        assert info is not None
        try:
            wanted = client.command_getkeys(*words)
        except ServerError:
            wanted = []
    assert sorted(info.of(words).keys(words)) == sorted(wanted)


@given(st.lists(st.binary(max_size=5) | st.integers(-9, 99).map(lambda number: b"%d" % number), max_size=8))
def test_any_words_have_keys_or_none(words: list[bytes]) -> None:
    find = [b"type", b"keynum", b"spec", [b"keynumidx", 0, b"firstkey", 1, b"keystep", 1]]
    spec = [b"begin_search", [b"type", b"index", b"spec", [b"index", 2]], b"find_keys", find]
    info = parse_info([b"eval", -3, [], 0, 0, 0, [], [], [spec], []])
    assert info is not None
    assert set(info.keys((b"EVAL", *words))) <= {b"EVAL", *words}


def info_of(name: str, *tips: bytes) -> CommandInfo:
    """What a server would say of a command all of whose words are keys."""
    find = [b"type", b"range", b"spec", [b"lastkey", -1, b"keystep", 1, b"limit", 0]]
    spec = [b"begin_search", [b"type", b"index", b"spec", [b"index", 1]], b"find_keys", find]
    found = parse_info([name.encode(), -2, [], 1, -1, 1, [], list(tips), [spec], []])
    assert found is not None
    return found


MGET = info_of("mget", b"request_policy:multi_shard")
DEL = info_of("del", b"request_policy:multi_shard", b"response_policy:agg_sum")


@given(st.lists(names, min_size=1, max_size=20))
def test_what_is_split_is_whole_again(keys: list[bytes]) -> None:
    parts = parts_of(MGET, (b"MGET", *keys), MAP)
    assert len({part.slot for part in parts}) == len(parts) == len({slot_of(key) for key in keys})
    replies = [[b"value of " + key for key in part.words[1:]] for part in parts]  # type: ignore[operator]
    assert merged(MGET, parts, replies) == [b"value of " + key for key in keys]  # type: ignore[arg-type]


def test_numbers_are_added_and_errors_are_not_hidden() -> None:
    parts = parts_of(DEL, (b"DEL", b"a", b"b", b"c"), MAP)
    assert merged(DEL, parts, [1, 0, 1]) == 2
    with pytest.raises(ServerError) as caught:
        merged(DEL, parts, [1, refusal(b"OOM no"), 1])
    assert caught.value.applied == "unknown"
    with pytest.raises(ProtocolError):
        merged(DEL, parts, [1, b"2", 1])
    with pytest.raises(ProtocolError):
        merged(MGET, parts, [[b"1"], None, [b"2"]])


def test_what_must_stay_whole_is_refused() -> None:
    for words, info in ((Whole((b"MGET", b"a", b"b")), MGET), ((b"RENAME", b"a", b"b"), info_of("rename"))):
        with pytest.raises(CrossSlotError, match="the same part in braces") as caught:
            parts_of(info, words, MAP)
        assert caught.value.applied == "no"
    (part,) = parts_of(MGET, Whole((b"MGET", b"{u}a", b"{u}b")), MAP)
    assert part.slot == slot_of(b"u")


def test_without_keys_it_goes_anywhere_or_everywhere() -> None:
    flush = parse_info([b"flushall", -1, [], 0, 0, 0, [], [b"request_policy:all_shards"], [], []])
    assert [MAP.owner(part.slot) for part in parts_of(flush, (b"FLUSHALL",), MAP)] == [A, B, C]
    assert len(parts_of(None, (b"NONSENSE", b"a", b"b"), MAP)) == 1


def test_a_map_from_a_node() -> None:
    rows = [[0, 99, [b"", 7001, b"id", []], [b"h", 7002]], [100, 16383, [None, 7003]]]
    found = parse_slots(rows, Address("asked", 1))  # type: ignore[arg-type]
    assert found.owner(0) == Address("asked", 7001)
    assert found.owner(16383) == Address("asked", 7003)
    assert set(found.nodes) == {Address("asked", 7001), Address("asked", 7003), Address("h", 7002)}
    assert found.gained_since(MAP) == [Address("asked", 7001), Address("asked", 7003)]


@pytest.mark.parametrize(
    "reply",
    [None, [], b"OK", [[1]], [[0, SLOTS, [b"h", 1]]], [[5, 4, [b"h", 1]]], [[0, 1, b"h"]], [[0, 1, [b"h", b"1"]]]],
)
def test_a_map_that_is_none(reply: object) -> None:
    with pytest.raises(ProtocolError):
        parse_slots(reply, A)  # type: ignore[arg-type]


def after(error: KVError, attempt: int = 1, *, safe: bool = False, again: bool = True, left: float = 5) -> Step | None:
    return step_after(error, attempt, safe=safe, again=again, left=left, asked=A)


def test_redirections_are_followed_whatever_the_command() -> None:
    assert after(refusal(b"MOVED 3999 127.0.0.1:7002")) == Step(0, refresh=True, address=B)
    assert after(refusal(b"ASK 3999 127.0.0.1:7002"), again=False) == Step(0, address=B, asking=True)
    assert after(refusal(b"MOVED 3999 :7002")) == Step(0, refresh=True, address=B)
    assert after(refusal(b"MOVED 3999 [::1]:7002")) == Step(0, refresh=True, address=Address("::1", 7002))
    assert after(refusal(b"MOVED 3999 ::1:7002")) == Step(0, refresh=True, address=Address("::1", 7002))
    assert after(refusal(b"MOVED nonsense")) == Step(0, refresh=True, address=None)
    for line in (b"TRYAGAIN x", b"CLUSTERDOWN x", b"READONLY x", b"LOADING x"):
        step = after(refusal(line))
        assert step is not None
        assert step.pause > 0
    assert after(refusal(b"CROSSSLOT x")) is None
    assert after(refusal(b"ERR x")) is None
    late = after(refusal(b"MOVED 3999 127.0.0.1:7002"), 10)
    assert late is not None
    assert late.pause > 0.5  # the nodes do not agree: do not keep them busy


def test_what_may_have_been_applied_is_not_sent_again() -> None:
    assert after(ConnectionLostError("x")) is None
    assert after(ConnectionLostError("x"), safe=True) == Step(0, refresh=True)
    assert after(ConnectionLostError("x", applied="no")) == Step(0, refresh=True)
    assert after(CallTimeoutError("x")) is None
    assert after(CallTimeoutError("x"), safe=True) is not None
    assert after(CannotConnectError("x")) is not None
    assert after(CannotConnectError("x"), again=False) is None
    assert after(ConnectionLostError("x"), safe=True, left=0) is None


def test_a_transaction_is_redirected_by_what_aborted_it() -> None:
    aborted = TransactionAbortedError("EXECABORT", "x")
    assert after(aborted) is None
    aborted.__cause__ = refusal(b"MOVED 3999 127.0.0.1:7002")
    assert after(aborted) == Step(0, refresh=True, address=B)
