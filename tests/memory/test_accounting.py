"""What the server says its data takes up is what it does take up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import kvserver
from kvserver.store.memory import DEADLINE_BYTES, Keyspace, size_of

pytestmark = pytest.mark.untraced  # it measures, and coverage costs

KEYS = st.sampled_from([b"", b"k", b"a key of 16 byte", b"k" * 40])
VALUES = st.sampled_from([b"", b"v" * 15, b"v" * 16, b"v" * 1000])


class Accounting(RuleBasedStateMachine):
    """Whatever is done, in whatever order, the sum is that of what is there."""

    @initialize(policy=st.sampled_from(["noeviction", "allkeys-lru", "volatile-ttl", "allkeys-random"]))
    def begin(self, policy: str) -> None:
        self.now = 1_000_000
        self.keyspace = Keyspace(2, lambda: self.now)
        self.keyspace.lock.acquire()
        self.keyspace.eviction.configure(10**9, policy)

    def teardown(self) -> None:
        self.keyspace.lock.release()

    @rule(index=st.integers(0, 1), key=KEYS, value=VALUES)
    def put(self, index: int, key: bytes, value: bytes) -> None:
        self.keyspace.databases[index].put(key, value)

    @rule(index=st.integers(0, 1), key=KEYS, value=VALUES)
    def replace(self, index: int, key: bytes, value: bytes) -> None:
        database = self.keyspace.databases[index]
        database.peek(key)
        database.replace(key, value)

    @rule(index=st.integers(0, 1), key=KEYS, value=VALUES, deadline=st.none() | st.just(2_000_000))
    def load(self, index: int, key: bytes, value: bytes, deadline: int | None) -> None:
        self.keyspace.databases[index].load(key, value, deadline)

    @rule(index=st.integers(0, 1), key=KEYS, after=st.sampled_from([-1, 50, 5000]))
    def expire(self, index: int, key: bytes, after: int) -> None:
        database = self.keyspace.databases[index]
        if database.peek(key) is not None:
            database.expire_at(key, self.keyspace.now + after)

    @rule(index=st.integers(0, 1), key=KEYS)
    def persist(self, index: int, key: bytes) -> None:
        self.keyspace.databases[index].persist(key)

    @rule(index=st.integers(0, 1), key=KEYS)
    def remove(self, index: int, key: bytes) -> None:
        self.keyspace.databases[index].remove(key)

    @rule(milliseconds=st.sampled_from([10, 100]))
    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.keyspace.moment = None

    @rule()
    def swap(self) -> None:
        self.keyspace.swap(0, 1)

    @rule(index=st.integers(0, 1))
    def flush(self, index: int) -> None:
        self.keyspace.databases[index].flush()

    @rule()
    def evict_everything(self) -> None:
        eviction = self.keyspace.eviction
        policy = eviction.policy
        eviction.configure(1, policy)
        eviction.make_room()
        eviction.configure(10**9, policy)

    @invariant()
    def sums_are_right(self) -> None:
        if not hasattr(self, "keyspace"):
            return
        for database in self.keyspace.databases:
            size = sum(size_of(key, value) for key, value in database.values.items())
            assert database.data_bytes == size + DEADLINE_BYTES * len(database.deadlines)
        assert self.keyspace.data_bytes == sum(database.data_bytes for database in self.keyspace.databases)
        assert self.keyspace.policy_bytes == sum(database.policy_bytes for database in self.keyspace.databases)


TestAccounting = Accounting.TestCase


@pytest.fixture
def alone() -> Iterator[tuple[redis.Redis, int]]:
    """A server in a process of its own, and that process's number."""
    with subprocess.Popen(
        [sys.executable, "-m", "kvserver", "--port", "0", "--log-level", "error"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            with redis.Redis(port=int(process.stdout.readline().rpartition(":")[2])) as client:
                yield client, process.pid
        finally:
            process.terminate()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("size", "count", "deadline"),
    [
        (10, 200_000, False), (10, 150_000, True), (100, 150_000, False), (1000, 60_000, False), (1000, 50_000, True),
        (10_000, 8_000, False), (100_000, 800, False), (1_000_000, 80, False),
    ],
)  # fmt: skip
def test_within_15_percent_of_what_the_process_grows_by(
    alone: tuple[redis.Redis, int], size: int, count: int, deadline: bool
) -> None:
    client, pid = alone
    value = b"v" * size
    client.set("warm", value)
    client.delete("warm")
    before, used_before = _resident(pid), client.info("memory")["used_memory"]
    for start in range(0, count, 1000 if size < 10_000 else 20):
        with client.pipeline(transaction=False) as batch:
            for number in range(start, min(count, start + (1000 if size < 10_000 else 20))):
                batch.set(f"key:{number}", value, ex=1000 if deadline else None)
            batch.execute()
    grown = _resident(pid) - before
    told = client.info("memory")["used_memory"] - used_before
    assert 0.85 * grown < told < 1.15 * grown, f"{told / grown:.2f}"
    each = told / count
    if count > 1000:
        assert client.memory_usage("key:50") == pytest.approx(each, rel=0.1)


def test_one_key(server: kvserver.Server) -> None:
    with redis.Redis(port=server.port) as client:
        assert client.info("memory")["used_memory"] == 0
        client.set("k", b"v" * 10_000)
        with_key = client.info("memory")["used_memory"]
        assert with_key == client.memory_usage("k")
        client.expire("k", 100)
        assert client.info("memory")["used_memory"] == client.memory_usage("k") > with_key
        client.flushall()
        assert client.info("memory")["used_memory"] == 0
        assert client.info("memory")["used_memory_peak"] > 10_000
        assert client.memory_usage("k") is None
        assert client.memory_stats()["keys.count"] == 0
