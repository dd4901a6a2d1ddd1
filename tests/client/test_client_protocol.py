"""The sans-I/O half: properties of the decoder and the encoder."""

from __future__ import annotations

import itertools
import math
import re
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient.errors import ProtocolError, ServerError, WrongTypeError
from kvclient.protocol import (
    INCOMPLETE,
    Decoder,
    Push,
    SimpleString,
    Verbatim,
    decode_single,
    encode_command,
)

# ---- an encoder of replies, written from the grammar, and strategies for what it takes ----------------------

Tree = tuple[str, object]


def encode_reply(tree: Tree) -> bytes:
    kind, value = tree
    if kind in "+-:(,#_":
        return f"{kind}".encode() + value + b"\r\n"  # type: ignore[operator]
    if kind in "$!=":
        return b"%c%d\r\n%b\r\n" % (kind.encode(), len(value), value)  # type: ignore[arg-type]
    if kind == "null":
        return value  # type: ignore[return-value]
    items: list[Tree] = value  # type: ignore[assignment]
    count = len(items) // 2 if kind == "%" else len(items)
    return b"%c%d\r\n" % (kind.encode(), count) + b"".join(map(encode_reply, items))


def normal(value: object) -> object:
    """What can be compared: errors by their text, NaN by its name, and types told apart."""
    if isinstance(value, ServerError):
        return ("error", value.code, value.message)
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, list):
        return [type(value).__name__, *map(normal, value)]
    if isinstance(value, dict):
        return ("dict", [(repr(normal(k)), normal(v)) for k, v in value.items()])
    if isinstance(value, set | frozenset):
        return ("set", sorted(repr(normal(item)) for item in value))
    if isinstance(value, tuple):
        return ("tuple", [normal(item) for item in value])
    return (type(value).__name__, value)


line = st.binary(max_size=12).filter(lambda b: b"\r" not in b and b"\n" not in b)
scalars: st.SearchStrategy[Tree] = st.one_of(
    st.tuples(st.just("+"), line),
    st.tuples(st.just("-"), line.map(lambda b: b"ERR " + b)),
    st.tuples(st.just(":"), st.integers(-(2**63), 2**63 - 1).map(lambda n: b"%d" % n)),
    st.tuples(st.just("("), st.integers().map(lambda n: b"%d" % n)),
    st.tuples(st.just(","), st.floats().map(lambda x: repr(x).encode())),
    st.tuples(st.just("#"), st.sampled_from([b"t", b"f"])),
    st.tuples(st.just("_"), st.just(b"")),
    st.tuples(st.just("$"), st.binary(max_size=40)),
    st.tuples(st.just("!"), st.binary(max_size=20)),
    st.tuples(st.just("="), st.binary(max_size=20).map(lambda b: b"txt:" + b)),
    st.tuples(st.just("null"), st.sampled_from([b"$-1\r\n", b"*-1\r\n"])),
)
trees: st.SearchStrategy[Tree] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("*~"), st.lists(inner, max_size=4)),
        st.tuples(
            st.just("%"),
            st.lists(st.tuples(inner, inner), max_size=3).map(lambda pairs: [x for p in pairs for x in p]),
        ),
    ),
    max_leaves=12,
)


def decode(chunks: list[bytes]) -> tuple[list[object], bool]:
    """The replies, normalised, and whether the decoder died."""
    decoder = Decoder()
    try:
        for chunk in chunks:
            decoder.feed(chunk)
    except ProtocolError:
        assert decoder.error is not None
        with pytest.raises(ProtocolError):
            decoder.feed(b"+OK\r\n")
    return [normal(reply) for reply in decoder.replies], decoder.error is not None


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(trees, min_size=1, max_size=4), st.lists(st.integers(0, 10**6), max_size=8))
def test_any_cut_of_the_bytes_gives_the_same_replies(replies: list[Tree], places: list[int]) -> None:
    data = b"".join(map(encode_reply, replies))
    whole, dead = decode([data])
    assert len(whole) == len(replies)
    assert not dead
    assert decode([bytes((b,)) for b in data]) == (whole, dead)
    assert decode(cuts(data, places)) == (whole, dead)


