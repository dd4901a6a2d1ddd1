"""Recorded histories of several clients have an explanation, over several keys and with transactions included."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis
from threads.linearizability import Operation, Recorder, Reply, Words, is_linearizable
from threads.locks import NoIsolation, NoLock, WatchedLock, after_call
from threads.racing import PATIENCE, together

import kvclient
import kvserver
from kvclient.errors import ServerError
from kvserver import dispatch
from kvserver.store.memory import Database

Store = tuple[tuple[str, str], ...]
"""Keys and values, in order of the keys: what a step can be hashed by."""

CLIENTS = 4
OPERATIONS = 7
KEYS = ("a", "b")


def step(store: Store, words: Words) -> tuple[Reply, Store]:
    """What a correct server answers."""
    data = dict(store)
    name, *arguments = words
    reply = _MODEL[name](data, *arguments)
    return reply, tuple(sorted(data.items()))


def _set(data: dict[str, str], key: str, value: str) -> Reply:
    data[key] = value
    return b"OK"


def _setnx(data: dict[str, str], key: str, value: str) -> Reply:
    if key in data:
        return 0
    data[key] = value
    return 1


def _getset(data: dict[str, str], key: str, value: str) -> Reply:
    old = _get(data, key)
    data[key] = value
    return old


def _get(data: dict[str, str], key: str) -> Reply:
    return data[key].encode() if key in data else None


def _incr(data: dict[str, str], key: str, amount: int = 1) -> Reply:
    old = data.get(key, "0")
    if str(int(old)) != old:  # APPEND to a 0 makes what is no number to Redis
        return "value is not an integer or out of range"
    data[key] = str(int(old) + amount)
    return int(data[key])


def _append(data: dict[str, str], key: str, value: str) -> Reply:
    data[key] = data.get(key, "") + value
    return len(data[key])


def _mset(data: dict[str, str], *words: str) -> Reply:
    data.update(zip(words[::2], words[1::2], strict=True))
    return b"OK"


def _rename(data: dict[str, str], key: str, newkey: str) -> Reply:
    if key not in data:
        return "no such key"
    data[newkey] = data.pop(key)
    return b"OK"


def _move_one(data: dict[str, str], giver: str, taker: str) -> Reply:
    """A transaction: one from here to there."""
    return [_incr(data, giver, -1), _incr(data, taker)]


_MODEL: dict[str, Callable[..., Reply]] = {
    "GET": _get, "SET": _set, "SETNX": _setnx, "GETSET": _getset, "INCR": _incr, "APPEND": _append, "MSET": _mset,
    "DEL": lambda data, key: int(data.pop(key, None) is not None),
    "MGET": lambda data, *keys: [_get(data, key) for key in keys],
    "RENAME": _rename,
    "MOVE-ONE": _move_one,
}  # fmt: skip


def random_words(chance: random.Random) -> Words:
    """Digits only, so that INCR hardly ever fails; APPEND makes longer numbers."""
    a, b = chance.sample(KEYS, 2)
    value = str(chance.randrange(1, 10))
    return chance.choice(
        [
            ("GET", a), ("GET", a), ("SET", a, value), ("SETNX", a, value), ("GETSET", a, value), ("INCR", a),
            ("APPEND", a, value), ("MSET", a, value, b, value), ("MGET", a, b), ("DEL", a), ("RENAME", a, b),
            ("MOVE-ONE", a, b),
        ]
    )  # fmt: skip


def run(client: kvclient.Client, words: Words) -> Reply:
    try:
        return client.execute(*words)
    except ServerError as error:
        return str(error).removeprefix("ERR ")


def move(pipeline: redis.client.Pipeline) -> Reply:
    replies = pipeline.execute(raise_on_error=False)
    return [str(reply).partition(" (")[0] if isinstance(reply, Exception) else reply for reply in replies]


def record(recorder: Recorder, words: Words, client: kvclient.Client, transactions: redis.Redis) -> None:
    if words[0] == "MOVE-ONE":
        giver, taker = words[1:]
        pipeline = transactions.pipeline(transaction=True).decr(giver).incr(taker)
        recorder.record(words, lambda: move(pipeline))
    else:
        recorder.record(words, lambda: run(client, words))


@pytest.mark.parametrize("seed", range(60))
def test_what_clients_see_has_an_order(server: kvserver.Server, seed: int) -> None:
    recorder = Recorder()

    def work(client: kvclient.Client, number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        with redis.Redis(port=server.port) as transactions:
            transactions.ping()
            for _ in range(OPERATIONS):
                record(recorder, random_words(chance), client, transactions)

    together(server.url, CLIENTS, work)
    assert len(recorder.history) == CLIENTS * OPERATIONS
    assert is_linearizable(recorder.history, step, ())


# That a server without its lock is found out

COLLISIONS: dict[str, tuple[str, str, str, type[WatchedLock]]] = {
    # the first command, where it is stopped, its rival, what is missing
    "INCR is lost": ("INCR a", "peek", "INCR a", NoLock),
    "APPEND is lost": ("APPEND a 1", "peek", "APPEND a 2", NoLock),
    "SET is lost": ("INCR a", "peek", "SET a 7", NoLock),
    "DEL is lost": ("INCR a", "peek", "DEL a", NoLock),
    "GETSET gives one value twice": ("GETSET a 1", "get", "GETSET a 2", NoLock),
    "half of an MSET": ("MSET a 1 b 1", "put", "MGET a b", NoLock),
    "an MGET before and after": ("MGET a b", "get", "MSET a 1 b 1", NoLock),
    "a key renamed and deleted": ("RENAME a b", "peek", "DEL a", NoLock),
    "half of a transaction": ("MOVE-ONE a b", "_run_queued", "MGET a b", NoIsolation),
}


@pytest.mark.interpreted
@pytest.mark.parametrize("broken", [False, True], ids=["with the lock", "without"])
@pytest.mark.parametrize("case", COLLISIONS)
def test_the_lock_is_what_gives_an_order(case: str, broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over sockets: the rival is sent in the middle of the first command, and gets its reply then unless it waits."""
    first, method, rival, missing = COLLISIONS[case]
    recorder = Recorder()
    lock = missing() if broken else WatchedLock()
    server = kvserver.Server(port=0)
    server._state.keyspace.lock = lock  # type: ignore[assignment]
    server._state.keyspace.held = lock.held
    with server, redis.Redis(port=server.port) as transactions, kvclient.connect(server.url) as one:
        recorder.record(("MSET", "a", "5", "b", "5"), lambda: run(one, ("MSET", "a", "5", "b", "5")))
        with kvclient.connect(server.url) as other, ThreadPoolExecutor(1) as pool:
            other.ping()
            sent: list[Future[None]] = []

            def meet() -> None:
                sent.append(pool.submit(record, recorder, tuple(rival.split()), other, transactions))
                sent[0].add_done_callback(lambda _: lock.contended.set())
                assert lock.contended.wait(PATIENCE)

            owner = Database if hasattr(Database, method) else dispatch
            with monkeypatch.context() as patch:
                patch.setattr(owner, method, after_call(getattr(owner, method), 1, meet))
                record(recorder, tuple(first.split()), one, transactions)
                sent[0].result(PATIENCE)
        recorder.record(("MGET", "a", "b"), lambda: run(one, ("MGET", "a", "b")))
    assert is_linearizable(recorder.history, step, ()) is not broken


