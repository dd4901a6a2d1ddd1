"""Bitmaps against a model that looks at one bit after the other; and that long values take no time."""

from __future__ import annotations

import time
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from kvserver.commands.bitfield import _Field
from kvserver.commands.bitmaps import _first_bit, bitcount, bitpos
from kvserver.config import Config
from kvserver.protocol.replies import Reply
from kvserver.state import State
from kvserver.store.memory import Database

values = st.binary(max_size=6) | st.sampled_from([b"\xff" * 5, b"\0" * 5, b"\xff\xff\x7f\xff", b"\0\0\x01"])


def bits(value: bytes) -> list[int]:
    return [byte >> 7 - place & 1 for byte in value for place in range(8)]


def database(value: bytes) -> Database:
    db = State(Config()).keyspace.databases[0]
    with db.keyspace.lock:
        db.put(b"k", value)
    return db


def finished(reply: object) -> Reply:
    return cast("Reply", reply() if callable(reply) else reply)


@given(values, st.integers(0, 1), st.integers(0, 48), st.integers(0, 48))
def test_the_first_bit_within_a_range(value: bytes, wanted: int, first: int, behind: int) -> None:
    row = bits(value)
    first, behind = min(first, len(row)), min(behind, len(row))
    found = [place for place in range(first, behind) if row[place] == wanted]
    if first < behind:
        assert _first_bit(value, wanted, first, behind) == (found[0] if found else -1)


@given(values, st.integers(-50, 50), st.integers(-50, 50))
def test_counting_a_range_of_bits(value: bytes, start: int, end: int) -> None:
    row = bits(value)
    low, high = (place + len(row) if place < 0 else place for place in (start, end))
    nothing = start < 0 and end < 0 and start > end
    wanted = 0 if nothing else sum(row[max(0, low) : max(0, high) + 1])
    reply = finished(bitcount(database(value), b"k", b"%d" % start, b"%d" % end, b"BIT"))
    assert reply == wanted


@given(values, st.booleans(), st.integers(1, 64), st.integers(0, 30), st.integers(-(2**63), 2**63 - 1))
def test_a_field_is_read_back_as_it_was_written(
    value: bytes, signed: bool, width: int, offset: int, number: int
) -> None:
    field = _Field(signed, min(width, 63 + signed), offset)
    room = bytearray(value.ljust(16, b"\0"))
    before = bits(bytes(room))
    wanted = field.wrapped(number)
    assert field.least <= wanted <= field.most
    field.write(room, wanted)
    assert field.read(room) == wanted
    after = bits(bytes(room))
    assert after[:offset] == before[:offset]
    assert after[offset + field.width :] == before[offset + field.width :]


def test_a_hundred_megabytes_take_no_time() -> None:
    db = database(bytes(100_000_000) + b"\x01")
    began = time.process_time()
    assert finished(bitcount(db, b"k")) == 1
    assert finished(bitpos(db, b"k", b"1")) == 800_000_007
    assert time.process_time() - began < 5
