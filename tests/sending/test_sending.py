"""Replies leave whole and in order, however large, however slow the client; large ones are not copied. And how much is
received at a time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvserver.sockets import LARGE, RECV_IDLE, RECV_MAX, RECV_MIN, gather, next_size, send_parts, set_timeout

sizes = st.sampled_from([0, 1, 5, 100, LARGE - 1, LARGE, LARGE + 1, 100_000])


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def read(sock: socket.socket, into: list[bytes]) -> threading.Thread:
    """Take everything that comes, in a thread."""

    def run() -> None:
        while data := sock.recv(10_000):
            into.append(data)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@given(st.lists(sizes, max_size=12))
def test_the_same_bytes_in_fewer_parts(lengths: list[int]) -> None:
    replies = [bytes([65 + place]) * length for place, length in enumerate(lengths)]
    parts = gather(replies)
    assert b"".join(parts) == b"".join(replies)
    assert all(parts)
    assert len(parts) <= 2 * sum(length >= LARGE for length in lengths) + 1
    large = {id(reply) for reply in replies if len(reply) >= LARGE}
    assert large <= {id(part) for part in parts}, "not copied"


@pytest.mark.parametrize("plain", [False, True], ids=["gathered", "where the system cannot"])
def test_more_than_fits_at_once(pair: tuple[socket.socket, socket.socket], plain: bool) -> None:
    one, other = pair
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    parts = [bytes([number % 256]) * (number * 37 % 5000 + 1) for number in range(1500)]
    got: list[bytes] = []
    reader = read(other, got)

    class Plain:
        sendall = one.sendall

    send_parts(Plain() if plain else one, parts)  # type: ignore[arg-type]
    one.shutdown(socket.SHUT_WR)
    reader.join()
    assert b"".join(got) == b"".join(parts)


def test_a_client_too_slow_ends_it(pair: tuple[socket.socket, socket.socket]) -> None:
    """With the socket's own time limit, as the server sets it."""
    one, _ = pair
    set_timeout(one, socket.SO_SNDTIMEO, 0.02)
    with pytest.raises(BlockingIOError):
        send_parts(one, [bytes(8_000_000)])


def test_who_has_left_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    other.close()
    with pytest.raises(BrokenPipeError):
        send_parts(one, [b"a" * LARGE, b"b"])


def reads(*received: int) -> list[int]:
    """How much is asked for after each read, of which so much would come if it were asked for."""
    size, before, asked = RECV_MIN, 0, []
    for available in received:
        left = available
        while True:
            got = min(size, left)
            size_then, (size, before) = size, next_size(size, got, before)
            left -= got
            if got < size_then:
                break
        asked.append(size)
    return asked


@given(st.lists(st.integers(0, 300_000), max_size=30))
def test_who_waits_holds_a_small_buffer(received: list[int]) -> None:
    """Whatever has come: a connection that waits for a command does so with 16 KiB at most, a quiet one with less."""
    assert all(RECV_MIN <= size <= RECV_IDLE for size in reads(*received))
    assert reads(*received, 100, 100, 100)[-1] == RECV_MIN


def test_a_pipeline_is_read_at_once() -> None:
    assert reads(7_000, 7_000) == [8192, 8192], "the second is one read"
    assert reads(10_000, 10_000, 10_000) == [8192, 16384, 16384]
    assert reads(*[200_000] * 3) == [RECV_IDLE] * 3
    assert next_size(RECV_MAX, RECV_MAX, 0)[0] == RECV_MAX
