"""The server's decoder: any bytes, cut anywhere, give the same commands, the same error, in linear time and memory."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvserver.config import OPTIONS
from kvserver.protocol import decoder as module
from kvserver.protocol import inner, pure
from kvserver.protocol.decoder import CommandTooLongError, Decoder, Limits, ProtocolError

Command = list[bytes]
SMALL = Limits(line=24, arguments=5, bulk=12, command=20)
"""Limits that a few random bytes reach, below what settings allow."""


def encode(words: Command) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@dataclass(frozen=True)
class Outcome:
    """All that a decoder tells about some bytes."""

    commands: list[Command]
    error: str | None
    pending: bool
    held: int


def decode(chunks: list[bytes], limits: Limits | None = None) -> Outcome:
    decoder = Decoder(limits)
    commands: list[Command] = []
    try:
        for chunk in chunks:
            commands.extend(decoder.feed(chunk))
    except ProtocolError as error:
        for more in (b"", b"PING\r\n", encode([b"PING"])):
            with pytest.raises(ProtocolError, match=f"^{re.escape(str(error))}$"):
                list(decoder.feed(more))
        return Outcome(commands, str(error), pending=False, held=0)
    assert (decoder.held > 0) <= decoder.pending
    return Outcome(commands, None, decoder.pending, decoder.held)


def bytewise(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@contextlib.contextmanager
def careful() -> Iterator[None]:
    """Nothing takes the fast path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inner, "split_commands", lambda data: ([], 0))
        yield