@given(trees)
def test_trailing_bytes_wait_for_more(tree: Tree) -> None:
    data = encode_reply(tree)
    for extra in (b"$3\r\nab", b"*2\r\n:1\r\n", b"+x", b":"):
        decoder = Decoder()
        decoder.feed(data + extra)
        assert len(decoder.replies) == 1
        assert not decoder.idle
    decoder = Decoder()
    decoder.feed(data[:-1])
    assert decoder.replies == []
    decoder.feed(data[-1:])
    decoder.replies.clear()
    assert decoder.idle


@given(st.binary(max_size=60) | st.text("*$%~>|+-:,#_(=!0123456789\r\nab", max_size=60).map(str.encode))
def test_any_bytes_give_replies_or_one_protocol_error(data: bytes) -> None:
    assert decode([data]) == decode([bytes((b,)) for b in data])


@given(scalars)
def test_the_short_way_agrees_with_the_decoder(tree: Tree) -> None:
    data = encode_reply(tree)
    single = decode_single(data)
    if single is not INCOMPLETE:
        assert [normal(single)] == decode([data])[0]
    for other in (data[:-1], data + data, data + b"x", data[:-1] + b"x"):
        assert decode_single(other) is INCOMPLETE


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+OK\r\n", SimpleString(b"OK")),
        (b":-12\r\n", -12),
        (b"$0\r\n\r\n", b""),
        (b"=7\r\nmkd:abc\r\n", Verbatim(b"abc", "mkd")),
        (b"*3\r\n:1\r\n*0\r\n_\r\n", [1, [], None]),
        (b"%1\r\n*1\r\n+a\r\n#t\r\n", {(b"a",): True}),
        (b"~2\r\n$1\r\na\r\n$1\r\na\r\n", {b"a"}),
        (b"|1\r\n+ttl\r\n:5\r\n$1\r\nv\r\n", b"v"),
        (b"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n", [1, 2]),
        (b"(3492890328409238509324850943850943825024385\r\n", 3492890328409238509324850943850943825024385),
        (b",-1.5e3\r\n", -1500.0),
        (b",inf\r\n", math.inf),
    ],
)
def test_values(data: bytes, reply: object) -> None:
    decoder = Decoder()
    decoder.feed(data)
    assert decoder.replies == [reply]
    assert type(decoder.replies[0]) is type(reply)


def test_an_error_is_an_object_of_its_class() -> None:
    decoder = Decoder()
    decoder.feed(b"*1\r\n-WRONGTYPE no\r\n!7\r\nERR a\nb\r\n")
    (nested,), bulk = decoder.replies  # type: ignore[misc]
    assert isinstance(nested, WrongTypeError)
    assert isinstance(bulk, ServerError)
    assert (bulk.code, bulk.message) == ("ERR", "a\nb")


def test_pushes_are_told_apart_from_replies() -> None:
    pushed: list[Push] = []
    decoder = Decoder(on_push=pushed.append)
    decoder.feed(b">2\r\n+message\r\n:1\r\n+OK\r\n>1\r\n+x\r\n")
    assert decoder.replies == [b"OK"]
    assert pushed == [[b"message", 1], [b"x"]]


@pytest.mark.parametrize(
    "data",
    [
        *(b":%b\r\n" % n for n in (b"", b"+1", b" 1", b"1 ", b"1_0", b"01", b"-0", b"-", b"\xd9\xa1", b"1.0")),
        b":9999999999999999999\r\n",
        *(b"$%b\r\n" % n for n in (b"", b"-2", b"+1", b"01", b"1_0", b"x", b"9" * 30, b"536870913")),
        *(b"*%b\r\n" % n for n in (b"", b"-2", b"+1", b"00", b"2147483648")),
        *(b",%b\r\n" % n for n in (b"", b"1_0", b" 1", b"infinity", b"e5", b"0x1")),
        *(b"%%%b\r\n" % n for n in (b"-1", b"x")),
        b"(1_0\r\n", b"(" + b"1" * 5000 + b"\r\n", b"#x\r\n", b"_x\r\n", b"=3\r\nabc\r\n", b"\n", b"\r\n", b"+a\nb\r\n",
        b"$1\r\nabc\r\n", b"$1\r\na\rb", b"HTTP/1.1 400 Bad Request\r\n", b"*1\r\n>1\r\n", b"+" + b"a" * 70_000,
        b"+" + b"a" * 70_000 + b"\r\n", b"*1\r\n" * 1000, b"|0\r\n" * 1000, b"\0" * 10,
    ],
)  # fmt: skip
def test_what_is_not_resp_is_one_error_and_the_end(data: bytes) -> None:
    decoder = Decoder()
    if data == b"\0" * 10:
        data += b"\r\n"
    with pytest.raises(ProtocolError):
        decoder.feed(data)
    with pytest.raises(ProtocolError):
        decoder.feed(b"+OK\r\n")


