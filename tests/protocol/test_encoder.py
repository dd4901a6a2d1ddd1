"""Replies to bytes: every type in both versions, nested, and kinds of them."""

from __future__ import annotations

import enum
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvserver.protocol.encoder import encode_error, encoding, format_double
from kvserver.protocol.replies import OK, Error, Push, Reply, Set, SimpleString, Verbatim


def encode(reply: Reply, version: int) -> bytes:
    return encoding(version)[reply.__class__](reply)


class Text(bytes):
    pass


class Number(enum.IntEnum):
    SEVEN = 7


class Ordered(dict[bytes, Reply]):
    pass


class RefusedError(Error):
    pass


EITHER = {
    "null": (None, b"$-1\r\n", b"_\r\n"),
    "bulk": (b"hello", b"$5\r\nhello\r\n", None),
    "empty bulk": (b"", b"$0\r\n\r\n", None),
    "bulk with line ends": (b"a\r\nb", b"$4\r\na\r\nb\r\n", None),
    "kind of bytes": (Text(b"hello"), b"$5\r\nhello\r\n", None),
    "simple": (OK, b"+OK\r\n", None),
    "verbatim": (Verbatim(b"hello"), b"$5\r\nhello\r\n", b"=9\r\ntxt:hello\r\n"),
    "empty verbatim": (Verbatim(b""), b"$0\r\n\r\n", b"=4\r\ntxt:\r\n"),
    "integer": (42, b":42\r\n", None),
    "least integer": (-(2**63), b":-9223372036854775808\r\n", None),
    "greatest integer": (2**63 - 1, b":9223372036854775807\r\n", None),
    "kind of int": (Number.SEVEN, b":7\r\n", None),
    "true": (True, b":1\r\n", b"#t\r\n"),
    "false": (False, b":0\r\n", b"#f\r\n"),
    "double": (3.5, b"$3\r\n3.5\r\n", b",3.5\r\n"),
    "whole double": (10.0, b"$2\r\n10\r\n", b",10\r\n"),
    "great double": (1e300, b"$6\r\n1e+300\r\n", b",1e+300\r\n"),
    "infinity": (math.inf, b"$3\r\ninf\r\n", b",inf\r\n"),
    "minus infinity": (-math.inf, b"$4\r\n-inf\r\n", b",-inf\r\n"),
    "no number": (math.nan, b"$3\r\nnan\r\n", b",nan\r\n"),
    "error": (Error("WRONGTYPE no"), b"-WRONGTYPE no\r\n", None),
    "kind of error": (RefusedError("ERR no"), b"-ERR no\r\n", None),
    "empty array": ([], b"*0\r\n", None),
    "array": ([b"a", 1, None], b"*3\r\n$1\r\na\r\n:1\r\n$-1\r\n", b"*3\r\n$1\r\na\r\n:1\r\n_\r\n"),
    "array in an array": ([[], [None]], b"*2\r\n*0\r\n*1\r\n$-1\r\n", b"*2\r\n*0\r\n*1\r\n_\r\n"),
    "error in an array": ([Error("ERR a\r\nb")], b"*1\r\n-ERR a  b\r\n", None),
    "set": (Set([b"a", None]), b"*2\r\n$1\r\na\r\n$-1\r\n", b"~2\r\n$1\r\na\r\n_\r\n"),
    "empty set": (Set(), b"*0\r\n", b"~0\r\n"),
    "push": (Push([b"a", 1]), b"*2\r\n$1\r\na\r\n:1\r\n", b">2\r\n$1\r\na\r\n:1\r\n"),
    "map": ({b"a": True}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n#t\r\n"),
    "empty map": ({}, b"*0\r\n", b"%0\r\n"),
    "map in a map": (
        {b"a": {b"b": Verbatim(b"v")}},
        b"*2\r\n$1\r\na\r\n*2\r\n$1\r\nb\r\n$1\r\nv\r\n",
        b"%1\r\n$1\r\na\r\n%1\r\n$1\r\nb\r\n=5\r\ntxt:v\r\n",
    ),
    "kind of map": (Ordered({b"a": 1}), b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
    "name of a kind in a map": ({SimpleString(b"a"): 1}, b"*2\r\n+a\r\n:1\r\n", b"%1\r\n+a\r\n:1\r\n"),
}


@pytest.mark.parametrize("name", EITHER)
def test_each_type_in_both_versions(name: str) -> None:
    reply, resp2, resp3 = EITHER[name]
    assert encode(reply, 2) == resp2
    assert encode(reply, 3) == (resp3 or resp2)


@pytest.mark.parametrize("reply", [object(), [1, object()], {b"a": object()}, Set([object()])])
def test_what_is_no_reply_is_refused(reply: Reply) -> None:
    """Nested, too: an array must not end before its count."""
    for version in (2, 3):
        with pytest.raises(TypeError, match="object"):
            encode(reply, version)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ERR plain", b"-ERR plain\r\n"),
        ("ERR a\r\n+OK\r\nb", b"-ERR a  +OK  b\r\n"),
        ("ERR a\nb\rc", b"-ERR a b c\r\n"),
        ("ERR ends\r\n\n", b"-ERR ends\r\n"),
        ("ERR \udcff\udc80\x00", b"-ERR \xff\x80\x00\r\n"),
        ("ERR caf\xe9", b"-ERR caf\xc3\xa9\r\n"),
        ("", b"-\r\n"),
    ],
)
def test_an_error_is_one_line(text: str, line: bytes) -> None:
    assert encode_error(text) == line
    for version in (2, 3):
        assert encode(Error(text), version) == line


@given(st.binary(max_size=200))
def test_an_error_is_one_line_whatever_it_quotes(raw: bytes) -> None:
    line = encode_error("ERR '" + raw.decode("utf-8", "surrogateescape") + "'")
    assert line.startswith(b"-ERR '")
    assert line.endswith(b"'\r\n")
    assert len(line) == len(raw) + 9
    assert not {13, 10} & set(line[:-2])


@given(st.floats(allow_nan=False))
def test_a_double_reads_back_the_same(value: float) -> None:
    text = format_double(value)
    assert float(text) == value
    assert math.copysign(1, float(text)) == math.copysign(1, value)