places = st.lists(st.integers(0, 10**6), max_size=8)
words = st.binary(max_size=12) | st.sampled_from([b"", b"\r\n", b"$1\r\na\r\n", b"*1\r\n", b"\0", b"GET", b"k" * 4097])
commands = st.lists(words, min_size=1, max_size=5) | st.lists(words, min_size=60, max_size=70)
unquoted = st.binary(min_size=1, max_size=6).map(lambda raw: re.sub(rb"[\0\t\n\v\f\r \"'*]", b"x", raw))
inline = st.lists(unquoted, min_size=1, max_size=4)
ignored = st.sampled_from([b"\r\n", b"\n", b" \t\r\n", b"*0\r\n", b"*-1\r\n", b"*-10\r\n", b"\0\n"])
requests = st.one_of(
    commands.map(lambda sent: (encode(sent), [sent])),
    inline.map(lambda sent: (b" ".join(sent) + b"\r\n", [sent])),
    inline.map(lambda sent: (b"\t ".join(sent) + b"\n", [sent])),
    ignored.map(lambda sent: (sent, [])),
)
streams = st.lists(requests, max_size=6).map(
    lambda parts: (b"".join(data for data, _ in parts), [command for _, sent in parts for command in sent])
)
ALPHABET = "*$-+0123456789\r\n\0\"' \\xaG"
noise = st.binary(max_size=60) | st.text(ALPHABET, max_size=60).map(lambda text: text.encode("ascii"))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Valid bytes, of which a few are changed, lost, doubled or added."""
    data = bytearray(draw(streams)[0])
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        piece = draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"*", b"$", b"-", b"0", b"9", b"\0", b"\xff", b" "]))
        data[place : place + draw(st.integers(0, 2))] = piece
    return bytes(data)


@given(streams, places)
def test_commands_come_back_whole_however_they_are_cut(stream: tuple[bytes, list[Command]], edges: list[int]) -> None:
    data, sent = stream
    expected = Outcome(sent, None, pending=False, held=0)
    assert decode([data]) == expected
    assert decode(cut(data, edges)) == expected
    assert decode(bytewise(data)) == expected


@given(streams, st.integers(0, 10**6))
def test_a_piece_of_a_command_waits_for_the_rest(stream: tuple[bytes, list[Command]], place: int) -> None:
    data, sent = stream
    first, second = cut(data, [place])
    decoder = Decoder()
    got = list(decoder.feed(first))
    assert got == sent[: len(got)]
    assert decoder.held <= len(first)
    got += decoder.feed(second)
    assert got == sent
    assert not decoder.pending


@given(noise | mutated(), places)
@example(b"*1\r\n$4\r\nPING\rX", [])
@example(b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n", [20])
@example(b"*1\r\r", [])
def test_any_bytes_are_commands_or_wait_or_are_one_error(data: bytes, edges: list[int]) -> None:
    whole = decode([data])
    assert all(whole.commands), "a command is never empty"
    assert decode(bytewise(data)) == whole
    assert decode(cut(data, edges)) == whole


@given(noise | mutated(), places)
def test_so_they_are_when_the_limits_are_reached(data: bytes, edges: list[int]) -> None:
    with careful():
        whole = decode([data], SMALL)
        assert decode(bytewise(data), SMALL) == whole
        assert decode(cut(data, edges), SMALL) == whole
    for command in whole.commands:
        assert len(command) <= SMALL.line
        assert sum(map(len, command)) <= max(SMALL.command, SMALL.line)


@given(noise | mutated() | streams.map(lambda stream: stream[0]), places)
def test_the_fast_path_and_the_careful_one_agree(data: bytes, edges: list[int]) -> None:
    expected = decode(cut(data, edges))
    with careful():
        assert decode([data]) == expected
        assert decode(cut(data, edges)) == expected


def test_no_limit_can_be_set_to_less_than_the_fast_path_takes() -> None:
    """It does not look at the limits."""
    words, length = pure.SHORT_COUNT, pure.SHORT_LENGTH
    least = {option.name: option.kind.bounds[0] for option in OPTIONS if option.kind.bounds}
    assert length <= least["max_bulk_length"]
    assert words * length <= least["max_command_length"]
    assert words <= Limits().arguments


# ---- vectors ---------------------------------------------------------------------------------------------------

VALID = {
    "one word": (b"*1\r\n$4\r\nPING\r\n", [[b"PING"]]),
    "two words": (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", [[b"GET", b"k"]]),
    "three words": (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n", [[b"SET", b"k", b"v"]]),
    "an empty word": (b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", [[b"ECHO", b""]]),
    "an empty name": (b"*1\r\n$0\r\n\r\n", [[b""]]),
    "line ends in a word": (b"*2\r\n$4\r\nECHO\r\n$8\r\na\r\n$1\r\nb\r\n", [[b"ECHO", b"a\r\n$1\r\nb"]]),
    "a word of a line end": (b"*1\r\n$2\r\n\r\n\r\n", [[b"\r\n"]]),
    "a word that ends in CR": (b"*1\r\n$2\r\na\r\r\n", [[b"a\r"]]),
    "a word that begins with LF": (b"*1\r\n$2\r\n\na\r\n", [[b"\na"]]),
    "a request in a word": (b"*1\r\n$14\r\n*1\r\n$4\r\nPING\r\n\r\n", [[b"*1\r\n$4\r\nPING\r\n"]]),
    "more words than short counts": (encode([b"x"] * 65), [[b"x"] * 65]),
    "a word beyond short lengths": (encode([b"x" * 4097]), [[b"x" * 4097]]),
    "nothing but line ends": (b"\r\n\n\r\n", []),
    "empty arrays": (b"*0\r\n*-1\r\n*-9223372036854775807\r\n", []),
    "inline": (b"PING\r\n", [[b"PING"]]),
    "inline with LF": (b"GET  k\t\n", [[b"GET", b"k"]]),
    "inline with quotes": (b'set "a b" \'c d\' "\\x41\\n\\"" ""\r\n', [[b"set", b"a b", b"c d", b'A\n"', b""]]),
    "inline with a type byte": (b"+PING\r\n:1\r\n$4\r\n", [[b"+PING"], [b":1"], [b"$4"]]),
    "a star inside an inline word": (b" *1\r\n", [[b"*1"]]),
    "both forms": (b"PING\r\n*1\r\n$4\r\nPING\r\nGET k\n", [[b"PING"], [b"PING"], [b"GET", b"k"]]),
}

BROKEN = {
    **{f"count {digits!r}": (b"*%b\r\n" % digits, "invalid multibulk length") for digits in (
        b"", b"x", b"+1", b" 1", b"1 ", b"01", b"1_0", b"-", b"-0", b"1\0", b"2147483648", b"1048577", b"9" * 20,
        b"\xd9\xa1", b"1\n", b"1.0", b"0x1",
    )},
    **{f"length {digits!r}": (b"*1\r\n$%b\r\n" % digits, "invalid bulk length") for digits in (
        b"", b"x", b"+1", b" 1", b"01", b"1_0", b"-0", b"-1", b"-5", b"536870913", b"9223372036854775807", b"9" * 20,
        b"\xd9\xa1", b"\0",
    )},
    **{f"{kind!r} for a word": (b"*1\r\n%b4\r\n" % kind, f"expected '$', got '{kind.decode()}'") for kind in (
        b"*", b"+", b":", b"_", b"x", b"\0", b"\n",
    )},
    "nothing for a word": (b"*1\r\n\r\n", "expected '$', got '\r'"),
    "a byte that is no text for a word": (b"*1\r\n\xff\r\n", "expected '$', got '\udcff'"),
    "a word longer than told": (b"*1\r\n$1\r\nabc", "invalid CRLF in request"),
    "a word shorter than told": (b"*1\r\n$3\r\na\r\n$1", "invalid CRLF in request"),
    "a word that ends in LF LF": (b"*1\r\n$1\r\na\n\n", "invalid CRLF in request"),
    "a word that ends in CR CR": (b"*1\r\n$1\r\na\r\r", "invalid CRLF in request"),
    "a count that ends in CR": (b"*1\r$", "invalid CRLF in request"),
    "a length that ends in CR": (b"*1\r\n$1\ra", "invalid CRLF in request"),
    "an open quote": (b'GET "k\r\n', "unbalanced quotes in request"),
    "an open single quote": (b"GET 'k\r\n", "unbalanced quotes in request"),
    "a touched quote": (b'GET "k"x\r\n', "unbalanced quotes in request"),
}  # fmt: skip

PREFIX = encode([b"SET", b"k", b"a\r\nb"])
TAILS = [b"*", b"*2\r\n$3\r\nGET\r\n", b"*1\r\n$5\r\nab", b"P", b"\0", b'"']


@pytest.mark.parametrize("name", VALID)
def test_a_valid_vector(name: str) -> None:
    data, expected = VALID[name]
    done = Outcome(expected, None, pending=False, held=0)
    assert decode([data]) == done
    assert decode(bytewise(data)) == done
    assert decode([PREFIX + data]).commands == [[b"SET", b"k", b"a\r\nb"], *expected]
    for tail in TAILS:
        for chunks in ([data + tail], bytewise(data + tail), [data, tail]):
            behind = decode(chunks)
            assert (behind.commands, behind.error, behind.pending) == (expected, None, True)
    for end in range(len(data)):
        begun = decode([data[:end]])
        assert begun.error is None
        assert begun.commands == expected[: len(begun.commands)]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_vector(name: str) -> None:
    data, fault = BROKEN[name]
    for tail in (b"", *TAILS, encode([b"PING"])):
        for chunks in ([data + tail], bytewise(data + tail), [PREFIX + data + tail], bytewise(PREFIX + data + tail)):
            outcome = decode(chunks)
            assert outcome.error == fault
            assert outcome.commands == ([] if b"".join(chunks).startswith(data) else [[b"SET", b"k", b"a\r\nb"]])
    waiting = decode([data[:-1]])
    assert waiting.error is None, "the fault is only in the last byte"
    assert waiting.commands == []


# ---- limits, at their borders ----------------------------------------------------------------------------------

LINE = Limits().line


@pytest.mark.parametrize("in_bytes", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize(
    ("start", "end", "fault"),
    [
        (b"", b"\n", "too big inline request"),
        (b"*", b"\r\n", "too big mbulk count string"),
        (b"$", b"\r\n", "too big bulk count string"),
    ],
)
def test_a_line_may_have_65536_bytes(start: bytes, end: bytes, fault: str, in_bytes: bool) -> None:
    array = b"*1\r\n" if start == b"$" else b""

    def feed(size: int, ending: bytes) -> Outcome:
        data = array + start.ljust(size, b"1") + ending
        if not in_bytes:
            return decode([data])
        return decode([data[:-70], *bytewise(data[-70:])])

    assert feed(LINE, b"").error is None
    assert feed(LINE, end).error != fault
    assert feed(LINE + 1, b"").error == fault
    assert feed(LINE + 1, end).error == fault


def test_a_command_may_have_1048576_words() -> None:
    assert Limits().arguments == 1_048_576
    assert decode([b"*1048576\r\n"]) == Outcome([], None, pending=True, held=0)
    assert decode([b"*1048577\r\n"]).error == "invalid multibulk length"
    # Another process has no coverage to pay for at each of the words.
    program = (
        "from kvserver.protocol.decoder import Decoder\n"
        "words = list(Decoder().feed(b'*1048576\\r\\n' + b'$0\\r\\n\\r\\n' * 1048576))\n"
        "assert words == [[b''] * 1048576]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_word_may_have_512_mib() -> None:
    assert decode([b"*1\r\n$536870912\r\n"]).error is None
    assert decode([b"*1\r\n$536870913\r\n"]).error == "invalid bulk length"


@pytest.mark.parametrize("size", [100, 5000])
def test_the_limit_of_a_word_can_be_set(size: int) -> None:
    limits = Limits(bulk=size)
    assert decode([encode([b"SET", b"x" * size])], limits).commands == [[b"SET", b"x" * size]]
    assert decode([b"*2\r\n$3\r\nSET\r\n$%d\r\n" % (size + 1)], limits).error == "invalid bulk length"


def test_the_words_of_a_command_have_a_limit_together() -> None:
    limits = Limits(bulk=6000, command=10_000)
    fits = [b"x" * 5000, b"", b"y" * 5000]
    assert decode([encode(fits), encode(fits)], limits).commands == [fits, fits]
    decoder = Decoder(limits)
    assert list(decoder.feed(b"*3\r\n$5000\r\n" + b"x" * 5000 + b"\r\n$5000\r\n")) == []
    with pytest.raises(CommandTooLongError, match="command exceeds client-query-buffer-limit"):
        list(decoder.feed(b"y" * 5000 + b"\r\n$1\r\n"))


def test_limits_may_change_between_reads() -> None:
    size = pure.SHORT_LENGTH + 1
    decoder = Decoder(Limits(bulk=size))
    assert list(decoder.feed(encode([b"x" * size]))) == [[b"x" * size]]
    decoder.limits = Limits(bulk=size - 1)
    with pytest.raises(ProtocolError):
        list(decoder.feed(encode([b"x" * size])))


LONG = 64 * 1024
"""From here on a word is put together apart from the buffer, in these tests."""
INSIDE = [0, 1, 20, 24, 25, 26, 27, 100, LONG, LONG + 24, LONG + 25, LONG + 26, LONG + 27, LONG + 28]


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONG", LONG)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("first", INSIDE)
@pytest.mark.parametrize("second", [1, 70_000])
@pytest.mark.usefixtures("long")
def test_a_long_word_however_it_is_cut(more: int, first: int, second: int) -> None:
    long = bytes(range(256)) * (LONG // 256) + b"\r\n"
    command = [b"SET", b"k", long[: LONG + more], b"EX", long]
    data = encode(command) + encode([b"GET", b"k"])
    outcome = decode(cut(data, [first, first + second]))
    assert outcome == Outcome([command, [b"GET", b"k"]], None, pending=False, held=0)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("ending", [b"\r\r", b"\n\n", b"xx"])
def test_a_long_word_that_is_longer_than_told(ending: bytes) -> None:
    data = b"*1\r\n$%d\r\n%b" % (LONG, b"x" * LONG)
    assert decode([data + ending]).error == "invalid CRLF in request"
    assert decode([data[:100], data[100:] + ending[:1], ending[1:]]).error == "invalid CRLF in request"


@pytest.mark.usefixtures("long")
def test_of_a_long_word_is_held_what_has_come() -> None:
    decoder = Decoder()
    for data, held in [(b"*1\r\n$%d\r\n" % LONG, 0), (b"x" * 10, 10), (b"x" * (LONG - 10), LONG), (b"\r", LONG + 1)]:
        assert list(decoder.feed(data)) == []
        assert (decoder.held, decoder.pending) == (held, True)
    assert list(decoder.feed(b"\n")) == [[b"x" * LONG]]
    assert (decoder.held, decoder.pending) == (0, False)


def test_what_is_held_is_what_has_come() -> None:
    decoder = Decoder()
    for data, held in [(b"*2\r\n$3\r\nGE", 2), (b"T\r\n", 3), (b"$50", 6), (b"0\r\n", 3), (b"k" * 100, 103)]:
        assert list(decoder.feed(data)) == []
        assert (decoder.held, decoder.pending) == (held, True)
    assert list(decoder.feed(b"k" * 400 + b"\r\n")) == [[b"GET", b"k" * 500]]
    assert (decoder.held, decoder.pending) == (0, False)


# ---- memory and time -------------------------------------------------------------------------------------------

ANNOUNCED = {
    "a million words": b"*1048576\r\n",
    "a million words, the first of 512 MiB": b"*1048576\r\n$536870912\r\n",
    "512 MiB": b"*1\r\n$536870912\r\n",
    "512 MiB, and some": b"*2\r\n$3\r\nGET\r\n$536870912\r\n" + b"x" * 100,
    "a thousand millions of words": b"*1000000000\r\n",
    "more than there is": b"*1\r\n$9223372036854775807\r\n",
    "a long line": b"1" * 60_000,
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_memory_follows_what_came_not_what_was_announced(name: str) -> None:
    data = ANNOUNCED[name]
    tracemalloc.start()
    try:
        decoder = Decoder()
        with contextlib.suppress(ProtocolError):
            assert list(decoder.feed(data)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(data) + 20_000


def test_a_long_word_takes_memory_once() -> None:
    """And an eighth, by which what is being received grows."""
    size = 4 * 1024 * 1024
    piece = b"x" * 65_536
    tracemalloc.start()
    try:
        decoder = Decoder()
        assert list(decoder.feed(b"*1\r\n$%d\r\n" % size)) == []
        for _ in range(size // len(piece)):
            assert list(decoder.feed(piece)) == []
        ((word,),) = decoder.feed(b"\r\n")
        _, peak = tracemalloc.get_traced_memory()
        del word
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * size
    assert left < 100_000, "what has been handed over is not kept"


WORK = {
    "one long word": lambda size: b"*1\r\n$%d\r\n%b" % (size * 2, b"x" * size),
    "many words": lambda size: b"*1000000\r\n" + b"$1\r\nx\r\n" * (size // 7),
    "many commands": lambda size: b"*1\r\n$4\r\nPING\r\n" * (size // 14),
    "many lines": lambda size: b"PING x\n" * (size // 7),
    "one long line": lambda size: b"x" * min(size, LINE),
    "nothing": lambda size: b"\r\n" * (size // 2),
}


@pytest.mark.parametrize("name", WORK)
@pytest.mark.untraced
def test_work_is_linear_however_the_bytes_are_cut(name: str) -> None:
    """Four times the bytes take about four times the time; what is quadratic takes sixteen times.

    The times are the thread's own, so that what else the machine does hardly counts.
    """

    def spent(size: int) -> float:
        chunks = bytewise(WORK[name](size))
        decoder = Decoder()
        before = time.thread_time()
        for chunk in chunks:
            for _ in decoder.feed(chunk):
                pass
        return time.thread_time() - before

    short, long = (min(spent(size) for _ in range(4)) for size in (16_000, 64_000))
    assert long < 9 * short


QUOTED = {
    "escapes": (b'"', b"\\x41"),
    "escapes in single quotes": (b"'", b"\\'"),
    "an open quote": (b'"', b"x"),
    "quoted words": (b"", b'"" '),
    "words and a quote": (b"'' ", b"a "),
}


@pytest.mark.parametrize("name", QUOTED)
def test_quotes_take_linear_time(name: str) -> None:
    start, piece = QUOTED[name]

    def spent(size: int) -> float:
        decoder = Decoder()
        before = time.thread_time()
        with contextlib.suppress(ProtocolError):
            list(decoder.feed(start + piece * (size // len(piece)) + b"\n"))
        return time.thread_time() - before

    short, long = (min(spent(size) for _ in range(5)) for size in (16_000, 64_000))
    assert long < 9 * short
