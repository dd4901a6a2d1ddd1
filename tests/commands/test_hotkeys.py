"""HOTKEYS has no oracle that can be installed: its promises are tested against plain counting."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import kvserver
from kvserver.observe.hotkeys import TopKeys


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def client(server: kvserver.Server, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port, protocol=request.param) as connected:
        connected.ping()
        yield connected


def report(client: redis.Redis) -> dict[str, Any]:
    (found,) = client.execute_command("HOTKEYS", "GET")
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}


def test_a_collection_from_start_to_reset(client: redis.Redis) -> None:
    assert client.execute_command("HOTKEYS", "GET") is None
    assert client.execute_command("HOTKEYS", "STOP") is None
    assert client.execute_command("HOTKEYS", "START", "METRICS", 2, "NET", "CPU", "COUNT", 3) == b"OK"
    for number in range(50):
        client.set("hot", "x" * 100)
        client.get(f"cold{number}")
    client.mget("hot", "other")
    with client.pipeline() as transaction:
        transaction.set("within", "y" * 100_000).get("within").execute()
    with pytest.raises(redis.ResponseError, match="in progress"):
        client.execute_command("HOTKEYS", "START", "METRICS", 1, "NET")
    with pytest.raises(redis.ResponseError, match="in progress"):
        client.execute_command("HOTKEYS", "RESET")
    active = report(client)
    assert active["tracking-active"] == 1
    assert active["sample-ratio"] == 1
    assert active["selected-slots"] == [[0, 16383]]
    assert client.execute_command("HOTKEYS", "STOP") == b"OK"
    client.set("after", "z" * 500_000)
    found = report(client)
    assert found["tracking-active"] == 0
    assert found["by-net-bytes"][::2][:2] == [b"within", b"hot"]
    assert found["by-net-bytes"][1] > 200_000
    assert found["total-net-bytes"] == found["net-bytes-all-commands-all-slots"] >= sum(found["by-net-bytes"][1::2])
    assert b"hot" in found["by-cpu-time-us"][::2]
    assert len(found["by-cpu-time-us"]) == 6
    assert found["all-commands-all-slots-us"] >= sum(found["by-cpu-time-us"][1::2])
    assert found["total-cpu-time-user-ms"] >= 0
    assert client.execute_command("HOTKEYS", "RESET") == b"OK"
    assert client.execute_command("HOTKEYS", "GET") is None


def test_only_what_was_asked_for(client: redis.Redis) -> None:
    client.execute_command("HOTKEYS", "START", "METRICS", 1, "NET")
    client.set("k", "v")
    found = report(client)
    assert found["by-net-bytes"] == [b"k", len(b"*3 $3 SET $1 k $1 v ") + 7 + len("+OK..")]
    assert "by-cpu-time-us" not in found
    client.execute_command("HOTKEYS", "STOP")


def test_it_ends_when_its_time_is_over(server: kvserver.Server, client: redis.Redis) -> None:
    state = server._state
    now = state.clock()
    state.clock = lambda: now
    client.execute_command("HOTKEYS", "START", "METRICS", 1, "NET", "DURATION", 5)
    client.set("k", "v")
    now += 5000
    client.set("late", "v")
    found = report(client)
    assert (found["tracking-active"], found["collection-duration-ms"]) == (0, 5000)
    assert found["by-net-bytes"][::2] == [b"k"]
    assert client.execute_command("HOTKEYS", "STOP") is None
    assert client.execute_command("HOTKEYS", "START", "METRICS", 1, "CPU") == b"OK"


def test_redis_py_takes_the_answer_apart(server: kvserver.Server) -> None:
    with redis.Redis(port=server.port, protocol=2) as client:
        client.execute_command("HOTKEYS START METRICS 1 NET")
        client.set("k", "v")
        assert client.hotkeys_get()[0][b"by-net-bytes"][0] == b"k"
        client.hotkeys_stop()


def test_a_command_that_fails_has_no_keys(client: redis.Redis) -> None:
    client.execute_command("HOTKEYS", "START", "METRICS", 1, "NET")
    with pytest.raises(redis.ResponseError):
        client.execute_command("MSETEX", "x", "k", "v")
    assert report(client)["by-net-bytes"] == []
    assert report(client)["total-net-bytes"] > 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("COUNT 1 CPU", "begins with METRICS"),
        ("METRICS 0", "takes 1 or 2"),
        ("METRICS x CPU", "takes 1 or 2"),
        ("METRICS 2 CPU", "takes 1 or 2"),
        ("METRICS 2 CPU CPU", "takes 1 or 2"),
        ("METRICS 1 DISK", "takes 1 or 2"),
        ("METRICS 1 CPU NET", "syntax error"),
        ("METRICS 1 CPU COUNT", "syntax error"),
        ("METRICS 1 CPU COUNT 1 COUNT 2", "syntax error"),
        ("METRICS 1 CPU COUNT 0", "from 1 to 64"),
        ("METRICS 1 CPU COUNT 65", "from 1 to 64"),
        ("METRICS 1 CPU DURATION -1", "from 1 to"),
        ("METRICS 1 CPU SAMPLE 0", "from 1 to"),
        ("METRICS 1 CPU SLOTS 1 0", "not in cluster mode"),
    ],
)
def test_wrong_words(client: redis.Redis, words: str, error: str) -> None:
    with pytest.raises(redis.ResponseError, match=error):
        client.execute_command("HOTKEYS", "START", *words.split())
    assert client.execute_command("HOTKEYS", "GET") is None


def test_the_heavy_ones_are_found_in_bounded_memory() -> None:
    draw = random.Random(7)
    exact: Counter[bytes] = Counter()
    top = TopKeys(10)
    for _ in range(50_000):
        key = b"%d" % int(draw.paretovariate(0.8))
        exact[key] += 3
        top.add(key, 3)
    assert len(top._sums) == 160
    found = dict(top.largest())
    assert {key for key, _ in exact.most_common(8)} <= set(found)
    error = min(top._sums.values())
    assert all(exact[key] <= amount <= exact[key] + error for key, amount in found.items())


def test_a_sample(client: redis.Redis) -> None:
    client.execute_command("HOTKEYS", "START", "METRICS", 1, "NET", "SAMPLE", 10)
    with client.pipeline(transaction=False) as pipe:
        for _ in range(2000):
            pipe.set("k", "v")
        pipe.execute()
    found = report(client)
    assert found["sample-ratio"] == 10
    assert found["total-net-bytes"] // 20 < found["by-net-bytes"][1] < found["total-net-bytes"] // 5
