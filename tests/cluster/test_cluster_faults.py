"""The client on a cluster that changes under it: slots that move, nodes that die, stand still, come back."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from cluster.harness import Cluster, Node, real_cluster, until

import kvclient
from kvclient.cluster.slots import slot_of
from kvclient.errors import CannotConnectError, ClusterError, KVError

THREADS = 4


@pytest.fixture
def mortal() -> Iterator[Cluster]:
    """A cluster of a test's own, which finds out within a second that a node has died."""
    with real_cluster(timeout=1000) as cluster:
        yield cluster


@contextmanager
def under_load(work: Callable[[int], None]) -> Iterator[None]:
    """Threads that work all the time; what they raise is raised at the end."""
    end = threading.Event()

    def loop(number: int) -> None:
        while not end.is_set():
            work(number)

    with ThreadPoolExecutor(THREADS) as threads:
        running = [threads.submit(loop, number) for number in range(THREADS)]
        try:
            yield
        finally:
            end.set()
    for each in running:
        each.result()


class Counting:
    """Increments keys, and knows what was acknowledged and what may have been done."""

    def __init__(self, kv: kvclient.Client, keys: list[str]) -> None:
        self.kv, self.keys = kv, keys
        self.done: Counter[str] = Counter()
        self.perhaps: Counter[str] = Counter()
        self.errors: list[KVError] = []
        self._lock = threading.Lock()

    def work(self, number: int) -> None:
        for key in self.keys[number::THREADS]:
            try:
                self.kv.incr(key)
            except KVError as error:
                with self._lock:
                    self.errors.append(error)
                    self.perhaps[key] += error.applied != "no"
            else:
                with self._lock:
                    self.done[key] += 1
            self.kv.get(key)  # reads never fail

    def lost(self) -> int:
        """How many acknowledged increments are gone; checks that none was done twice."""
        gone = 0
        for key in self.keys:
            found = int(self.kv.get(key) or 0)
            assert found <= self.done[key] + self.perhaps[key]
            gone += max(0, self.done[key] - found)
        return gone


def keys_of(node: Node, cluster: Cluster, count: int) -> list[str]:
    found: list[str] = []
    number = 0
    while len(found) < count:
        if cluster.owner(slot_of(f"key:{number}".encode())) is node:
            found.append(f"key:{number}")
        number += 1
    return found


def test_slots_move_under_load(cluster: Cluster) -> None:
    """Nobody notices: no error, no increment lost or done twice, in pipelines and transactions too."""
    with kvclient.connect(cluster.url, timeout=30) as kv:
        keys = [f"key:{number}" for number in range(40)]
        counting = Counting(kv, keys)
        more: Counter[str] = Counter()

        def work(number: int) -> None:
            counting.work(number)
            mine = keys[number::THREADS]
            with kv.pipeline() as pipeline:
                for key in mine:
                    pipeline.incr(key)
            for key in mine:
                with kv.transaction() as transaction:
                    transaction.incr(key)
                    transaction.get(key)
            kv.transaction(lambda t: t.incr(mine[0]), watch=[mine[0]])
            kv.mget(*keys)
            more.update(mine)
            more[mine[0]] += 0

        before = {slot_of(key.encode()): cluster.owner(slot_of(key.encode())) for key in keys}
        rounds: Counter[int] = Counter()

        def counted(number: int) -> None:
            work(number)
            rounds[number] += 1

        with under_load(counted):
            for slot, owner in before.items():
                others = [node for node in cluster.primaries() if node is not owner]
                cluster.move(slot, others[slot % len(others)])
        assert not counting.errors
        for number in range(THREADS):
            mine = keys[number::THREADS]
            for key in mine:
                watched = rounds[number] if key == mine[0] else 0
                assert int(kv.get(key) or 0) == counting.done[key] + 2 * rounds[number] + watched
        for slot, owner in before.items():
            cluster.move(slot, owner)


def test_a_slot_half_on_its_way(cluster: Cluster) -> None:
    """Some of its keys are here and some there: each is found, and what needs both waits until they are together."""
    with kvclient.connect(cluster.url, timeout=10) as kv:
        slot = slot_of(b"u")
        source = cluster.owner(slot)
        target = next(node for node in cluster.primaries() if node is not source)
        kv.mset({"{u}a": "a", "{u}b": "b"})
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        source.ask("MIGRATE", "127.0.0.1", target.port, "{u}a", 0, 10_000)
        try:
            assert kv.get("{u}a") == b"a"
            assert kv.get("{u}b") == b"b"
            assert kv.set("{u}new", "c")
            assert kv.get("{u}new") == b"c"
            begun = time.monotonic()
            with pytest.raises(ClusterError, match="TRYAGAIN"), kvclient.connect(cluster.url, timeout=0.5) as hasty:
                hasty.mget("{u}a", "{u}b")
            assert time.monotonic() - begun < 5
            with ThreadPoolExecutor(1) as thread:
                waiting = thread.submit(kv.mget, "{u}a", "{u}b")
                source.ask("MIGRATE", "127.0.0.1", target.port, "{u}b", 0, 10_000)
                assert waiting.result(20) == [b"a", b"b"]
        finally:
            for node in (target, *(each for each in cluster.primaries() if each is not target)):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        with kv.transaction() as transaction:
            both = transaction.mget("{u}a", "{u}b")
        assert both.result() == [b"a", b"b"]
        cluster.move(slot, source)


