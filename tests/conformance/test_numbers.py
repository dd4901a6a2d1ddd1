"""Numbers as text: INCRBYFLOAT's 80-bit arithmetic, and which texts count as integers, against Valkey's C library."""

from __future__ import annotations

import platform

import pytest
from conformance.oracle import Pair
from hypothesis import example, given, settings
from hypothesis import strategies as st

_digits = st.text("0123456789", min_size=1, max_size=25)
_signs = st.sampled_from(["", "-", "+"])
_exponents = st.integers(-40, 40) | st.integers(-5010, 5010) | st.sampled_from([-16445, 10**9, -(10**12)])
_decimal = st.builds(
    lambda sign, whole, part, exponent: f"{sign}{whole}{part}" + ("" if exponent is None else f"e{exponent}"),
    _signs,
    _digits | st.just(""),
    st.sampled_from(["", "."]) | _digits.map(".{}".format),
    st.none() | _exponents,
)  # fmt: skip
_hex = st.builds(
    lambda sign, whole, part, power: f"{sign}0x{whole}.{part}" + ("" if power is None else f"p{power}"),
    _signs,
    st.text("0123456789abcDEF", max_size=20),
    st.text("0123456789abcdef", max_size=20),
    st.none() | st.integers(-16500, 16500),
)
_near_the_edges = st.sampled_from(
    [
        "1e4932", "-1e4932", "1.18973149535723176502e4932", "1.189731495357231765e+4932", "3.6e-4951", "1.8e-4951",
        "1.9e-4951", "3.3621e-4932", "0x1p-16445", "0x1p-16446", "0x1.8p-16446", "0x1.fffffffffffffffep16383",
        "0x1.ffffffffffffffffp16383", "18446744073709551615.5", "9007199254740993", "0.1", "0.30000000000000001",
        "1e-17", "5e-18", "4.9999999e-18", "1.5e-17", "2.5e-17", "-0", "0", "inf", "-INF", "infinity", "nan", "nan(1)",
        "+inf", "1e", "1e+", "0x", "0x.", "0x.p1", ".", "", " 1", "1 ", "1\n", "1_0", "1,5", "1f", "0b1", "--1", "+-1",
        "\u0661", "1e1_0", "9" * 300, "9" * 5000, "0." + "9" * 200, "1" * 250 + ".5", "0" * 300 + "1",
        "9" * 5000 + "e-9000", "9" * 5000 + "e-5000", "0." + "0" * 5000 + "1e5000", "0x0." + "0" * 5000 + "1p20000",
        "0x" + "f" * 5000 + "p-36440", "0x" + "f" * 5000 + "p-36446", "0x" + "f" * 5000 + "p-36447", "1e4000000",
        "1e-4951", "0.99e-4950", "9.99e4931", "0x1p16383", "0x1p16384", "0x0.8p16384", "0x0.8p16385",
    ]
)  # fmt: skip
_numbers = _decimal | _hex | _near_the_edges | st.floats().map(repr) | st.floats(-1e6, 1e6).map(repr)

_needs_x87 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="long double is 80 bits on x86")


@_needs_x87
@settings(max_examples=3 * settings.default.max_examples)
@given(st.lists(st.tuples(_numbers, _numbers), min_size=1, max_size=12))
@example([("0.1", "0.2"), ("1e4932", "1e4932"), ("3", "1.1e-17"), ("-0", "-0"), ("0", "-0"), ("1e4932", "-inf")])
def test_incrbyfloat(pair: Pair, sums: list[tuple[str, str]]) -> None:
    commands = [
        words
        for start, increment in sums
        for words in (
            [b"SET", b"k", start.encode()],
            [b"INCRBYFLOAT", b"k", increment.encode()],
            [b"OBJECT", b"ENCODING", b"k"],
            [b"INCRBYFLOAT", b"k", b"0.3"],
        )
    ]
    ours, theirs = pair.run(*commands)
    for words, our_reply, their_reply in zip(commands, ours, theirs, strict=True):
        assert our_reply == their_reply, words


_integer_texts = (
    st.integers(-(2**65), 2**65).map(str)
    | st.text("0123456789+-_ .ex", max_size=21)
    | st.sampled_from([-(2**63), 2**63 - 1]).flatmap(lambda n: st.integers(n - 2, n + 2)).map(str)
    | st.text(max_size=3)
)


@settings(max_examples=2 * settings.default.max_examples)
@given(st.lists(st.tuples(_integer_texts, _integer_texts), min_size=1, max_size=12))
def test_integers(pair: Pair, sums: list[tuple[str, str]]) -> None:
    commands = [
        words
        for start, increment in sums
        for words in (
            [b"SET", b"k", start.encode()],
            [b"OBJECT", b"ENCODING", b"k"],
            [b"INCR", b"k"],
            [b"DECR", b"k"],
            [b"INCRBY", b"k", increment.encode()],
            [b"DECRBY", b"k", increment.encode()],
            [b"GETRANGE", b"k", b"0", increment.encode()],
        )
    ]
    ours, theirs = pair.run(*commands)
    for words, our_reply, their_reply in zip(commands, ours, theirs, strict=True):
        assert our_reply == their_reply, words