@pytest.mark.parametrize("header", [b"$536870912\r\n", b"*2147483647\r\n", b"%2147483647\r\n", b"*1000000\r\n" * 100])
def test_memory_follows_the_bytes_received_not_the_header(header: bytes) -> None:
    decoder = Decoder()
    tracemalloc.start()
    decoder.feed(header)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000


def test_a_reply_is_bounded() -> None:
    decoder = Decoder(max_reply=1000)
    decoder.feed(b"*100000\r\n")
    for _ in range(247):
        decoder.feed(b":1\r\n")
    with pytest.raises(ProtocolError, match="longer"):
        decoder.feed(b":1\r\n")


@pytest.mark.parametrize(
    ("make", "chunk"),
    [
        (lambda n: b"$%d\r\n%b\r\n" % (n, b"x" * n), 100),
        (lambda n: b"*%d\r\n" % (n // 4) + b":1\r\n" * (n // 4), 7),
        (lambda n: (b"$30\r\n" + b"y" * 30 + b"\r\n") * (n // 37), 11),
        (lambda n: b"*%d\r\n" % (n // 37) + (b"$30\r\n" + b"y" * 30 + b"\r\n") * (n // 37), 1000),
    ],
)
@pytest.mark.untraced
def test_time_is_linear_however_the_bytes_are_cut(make: Callable[[int], bytes], chunk: int) -> None:
    def seconds(size: int) -> float:
        data = make(size)
        best = math.inf
        for _ in range(3):
            decoder, start = Decoder(), time.process_time()
            for pos in range(0, len(data), chunk):
                decoder.feed(data[pos : pos + chunk])
            best = min(best, time.process_time() - start)
            assert decoder.replies
        return best

    assert seconds(200_000) < 8 * 4 * seconds(25_000)  # quadratic time would be 64 times as much


# ---- the encoder -------------------------------------------------------------------------------------------


def parse_command(data: bytes) -> list[bytes]:
    """The arguments of a command, read by the grammar."""
    found = re.match(rb"\*(\d+)\r\n", data)
    assert found
    args, pos = [], found.end()
    for _ in range(int(found[1])):
        head = re.compile(rb"\$(\d+)\r\n").match(data, pos)
        assert head
        end = head.end() + int(head[1])
        args.append(data[head.end() : end])
        assert data[end : end + 2] == b"\r\n"
        pos = end + 2
    assert pos == len(data)
    return args


plain = st.binary(max_size=1100) | st.text() | st.integers() | st.floats(allow_nan=False)


@given(st.lists(plain, min_size=1, max_size=70))
def test_a_command_is_an_array_of_its_arguments(args: list[bytes | str | int | float]) -> None:
    for arg, sent in zip(args, parse_command(encode_command(args)), strict=True):
        if isinstance(arg, float):
            assert float(sent) == arg
        else:
            assert sent == (arg if isinstance(arg, bytes) else str(arg).encode())


def test_other_buffers_are_sent_as_their_bytes() -> None:
    args = (bytearray(b"ab"), memoryview(b"cd"), SimpleString(b"ef"))
    assert parse_command(encode_command(args)) == [b"ab", b"cd", b"ef"]


@pytest.mark.parametrize("value", [True, False, None, [], {}, object()])
def test_what_has_no_bytes_is_refused_with_advice(value: object) -> None:
    with pytest.raises(TypeError, match=r"write int|encode it"):
        encode_command((b"SET", b"k", value))  # type: ignore[arg-type]
