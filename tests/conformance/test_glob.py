"""Glob patterns, against the real KEYS; and never more than linear work, whatever the pattern."""

from __future__ import annotations

import time
from typing import cast

import pytest
from conformance.oracle import Pair, parse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvserver.store.glob import compile_glob

pytestmark = pytest.mark.untraced  # it measures, and coverage costs

_alphabet = "ab-]^\\[*?c\n"
_keys = st.lists(st.text(_alphabet, max_size=7).map(str.encode) | st.binary(max_size=3), min_size=1, max_size=12)
_classes = st.text("abc-]^\\[*?\xff", max_size=6).map(lambda text: b"[" + text.encode("latin-1"))
_parts = [b"*", b"?", b"a", b"b", b"ab", b"\\", b"]", b"[a-c]", b"[^a]", b"[c-a]", b"[]", b"\\*", b"\xff"]
_patterns = st.lists(st.sampled_from(_parts) | _classes, max_size=6).map(b"".join)


@settings(max_examples=4 * settings.default.max_examples)
@given(_keys, st.lists(_patterns, min_size=1, max_size=20))
@example(
    [b"a", b"]", b"-", b"b", b"\\", b"[", b""],
    [b"[a-]", b"[]-a]", b"[^]", b"[", b"[^", b"[\\]]", b"[\\", b"\\", b"[a-"],
)
@example([b"aaaa"], [b"*a" * 4, b"*a" * 5, b"a*" * 4, b"**a**", b"?" * 4, b"*" * 50])
def test_keys(pair: Pair, keys: list[bytes], patterns: list[bytes]) -> None:
    commands = [[b"FLUSHALL"], [b"MSET", *(word for key in keys for word in (key, b""))]]
    commands += [[b"KEYS", pattern] for pattern in patterns]
    ours, theirs = pair.run(*commands)
    for pattern, our_reply, their_reply in zip(patterns, ours[2:], theirs[2:], strict=True):
        assert _members(our_reply) == _members(their_reply), pattern


def _members(reply: bytes) -> list[bytes]:
    return sorted(cast("list[bytes]", parse(reply)))


@pytest.mark.parametrize(
    "pattern",
    [
        b"*a" * 30 + b"*b",  # CVE-2022-36021
        b"a*" * 30 + b"b",
        b"*?" * 30 + b"b",
        b"*[a-z]" * 30 + b"b",
        b"*" * 1_000_000 + b"b",
        b"[" * 1_000_000,
        b"[^" + b"a" * 1_000_000,
        b"\\" * 999_999,
        b"a" * 1_000_000,
    ],
    ids=lambda pattern: f"{pattern[:8].decode()} of {len(pattern)}",
)
def test_no_pattern_takes_long(pattern: bytes) -> None:
    """Backtracking over thirty stars would take longer than anybody lives."""
    started = time.perf_counter()
    assert not compile_glob(pattern)(b"a" * 2_000)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("part", [b"a", b"?", b"[ab]", b"a?"])
def test_nor_a_long_pattern_on_a_long_key(part: bytes) -> None:
    """Their lengths multiplied would be ten thousand million steps."""
    matches = compile_glob(b"*" + part * (100_000 // len(part)) + b"b*")
    started = time.perf_counter()
    assert not matches(b"a" * 200_000)
    assert matches(b"a" * 200_000 + b"b")
    assert time.perf_counter() - started < 10