# That the search finds what is wrong


def history(*operations: tuple[str, Reply, int, int]) -> list[Operation]:
    return [Operation(tuple(words.split()), reply, called, returned) for words, reply, called, returned in operations]


GOOD = {
    "one after the other": history(("SET a 1", b"OK", 0, 1), ("GET a", b"1", 2, 3)),
    "at once, the write first": history(("SET a 1", b"OK", 0, 3), ("GET a", b"1", 1, 2)),
    "at once, the read first": history(("SET a 1", b"OK", 0, 3), ("GET a", None, 1, 2)),
    "an order that is not that of the calls": history(
        ("INCR a", 2, 0, 3), ("INCR a", 1, 1, 2), ("GET a", b"2", 4, 5)
    ),
    "a transfer between two reads": history(
        ("MSET a 5 b 5", b"OK", 0, 1), ("MGET a b", [b"5", b"5"], 2, 7), ("MOVE-ONE a b", [4, 6], 3, 6),
        ("MGET a b", [b"4", b"6"], 4, 5),
    ),
}  # fmt: skip
BAD = {
    "a stale read": history(("SET a 1", b"OK", 0, 1), ("SET a 2", b"OK", 2, 3), ("GET a", b"1", 4, 5)),
    "a value never written": history(("SET a 1", b"OK", 0, 2), ("GET a", b"3", 1, 3)),
    "a lost update": history(("INCR a", 1, 0, 2), ("INCR a", 1, 1, 3)),
    "a value read, and then the one before": history(
        ("SET a 1", b"OK", 0, 1), ("SET a 2", b"OK", 2, 9), ("GET a", b"2", 3, 4), ("GET a", b"1", 5, 6)
    ),
    "two winners": history(("SETNX a 1", 1, 0, 2), ("SETNX a 2", 1, 1, 3)),
    "half of an MSET": history(
        ("MSET a 1 b 1", b"OK", 0, 1), ("MSET a 2 b 2", b"OK", 2, 5), ("MGET a b", [b"2", b"1"], 3, 4)
    ),
    "a transfer half done": history(
        ("MSET a 5 b 5", b"OK", 0, 1), ("MOVE-ONE a b", [4, 6], 2, 5), ("MGET a b", [b"4", b"5"], 3, 4)
    ),
    "a transfer seen key by key, from the wrong end": history(
        ("MSET a 5 b 5", b"OK", 0, 1), ("MOVE-ONE a b", [4, 6], 2, 9), ("GET a", b"4", 3, 4), ("GET b", b"5", 5, 6)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_a_good_history_passes(case: str) -> None:
    assert is_linearizable(GOOD[case], step, ())


@pytest.mark.parametrize("case", BAD)
def test_a_bad_history_fails(case: str) -> None:
    assert not is_linearizable(BAD[case], step, ())


@pytest.mark.parametrize("seed", range(20))
def test_one_wrong_reply_in_a_long_history_is_found(seed: int) -> None:
    """Overlapping operations with replies of a real order; then one of them is changed."""
    chance = random.Random(seed)
    store: Store = ()
    operations = []
    for number in range(24):
        words = random_words(chance)
        reply, store = step(store, words)
        operations.append(
            Operation(words, reply, 10 * number - chance.randrange(30), 10 * number + 1 + chance.randrange(30))
        )
    assert is_linearizable(operations, step, ())
    place = chance.choice([place for place, each in enumerate(operations) if each.words[0] in ("INCR", "APPEND")])
    wrong = operations[place]
    operations[place] = Operation(wrong.words, 10**6, wrong.called, wrong.returned)
    assert not is_linearizable(operations, step, ())
