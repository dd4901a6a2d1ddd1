"""The two halves of the protocol, written apart: what one encodes, the other decodes, in both versions."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient import protocol as client
from kvclient.errors import ServerError
from kvserver.protocol.decoder import Decoder
from kvserver.protocol.encoder import encoding, format_double
from kvserver.protocol.replies import Error, Push, Reply, Set, SimpleString, Verbatim

places = st.lists(st.integers(0, 10**6), max_size=8)


def cut(data: bytes, edges: list[int]) -> list[bytes]:
    ends = [0, *sorted(edge % (len(data) + 1) for edge in edges), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


# ---- requests --------------------------------------------------------------------------------------------------

words = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"", b"\r\n", b"$1\r\n", b"x" * 1023, b"x" * 1024, b"x" * 4096, b"x" * 4097]),
    st.text(st.characters(codec="utf-8"), max_size=10),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
)
requests = st.lists(words, min_size=1, max_size=6) | st.lists(words, min_size=62, max_size=66)


def as_bytes(word: client.Value) -> bytes:
    if isinstance(word, str):
        return word.encode()
    return word if isinstance(word, bytes) else repr(word).encode()


@given(st.lists(requests, min_size=1, max_size=5), places)
def test_the_server_reads_what_the_client_sends(sent: list[list[client.Value]], edges: list[int]) -> None:
    data = b"".join(map(client.encode_command, sent))
    expected = [[as_bytes(word) for word in command] for command in sent]
    whole, pieces = Decoder(), Decoder()
    assert list(whole.feed(data)) == expected
    assert [command for chunk in cut(data, edges) for command in pieces.feed(chunk)] == expected
    assert not whole.pending
    assert not pieces.pending


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 1000])
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 4096, 4097])
def test_counts_and_lengths_at_the_ends_of_their_tables(count: int, size: int) -> None:
    command = [b"k" * size] * count
    assert list(Decoder().feed(client.encode_command(command))) == [command]


# ---- replies ---------------------------------------------------------------------------------------------------

line = st.binary(max_size=12).map(lambda raw: raw.translate(None, b"\r\n"))
errors = st.tuples(st.sampled_from(["ERR", "WRONGTYPE", "NOPROTO"]), st.text("ab '\r\n\xe9", max_size=12)).map(
    lambda parts: Error(" ".join(parts))
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=30) | st.sampled_from([b"x" * 1023, b"x" * 1024]),
    line.map(SimpleString) | st.sampled_from([SimpleString(text) for text in (b"OK", b"PONG", b"string", b"none")]),
    st.binary(max_size=30).map(Verbatim),
    errors,
)
replies: st.SearchStrategy[Reply] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(st.binary(max_size=5), max_size=4, unique=True).map(Set),
        st.dictionaries(st.binary(max_size=5), inner, max_size=3),
    ),
    max_leaves=12,
)


def expected(reply: Reply, version: int) -> object:
    """What the client should make of it: as :func:`seen` shows it."""
    resp3 = version == 3
    match reply:
        case Error():
            code, _, message = reply.text.rstrip("\r\n").translate({13: " ", 10: " "}).partition(" ")
            return ("error", code, message)
        case float():
            return ("float", repr(reply)) if resp3 else ("bytes", format_double(reply))
        case bool():
            return ("bool", reply) if resp3 else ("int", int(reply))
        case SimpleString():
            return ("SimpleString", bytes(reply))
        case Verbatim():
            return ("Verbatim", bytes(reply)) if resp3 else ("bytes", bytes(reply))
        case Set() if resp3:
            return {("bytes", item) for item in reply}
        case dict() if resp3:
            return [("pair", key, expected(value, version)) for key, value in reply.items()]
        case dict():
            return [expected(item, version) for pair in reply.items() for item in pair]
        case list():
            return [expected(item, version) for item in reply]
    return (type(reply).__name__, reply)


def seen(value: client.Reply) -> object:
    """A reply in a form that tells types apart and lets NaN equal itself."""
    match value:
        case ServerError():
            return ("error", value.code, value.message)
        case float():
            return ("float", "nan" if math.isnan(value) else repr(value))
        case set():
            return {seen(item) for item in value}
        case dict():
            return [("pair", key, seen(item)) for key, item in value.items()]
        case list():
            return [seen(item) for item in value]
        case bytes():
            return (type(value).__name__, bytes(value))
    return (type(value).__name__, value)


@pytest.mark.parametrize("version", [2, 3])
@given(st.lists(replies, min_size=1, max_size=4), places)
def test_the_client_reads_what_the_server_answers(version: int, sent: list[Reply], edges: list[int]) -> None:
    encode = encoding(version)
    data = b"".join(encode[reply.__class__](reply) for reply in sent)
    for chunks in ([data], cut(data, edges), cut(data, list(range(len(data))))):
        decoder = client.Decoder()
        for chunk in chunks:
            decoder.feed(chunk)
        assert [seen(reply) for reply in decoder.replies] == [expected(reply, version) for reply in sent]
        decoder.replies.clear()
        assert decoder.idle


@given(st.lists(st.binary(max_size=10) | st.integers(0, 9), min_size=1, max_size=4), replies)
def test_a_push_goes_its_own_way_in_resp3(items: list[bytes | int], reply: Reply) -> None:
    pushed: list[client.Push] = []
    decoder = client.Decoder(on_push=pushed.append)
    encode = encoding(3)
    decoder.feed(encode[Push](Push(items)) + encode[reply.__class__](reply) + encode[Push](Push(items)))
    assert pushed == [items, items]
    assert [seen(answer) for answer in decoder.replies] == [expected(reply, 3)]
    decoder = client.Decoder()
    decoder.feed(encoding(2)[Push](Push(items)))
    assert decoder.replies == [items]


@given(scalars)
def test_the_short_way_of_the_client_reads_the_same(reply: Reply) -> None:
    for version in (2, 3):
        single = client.decode_single(encoding(version)[reply.__class__](reply))
        assert single is client.INCOMPLETE or seen(single) == expected(reply, version)
