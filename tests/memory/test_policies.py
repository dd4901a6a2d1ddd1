"""Which key goes first, policy by policy: on a keyspace without a server."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvserver.config import POLICIES
from kvserver.store.eviction import S3Fifo
from kvserver.store.memory import Database, Keyspace

EVICTING = [name for name in POLICIES if name != "noeviction"]
VOLATILE = [name for name in EVICTING if name.startswith("volatile")]
VALUE = b"v" * 100
ROOM_FOR_100 = 100 * (48 + 144 + 48 + 64 + 208 + 80)
"""Bytes that a hundred keys do not exceed, whatever the policy takes up."""


@pytest.fixture
def keyspace() -> Iterator[Keyspace]:
    made = Keyspace(2, lambda: 1_000_000)
    with made.lock:
        yield made


def put(database: Database, number: int, deadline: int | None = None) -> bytes:
    key = b"k%d" % number
    database.put(key, VALUE)
    if deadline is not None:
        database.expire_at(key, deadline)
    database.keyspace.eviction.settle()
    return key


def evict_down_to(keyspace: Keyspace, keys: int) -> None:
    """Evict one key after the other."""
    eviction, policy = keyspace.eviction, keyspace.eviction.policy
    while sum(len(database.values) for database in keyspace.databases) > keys:
        eviction.configure(keyspace.used - 1, policy)
        assert eviction.make_room()


@pytest.mark.parametrize("policy", EVICTING)
def test_never_above_the_limit_and_not_much_below(keyspace: Keyspace, policy: str) -> None:
    keyspace.eviction.configure(ROOM_FOR_100, policy)
    database = keyspace.databases[0]
    for number in range(5000):
        put(database, number, 2_000_000 + number)
        assert keyspace.used <= ROOM_FOR_100
        assert number < 100 or len(database.values) > 70
    assert keyspace.eviction.evicted == 5000 - len(database.values)


@pytest.mark.parametrize("policy", VOLATILE)
def test_only_keys_with_a_deadline(keyspace: Keyspace, policy: str) -> None:
    database = keyspace.databases[0]
    keyspace.eviction.configure(10**9, policy)
    for number in range(50):
        put(database, number)
    for number in range(50, 100):
        put(database, number, 2_000_000)
    database.persist(b"k99")
    put(database, 98)
    keyspace.eviction.configure(1, policy)
    assert not keyspace.eviction.make_room()
    assert set(database.values) == {b"k%d" % number for number in [*range(50), 98, 99]}
    assert not database.deadlines
    assert keyspace.eviction.is_full()


@pytest.mark.parametrize("policy", EVICTING)
def test_keys_that_were_there_before_the_limit(keyspace: Keyspace, policy: str) -> None:
    database = keyspace.databases[1]
    for number in range(100):
        put(database, number, 2_000_000)
    keyspace.eviction.configure(ROOM_FOR_100 // 4, policy)
    keyspace.eviction.make_room()
    assert keyspace.used <= ROOM_FOR_100 // 4
    assert 0 < len(database.values) < 100


@pytest.mark.parametrize("policy", EVICTING)
def test_keys_that_come_and_go_leave_nothing_behind(keyspace: Keyspace, policy: str) -> None:
    """What a policy remembers of keys that are gone is bounded."""
    keyspace.eviction.configure(10**9, policy)
    database = keyspace.databases[0]
    for number in range(20_000):
        database.remove(put(database, number, 2_000_000))
    assert database.policy is not None
    assert database.policy.footprint() < 80 * 3000
    assert keyspace.data_bytes == 0
    keyspace.eviction.configure(1, policy)
    keyspace.eviction.make_room()
    assert keyspace.used == 0
    keyspace.eviction.configure(10**9, policy)
    key = put(database, 1, 2_000_000)
    keyspace.eviction.configure(1, policy)
    keyspace.eviction.make_room()
    assert key not in database.values


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "volatile-lru", "volatile-lfu"])
def test_what_is_used_stays(keyspace: Keyspace, policy: str) -> None:
    keyspace.eviction.configure(ROOM_FOR_100, policy)
    database = keyspace.databases[0]
    kept = [put(database, number, 2_000_000) for number in range(20)]
    for number in range(20, 5000):
        put(database, number, 2_000_000)
        assert database.get(kept[number % 20]) is not None


def test_a_scan_does_not_push_out_what_is_used(keyspace: Keyspace) -> None:
    """The least recently used would all be gone after a scan of as many keys as there is room for."""
    keyspace.eviction.configure(ROOM_FOR_100, "allkeys-lru")
    database = keyspace.databases[0]
    kept = [put(database, number) for number in range(50)]
    for key in kept:
        database.get(key)
    for number in range(1000, 1400):
        put(database, number)
    assert all(key in database.values for key in kept)


def test_what_comes_back_soon_is_kept_longer(keyspace: Keyspace) -> None:
    keyspace.eviction.configure(ROOM_FOR_100, "allkeys-lru")
    database = keyspace.databases[0]
    for number in range(300):
        put(database, number)
    gone = next(b"k%d" % number for number in range(299, 0, -1) if b"k%d" % number not in database.values)
    put(database, int(gone[1:]))  # it went not long ago, and is wanted again
    for number in range(300, 600):
        put(database, number)
    assert gone in database.values
    assert b"k300" not in database.values


def test_the_nearest_deadline_goes_first(keyspace: Keyspace) -> None:
    keyspace.eviction.configure(10**9, "volatile-ttl")
    first, second = keyspace.databases
    order = list(range(100))
    random.Random(7).shuffle(order)
    for number in order:
        put(first, number, 2_000_000 + number)
    put(second, 5, None)
    first.expire_at(b"k0", 3_000_000)  # moved to the end
    first.expire_at(b"k99", 1_500_000)  # and to the front
    first.persist(b"k50")
    evict_down_to(keyspace, 61)
    assert {int(key[1:]) for key in first.deadlines} == {0, *range(40, 99)} - {50}


def test_random_is_random(keyspace: Keyspace) -> None:
    database = keyspace.databases[0]
    kept = []
    for _ in range(2):
        database.flush()
        keyspace.eviction.configure(10**9, "allkeys-random")
        for number in range(200):
            put(database, number)
        evict_down_to(keyspace, 100)
        kept.append(frozenset(database.values))
    assert kept[0] != kept[1]
    assert 20 < len(kept[0] & kept[1]) < 80


def test_databases_lose_keys_in_proportion(keyspace: Keyspace) -> None:
    keyspace.eviction.configure(10**9, "allkeys-lru")
    small, large = keyspace.databases
    for number in range(1000):
        put(large, number)
        if number % 4 == 0:
            put(small, number)
    evict_down_to(keyspace, 625)
    assert 80 < len(small.values) < 170


def test_a_swap_and_a_flush_keep_the_order_with_the_data(keyspace: Keyspace) -> None:
    keyspace.eviction.configure(10**9, "allkeys-lru")
    first, second = keyspace.databases
    put(first, 1)
    put(second, 2)
    keyspace.swap(0, 1)
    first.flush()
    put(first, 3)
    keyspace.eviction.configure(1, "allkeys-lru")
    keyspace.eviction.make_room()
    assert not first.values
    assert not second.values


def test_no_victim_waits_for_endless_second_chances() -> None:
    """With every key used as much as counts, the next one goes after a bounded number of looks."""

    class Counting(dict[bytes, object]):
        looks = 0

        def __contains__(self, key: object) -> bool:
            self.looks += 1
            return super().__contains__(key)

    live = Counting((b"%d" % number, b"") for number in range(10_000))
    policy = S3Fifo(live, 15)
    for key in live:
        for _ in range(15):
            policy.touch(key)
    live.looks = 0
    assert policy.victim() is not None
    assert live.looks < 1000


@given(
    st.sampled_from(EVICTING),
    st.lists(st.tuples(st.sampled_from(["put", "volatile", "get", "remove", "persist", "flush"]), st.integers(0, 30))),
)
def test_every_candidate_is_found_in_the_end(policy: str, steps: list[tuple[str, int]]) -> None:
    keyspace = Keyspace(1, lambda: 1_000_000)
    with keyspace.lock:
        keyspace.eviction.configure(10**9, policy)
        database = keyspace.databases[0]
        for step, number in steps:
            key = b"k%d" % number
            if step in ("put", "volatile"):
                put(database, number, 2_000_000 + number if step == "volatile" else None)
            elif step == "flush":
                database.flush()
            else:
                getattr(database, step)(key)
        candidates = set(database.values if policy.startswith("allkeys") else database.deadlines)
        others = set(database.values) - candidates
        keyspace.eviction.configure(1, policy)
        while keyspace.eviction.is_over and keyspace.eviction.make_room():
            pass
        assert set(database.values) == others
