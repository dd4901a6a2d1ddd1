"""The compiled inner steps beside those in Python: the same results, the same limits, and no memory lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import tracemalloc
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protocol.test_decoder import encode, mutated, noise, streams

from kvserver.protocol import pure

speedups = pytest.importorskip("kvserver.protocol.speedups", reason="it was not compiled", exc_type=ImportError)
PING = encode([b"PING"])


@pytest.fixture(scope="module", autouse=True)
def steps() -> None:
    """Both, here."""


def whole(module: ModuleType, data: bytes) -> tuple[list[list[bytes]], int]:
    commands, size = module.split_commands(data)
    assert isinstance(commands, list)
    return commands, size


@given(noise | mutated() | streams.map(lambda stream: stream[0]))
def test_both_find_the_same_commands(data: bytes) -> None:
    """The compiled step goes on where a word holds a line end; up to there they agree."""
    commands, size = whole(speedups, data)
    in_python, least = whole(pure, data)
    assert commands[: len(in_python)] == in_python
    assert data[:size] == b"".join(map(encode, commands)), "what was taken is what was found"
    assert data[:least] == b"".join(map(encode, in_python))
    further = commands[len(in_python) :]
    assert not further or any(b"\r\n" in word for word in further[0]), "nothing else stops the one and not the other"


@given(streams.map(lambda stream: stream[0]), st.integers(0, 10**6))
def test_half_a_command_is_left(data: bytes, place: int) -> None:
    begun = data[: place % (len(data) + 1)]
    commands, size = whole(speedups, begun)
    assert whole(speedups, begun[:size]) == (commands, size)
    assert whole(speedups, begun[size:]) == ([], 0)


@pytest.mark.parametrize("module", [pure, speedups], ids=["pure", "compiled"])
def test_the_short_form_has_limits(module: ModuleType) -> None:
    """Whatever exceeds them goes the way that looks at the settings."""
    most = [b"x" * pure.SHORT_LENGTH] + [b""] * (pure.SHORT_COUNT - 1)
    assert whole(module, encode(most) + PING) == ([most, [b"PING"]], len(encode(most) + PING))
    for beyond in ([*most, b""], [b"x" * (pure.SHORT_LENGTH + 1)]):
        assert whole(module, PING + encode(beyond) + PING) == ([[b"PING"]], len(PING))


@pytest.mark.parametrize("module", [pure, speedups], ids=["pure", "compiled"])
@pytest.mark.parametrize(
    "head", [b"*0", b"*-1", b"*01", b"*+1", b"* 1", b"*1 ", b"*1_0", b"*", b"*99999999999999999999"]
)
def test_a_count_is_spelled_in_one_way(module: ModuleType, head: bytes) -> None:
    assert whole(module, head + b"\r\n$4\r\nPING\r\n") == ([], 0)


@pytest.mark.parametrize("module", [pure, speedups], ids=["pure", "compiled"])
@pytest.mark.parametrize("size", [4095, 4096, 4097, 9999, 10_000, pure.SHORT_LENGTH])
def test_a_length_is_spelled_in_one_way(module: ModuleType, size: int) -> None:
    """Also where no header is kept for it."""
    word = b"x" * size
    assert whole(module, PING + encode([b"SET", b"k", word]) + PING)[0] == [[b"PING"], [b"SET", b"k", word], [b"PING"]]
    for head in (b"$0%d" % size, b"$+%d" % size, b"$%d" % (size + 1), b"$%d" % (size - 1), b"*%d" % size, b"%d" % size):
        data = b"*2\r\n$3\r\nGET\r\n%b\r\n%b\r\n" % (head, word)
        assert whole(module, PING + data + PING) == ([[b"PING"]], len(PING))


@given(st.binary(max_size=300), st.integers() | st.integers(-(2**63), 2**63 - 1))
def test_both_encode_the_same(value: bytes, number: int) -> None:
    assert speedups.bulk(value) == pure.bulk(value)
    assert speedups.simple(value) == pure.simple(value)
    assert speedups.integer(number) == pure.integer(number)


@pytest.mark.parametrize("number", [0, 9, 10, -1, 2**31, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64, True])
def test_both_encode_the_same_numbers(number: int) -> None:
    assert speedups.integer(number) == pure.integer(number)


@pytest.mark.parametrize("name", ["split_commands", "bulk", "simple", "integer"])
@pytest.mark.parametrize("value", [None, "text", 1.5, [], object()])
def test_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises((TypeError, AttributeError)):
        getattr(speedups, name)(value)
    with pytest.raises(TypeError):
        getattr(speedups, name)()


def test_nothing_is_kept() -> None:
    """Objects given are held no longer than the call, and those made go with their last user."""
    data = encode([b"SET", b"key:1", b"v" * 100]) * 50 + b"*1\r\n$4\r\nPI"
    value, number = bytes(bytearray(b"v" * 1000)), int("9" * 15)
    before = [sys.getrefcount(each) for each in (data, value, number)]

    def work(times: int) -> None:
        for _ in range(times):
            speedups.split_commands(data)
            speedups.bulk(value)
            speedups.simple(value)
            speedups.integer(number)
            speedups.integer(10**30)
            with contextlib.suppress(TypeError):
                speedups.bulk(None)

    work(10)
    tracemalloc.start()
    try:
        work(100)
        first, _ = tracemalloc.get_traced_memory()
        work(300)
        second, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert second - first < 2000
    assert [sys.getrefcount(each) for each in (data, value, number)] == before


def test_threads_do_not_meet() -> None:
    data = encode([b"SET", b"key:1", b"v" * 100]) * 20
    expected = whole(pure, data)
    begin, wrong = threading.Barrier(4), []

    def work() -> None:
        begin.wait()
        wrong.extend(found for _ in range(200) if (found := whole(speedups, data)) != expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(("setting", "compiled"), [("1", "False"), ("0", "True")])
def test_the_environment_can_choose_python(setting: str, compiled: str) -> None:
    """And the server does not take the variable for a setting that it does not know."""
    code = "from kvserver.config import load; load({}); from kvserver.protocol import inner; print(inner.COMPILED)"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"KVSERVER_PURE": setting}
    assert (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == compiled
    )