def test_a_primary_dies_under_load(mortal: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Reads go on and so do writes, within their time; what asynchronous replication lost is counted."""
    with kvclient.connect(mortal.url, timeout=20) as kv:
        victim = mortal.primaries()[0]
        counting = Counting(kv, keys_of(victim, mortal, 8) + [f"other:{number}" for number in range(8)])
        with under_load(counting.work):
            until(lambda: min(counting.done[key] for key in counting.keys) > 20)
            victim.kill()
            marks = dict(counting.done)
            until(lambda: min(counting.done[key] - marks.get(key, 0) for key in counting.keys) > 20)
        assert all(error.applied == "unknown" for error in counting.errors)
        assert len(counting.errors) <= THREADS  # those that were on their way when it died
        lost = counting.lost()
        with capsys.disabled():
            total = sum(counting.done.values())
            line = f"a primary died: {lost} of {total} acknowledged increments lost, {len(counting.errors)} not known"
            sys.stderr.write(f"\n{line}\n")
        assert lost < 100
        victim.start()
        mortal.wait_until_whole()
        for key in counting.keys:
            kv.incr(key)


def test_a_primary_stands_still(mortal: Cluster) -> None:
    """It is as dead as one that has died, but its connections stay open: calls find out while they wait."""
    with kvclient.connect(mortal.url, timeout=15) as kv:
        victim = mortal.primaries()[1]
        keys = keys_of(victim, mortal, 5)
        kv.mset(dict.fromkeys(keys, 1))
        victim.suspend()
        try:
            assert kv.mget(*keys) == [b"1"] * 5
            for key in keys:
                assert kv.get(key) == b"1"
                assert kv.set(key, 2)
            with kv.pipeline() as pipeline:
                found = [pipeline.get(key) for key in keys]
            assert [each.result() for each in found] == [b"2"] * 5
        finally:
            victim.resume()
        until(lambda: not victim.is_primary())
        assert kv.mget(*keys) == [b"2"] * 5


def test_listening_goes_on_after_a_node_has_died(mortal: Cluster) -> None:
    with kvclient.connect(mortal.url, timeout=20) as kv:
        victim = mortal.owner(slot_of(b"shard"))
        with kv.listen("channel") as plain, kv.listen(shards=["shard"]) as sharded:
            victim.kill()
            until(lambda: len(mortal.primaries()) == 3)

            def is_heard(publish: Callable[[], object], messages: kvclient.Subscription) -> bool:
                publish()
                return messages.next(0.2) is not None

            until(lambda: is_heard(lambda: kv.spublish("shard", "x"), sharded))
            until(lambda: is_heard(lambda: kv.publish("channel", "x"), plain))
            assert sharded.gaps >= 1


def test_shards_are_followed_when_their_slot_moves(cluster: Cluster) -> None:
    slot = slot_of(b"moving")
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries() if node is not source)
    with kvclient.connect(cluster.url, timeout=20) as kv, kv.listen(shards=["moving"]) as messages:
        cluster.move(slot, target)

        def is_heard() -> bool:
            kv.spublish("moving", "x")
            return messages.next(0.2) is not None

        until(is_heard)
        assert messages.gaps == 1
    cluster.move(slot, source)


def test_all_are_gone_and_back(mortal: Cluster) -> None:
    with kvclient.connect(mortal.url, timeout=2) as kv:
        kv.set("k", 1)
        for node in mortal.nodes:
            node.kill()
        begun = time.monotonic()
        with pytest.raises(CannotConnectError) as caught:
            kv.set("k", 2)
        assert caught.value.applied == "no"
        assert time.monotonic() - begun < 8
        for node in mortal.nodes:
            node.start()
        mortal.wait_until_whole()
        assert kv.set("k", 3)
        assert kv.get("k") == b"3"


def test_a_cluster_that_is_not_whole(mortal: Cluster) -> None:
    """A slot that nobody serves: those who ask for it are told so when their time is up, the others are served."""
    for node in mortal.nodes:
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    slot = slot_of(b"k")
    owner = mortal.owner(slot)
    other = next(f"other:{n}" for n in range(100) if mortal.owner(slot_of(f"other:{n}".encode())) is not owner)
    for node in mortal.primaries():
        node.ask("CLUSTER", "DELSLOTS", slot)
    with kvclient.connect(mortal.url, timeout=1) as kv:
        with pytest.raises(ClusterError, match="CLUSTERDOWN"):
            kv.set("k", 1)
        assert kv.set(other, 1)
        owner.ask("CLUSTER", "ADDSLOTS", slot)
    with kvclient.connect(mortal.url, timeout=20) as kv:
        assert kv.set("k", 1)


def test_iterating_while_slots_move(cluster: Cluster) -> None:
    """A key that is there all the time is seen, wherever its slot is meanwhile."""
    with kvclient.connect(cluster.url, timeout=20) as kv:
        keys = {f"key:{number}".encode() for number in range(2000)}
        kv.mset(dict.fromkeys(keys, "x"))
        first, *_, last = cluster.primaries()
        slots = sorted({slot_of(key) for key in keys})[-25:]  # its, as it has the highest
        walk = kv.scan_iter(count=10)
        seen = {next(walk) for _ in range(len(keys) // 2)}
        for slot in slots:  # from one that is yet to be walked to one that has been
            cluster.move(slot, first, last)
        seen |= set(walk)
        assert seen == keys
        for slot in slots:
            cluster.move(slot, last, first)
