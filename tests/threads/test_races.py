"""Races with exact answers: many clients begin at one moment, and what must come out is known.

That these can fail is shown in ``test_schedules.py``, where the lock is taken away.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter

from threads.racing import flatten, race, together

import kvclient
import kvserver

RUNNERS = 8
ROUNDS = 200


def test_no_increment_is_lost(server: kvserver.Server) -> None:
    def count(client: kvclient.Client, _number: int) -> list[int]:
        return [client.incr("n") for _ in range(ROUNDS)]

    seen = together(server.url, RUNNERS, count)
    assert sorted(flatten(seen)) == list(range(1, RUNNERS * ROUNDS + 1))  # each value was given exactly once
    assert all(one == sorted(one) for one in seen)


def test_increments_and_decrements_cancel_out(server: kvserver.Server) -> None:
    def up(client: kvclient.Client, number: int) -> None:
        for _ in range(ROUNDS):
            client.incrby("n", number + 1)

    def down(client: kvclient.Client, number: int) -> None:
        for _ in range(ROUNDS):
            client.decrby("n", number - 3)

    race(server.url, up, up, up, up, down, down, down, down)
    with kvclient.connect(server.url) as client:
        assert client.incrby("n", 0) == 0


def test_one_wins(server: kvserver.Server) -> None:
    """SETNX, SET NX, RENAMENX and GETDEL: exactly one of many gets it, in each round."""

    def grab(client: kvclient.Client, number: int) -> list[tuple[str, int]]:
        won = []
        for turn in range(ROUNDS // 4):
            client.set(f"mine:{number}", b"v")
            if client.setnx(f"a:{turn}", str(number)):
                won.append(("setnx", turn))
            if client.set(f"b:{turn}", str(number), if_absent=True):
                won.append(("set", turn))
            if client.renamenx(f"mine:{number}", f"c:{turn}"):
                won.append(("renamenx", turn))
            if client.getdel(f"prize:{turn}") is not None:
                won.append(("getdel", turn))
        return won

    with kvclient.connect(server.url) as client:
        client.mset({f"prize:{turn}": b"v" for turn in range(ROUNDS // 4)})
    won = Counter(flatten(together(server.url, RUNNERS, grab)))
    assert won == Counter(itertools.product(("setnx", "set", "renamenx", "getdel"), range(ROUNDS // 4)))


def test_readers_see_whole_values_only(server: kvserver.Server) -> None:
    """Each value is one letter repeated, of a length that goes with the letter; anything else is torn."""
    values = {bytes([65 + n]) * (n * 20_000 + 1) for n in range(5)}

    def write(client: kvclient.Client, number: int) -> None:
        for value in sorted(values) * 10:
            client.set("k", value)

    def read(client: kvclient.Client, number: int) -> None:
        for _ in range(50):
            assert client.get("k") in values | {None}
            part = client.getrange("k", 0, 99)
            assert len(set(part)) <= 1

    race(server.url, write, write, read, read, read, read)


def test_mget_sees_all_of_an_mset_or_nothing(server: kvserver.Server) -> None:
    keys = [f"k{n}" for n in range(20)]

    def write(client: kvclient.Client, number: int) -> None:
        for turn in range(ROUNDS):
            client.mset(dict.fromkeys(keys, f"{number}:{turn}"))

    def read(client: kvclient.Client, number: int) -> None:
        for _ in range(ROUNDS):
            assert len(set(client.mget(*keys))) == 1

    race(server.url, write, write, write, read, read, read)


def test_msetnx_sets_all_or_nothing(server: kvserver.Server) -> None:
    """Each takes two neighbours of a ring, so that every attempt collides with two others."""

    def grab(client: kvclient.Client, number: int) -> list[tuple[int, int]]:
        mine = str(number)
        following = (number + 1) % RUNNERS
        return [
            (turn, number)
            for turn in range(ROUNDS)
            if client.msetnx({f"{turn}:{number}": mine, f"{turn}:{following}": mine})
        ]

    won = flatten(together(server.url, RUNNERS, grab))
    with kvclient.connect(server.url) as client:
        for turn in range(ROUNDS):
            owners = client.mget(*(f"{turn}:{place}" for place in range(RUNNERS)))
            for place, owner in enumerate(owners):
                assert owner is None or int(owner) in (place, (place - 1) % RUNNERS)
            expected = Counter(number for at, number in won if at == turn)
            assert Counter(int(owner) for owner in owners if owner is not None) == expected + expected
            assert expected  # somebody always can


def test_a_key_renamed_back_and_forth_is_always_in_one_place(server: kvserver.Server) -> None:
    with kvclient.connect(server.url) as client:
        client.set("here", b"v")

    def move(client: kvclient.Client, number: int) -> int:
        moved = 0
        for turn in range(ROUNDS):
            with contextlib.suppress(kvclient.errors.ServerError):
                client.rename(*(("here", "there") if (turn + number) % 2 else ("there", "here")))
                moved += 1
        return moved

    def look(client: kvclient.Client, number: int) -> int:
        for _ in range(ROUNDS):
            assert client.exists("here", "there") == 1
            assert sorted(client.mget("here", "there"), key=str) == [None, b"v"]
        return 0

    assert sum(race(server.url, move, move, look, look)) > 0


def test_no_append_is_lost_or_torn(server: kvserver.Server) -> None:
    def append(client: kvclient.Client, number: int) -> list[int]:
        return [client.append("log", bytes([97 + number]) * (number + 1)) for _ in range(ROUNDS)]

    lengths = flatten(together(server.url, RUNNERS, append))
    with kvclient.connect(server.url) as client:
        log = client.get("log") or b""
    ends = sorted(lengths)
    assert len(set(ends)) == len(ends)
    assert ends[-1] == len(log)
    pieces = [log[start:end] for start, end in itertools.pairwise([0, *ends])]
    assert Counter(pieces) == Counter({bytes([97 + n]) * (n + 1): ROUNDS for n in range(RUNNERS)})


def test_a_chain_of_getset_loses_nothing(server: kvserver.Server) -> None:
    """Everything put in comes out exactly once, but the last, which is still there."""

    def swap(client: kvclient.Client, number: int) -> list[bytes | None]:
        return [client.getset("k", f"{number}:{turn}") for turn in range(ROUNDS)]

    out = flatten(together(server.url, RUNNERS, swap))
    with kvclient.connect(server.url) as client:
        out.append(client.get("k"))
    put_in = {b"%d:%d" % place for place in itertools.product(range(RUNNERS), range(ROUNDS))}
    assert Counter(out) == Counter([None, *put_in])


def test_swapdb_swaps_at_once_for_everybody(server: kvserver.Server) -> None:
    """In each database all keys say the same, whichever it is just now."""
    keys = [f"k{n}" for n in range(10)]
    for number in (0, 1):
        with kvclient.connect(server.url, db=number) as client:
            client.mset(dict.fromkeys(keys, str(number)))

    def swap(client: kvclient.Client, number: int) -> None:
        for _ in range(ROUNDS):
            client.swapdb(0, 1)

    def read(client: kvclient.Client, number: int) -> None:
        for _ in range(ROUNDS):
            assert len(set(client.mget(*keys))) == 1

    race(server.url, swap, swap, read, read)
    values = []
    for number in (0, 1):
        with kvclient.connect(server.url, db=number) as client:
            values.append(client.get("k0"))
    assert sorted(map(str, values)) == ["b'0'", "b'1'"]


def test_transfers_keep_the_sum(server: kvserver.Server) -> None:
    """Money moves between databases by MOVE and within one by RENAMENX; every coin stays exactly once."""
    coins = [f"coin:{n}" for n in range(10)]
    with kvclient.connect(server.url) as client:
        client.mset({coin: coin for coin in coins})

    def carry(client: kvclient.Client, number: int) -> None:
        for turn in range(ROUNDS):
            coin = coins[(turn * 7 + number) % len(coins)]
            client.move(coin, 1)

    def carry_back(client: kvclient.Client, number: int) -> None:
        with kvclient.connect(server.url, db=1) as other:
            for turn in range(ROUNDS):
                other.move(coins[(turn * 3 + number) % len(coins)], 0)

    race(server.url, carry, carry, carry_back, carry_back)
    found: list[bytes] = []
    for number in (0, 1):
        with kvclient.connect(server.url, db=number) as client:
            found += [value for value in client.mget(*coins) if value is not None]
    assert sorted(found) == sorted(coin.encode() for coin in coins)


def test_flush_and_expiry_and_scan_at_once(server: kvserver.Server) -> None:
    """Nothing to count here: nobody may fail, and nothing may be left."""

    def write(client: kvclient.Client, number: int) -> None:
        for turn in range(ROUNDS):
            client.psetex(f"{number}:{turn}", 1 + turn % 20, b"v")

    def scan(client: kvclient.Client, number: int) -> None:
        for _ in range(20):
            assert len(list(client)) <= 2 * ROUNDS + 1

    def flush(client: kvclient.Client, number: int) -> None:
        for _ in range(20):
            client.flushall()
            client.set("x", b"v", ttl=1000)
            client.persist("x")

    race(server.url, write, write, scan, scan, flush)
    with kvclient.connect(server.url) as client:
        client.delete("x")
        while client.dbsize():  # the last of them expire by themselves
            pass
