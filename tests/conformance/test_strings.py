"""What has many cases in a small space: LCS with its options, and how a value is held (OBJECT ENCODING)."""

from __future__ import annotations

import itertools

import pytest
from conformance.oracle import Pair
from hypothesis import given, settings
from hypothesis import strategies as st

_texts = (
    st.text("ab", max_size=40).map(str.encode)
    | st.text("abcd\r\n", max_size=25).map(str.encode)
    | st.binary(max_size=20)
)
_words = [
    [b"LEN"],
    [b"IDX"],
    [b"WITHMATCHLEN"],
    [b"MINMATCHLEN", b"2"],
    [b"MINMATCHLEN", b"4"],
    [b"MINMATCHLEN", b"-1"],
]


@settings(max_examples=2 * settings.default.max_examples)
@given(first=_texts, second=_texts, protocol=st.sampled_from([2, 3]))
def test_lcs(pair: Pair, first: bytes, second: bytes, protocol: int) -> None:
    commands = [
        [b"HELLO", b"%d" % protocol],
        [b"MSET", b"a", first, b"b", second],
        *([b"LCS", b"a", b"b", *itertools.chain(*chosen)] for chosen in itertools.chain.from_iterable(
            itertools.combinations(_words, size) for size in range(4)
        )),
    ]  # fmt: skip
    ours, theirs = pair.run(*commands)
    for words, our_reply, their_reply in list(zip(commands, ours, theirs, strict=True))[1:]:
        assert our_reply == their_reply, words


def test_lcs_of_long_values(pair: Pair) -> None:
    first, second = b"abcdefghij" * 150, b"bdacgefhji" * 130
    ours, theirs = pair.run([b"MSET", b"a", first, b"b", second], [b"LCS", b"a", b"b"], [b"LCS", b"a", b"b", b"IDX"])
    assert ours == theirs


_BACK = [[b"MOVE", b"KEY", b"0"], [b"SELECT", b"0"]]
_MAKING = {
    "set": [[b"SET", b"KEY", b"VALUE"]],
    "setex": [[b"SETEX", b"KEY", b"1000", b"VALUE"]],
    "expire": [[b"SET", b"KEY", b"VALUE"], [b"EXPIRE", b"KEY", b"1000"]],
    "persist": [[b"SETEX", b"KEY", b"1000", b"VALUE"], [b"PERSIST", b"KEY"]],
    "getex": [[b"SET", b"KEY", b"VALUE"], [b"GETEX", b"KEY", b"EX", b"1000"]],
    "append to nothing": [[b"APPEND", b"KEY", b"VALUE"]],
    "append": [[b"SET", b"KEY", b""], [b"APPEND", b"KEY", b"VALUE"]],
    "append nothing": [[b"SET", b"KEY", b"VALUE"], [b"APPEND", b"KEY", b""]],
    "setrange of nothing": [[b"SETRANGE", b"KEY", b"0", b"VALUE"]],
    "setrange": [[b"SET", b"KEY", b"VALUE"], [b"SETRANGE", b"KEY", b"0", b"1"]],
    "setrange with nothing": [[b"SET", b"KEY", b"VALUE"], [b"SETRANGE", b"KEY", b"0", b""]],
    "rename": [[b"SET", b"other", b"1"], [b"RENAME", b"other", b"KEY"]],
    "rename edited": [[b"APPEND", b"other", b"VALUE"], [b"APPEND", b"other", b"x"], [b"RENAME", b"other", b"KEY"]],
    "copy": [[b"SET", b"other", b"1"], [b"COPY", b"other", b"KEY"]],
    "copy edited": [[b"APPEND", b"other", b"VALUE"], [b"APPEND", b"other", b"x"], [b"COPY", b"other", b"KEY"]],
    "getset": [[b"GETSET", b"KEY", b"VALUE"]],
    "mset": [[b"MSET", b"KEY", b"VALUE"]],
    "msetnx": [[b"MSETNX", b"KEY", b"VALUE"]],
    "setnx": [[b"SETNX", b"KEY", b"VALUE"]],
    "incr": [[b"SET", b"KEY", b"VALUE"], [b"INCR", b"KEY"]],
    "incr of an edited value": [[b"SET", b"KEY", b"VALUE"], [b"APPEND", b"KEY", b"0"], [b"INCR", b"KEY"]],
    "incrbyfloat": [[b"SET", b"KEY", b"VALUE"], [b"INCRBYFLOAT", b"KEY", b"1"]],
    "incrbyfloat and incr": [[b"SET", b"KEY", b"VALUE"], [b"INCRBYFLOAT", b"KEY", b"1"], [b"INCR", b"KEY"]],
    "move": [[b"SET", b"KEY", b"VALUE"], [b"MOVE", b"KEY", b"9"], [b"SELECT", b"9"], *_BACK],
}  # fmt: skip
_KEY_SIZES = [0, 1, 5, 30, 31, 32, 33, 64, 100, 120, 200, 255, 256]
_VALUES = [b"", b"1", b"-1", b"12345678901234567890", b"9223372036854775807", b"01", b"1.5", b"v" * 44, b"v" * 45]


@pytest.mark.parametrize("way", _MAKING)
def test_encoding(pair: Pair, way: str) -> None:
    """However a value came about, and around every size where key and value stop fitting one allocation."""
    for key_size in _KEY_SIZES:
        key = b"k" * key_size
        around = [b"v" * max(0, 128 - overhead - key_size) for overhead in range(10, 34)]
        for value in (*_VALUES, *around):
            making = [[_filled(word, key, value) for word in words] for words in _MAKING[way]]
            ours, theirs = pair.run([b"FLUSHALL"], *making, [b"OBJECT", b"ENCODING", key], [b"GET", key])
            assert ours == theirs, (key_size, value, making)


def _filled(word: bytes, key: bytes, value: bytes) -> bytes:
    return {b"KEY": key, b"VALUE": value}.get(word, word)
