"""The bytes of journal files: what was written comes back; what a crash or a bad disk made of it is told apart."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kvserver.journal.format import Damaged, Truncated, Unreadable, encode_batch, encode_command, read_batches

WORD = st.binary(max_size=40)
COMMANDS = st.lists(st.lists(WORD, min_size=1, max_size=4), min_size=1, max_size=4)
SET = [b"SET", b"key", b"value\r\n#CRC:00000000 5\r\n"]


def commands_of(data: bytes) -> list[list[list[bytes]]]:
    return [batch.commands for batch in read_batches(data)]


def read(data: bytes) -> tuple[list[list[list[bytes]]], Unreadable | None]:
    """Everything that can be read, and why that was all."""
    found = []
    try:
        found.extend(batch.commands for batch in read_batches(data))
    except Unreadable as error:
        return found, error
    return found, None


@given(st.lists(COMMANDS, max_size=5), st.booleans())
def test_what_was_written_comes_back(batches: list[list[list[bytes]]], checked: bool) -> None:
    data = b"".join(encode_batch(b) if checked else b"".join(map(encode_command, b)) for b in batches)
    names = {words[0].upper() for batch in batches for words in batch}
    if names & {b"MULTI", b"EXEC"}:
        return
    wanted = batches if checked else [[words] for batch in batches for words in batch]
    assert commands_of(data) == wanted


def test_a_transaction_is_one_batch_with_and_without_checksum() -> None:
    words = [[b"MULTI"], [b"SET", b"a", b"1"], [b"SET", b"b", b"2"], [b"EXEC"]]
    plain = b"".join(map(encode_command, words))
    assert commands_of(encode_batch(words)) == commands_of(plain) == [words[1:-1]]


def test_what_redis_adds_is_passed_over() -> None:
    data = b"#TS:1700000000\r\n" + encode_command(SET) + b"#TS:1700000001\r\n" + encode_batch([SET])
    assert commands_of(data) == [[SET], [SET]]


@pytest.mark.parametrize("checked", [True, False])
def test_cut_at_every_byte(checked: bool) -> None:
    """A prefix of whole batches comes back, and where to cut is where the last of them ends."""
    transaction = [[b"MULTI"], [b"SET", b"a", b"1"], [b"DEL", b"b"], [b"EXEC"]]
    batches = [[SET], transaction, [[b"DEL", b"key"]]]
    pieces = [encode_batch(b) if checked else b"".join(map(encode_command, b)) for b in batches]
    data = b"".join(pieces)
    whole = commands_of(data)
    ends = [sum(map(len, pieces[:count])) for count in range(len(pieces) + 1)]
    for size in range(len(data) + 1):
        found, error = read(data[:size])
        count = sum(end <= size for end in ends) - 1
        assert found == whole[:count]
        if size in ends:
            assert error is None
        else:
            assert isinstance(error, Truncated)
            assert error.offset == ends[count]


def test_one_byte_flipped() -> None:
    """No flipped byte goes unnoticed, and none is taken for what a crash leaves: what was there was acknowledged."""
    pieces = [encode_batch([SET]), encode_batch([[b"SET", b"b", b"x" * 30]]), encode_batch([[b"DEL", b"b"]])]
    data = b"".join(pieces)
    ends = [sum(map(len, pieces[:count])) for count in range(len(pieces) + 1)]
    for place in range(len(data)):
        for flipped in (data[place] ^ 1, data[place] ^ 0x20, 0):
            damaged = data[:place] + bytes([flipped]) + data[place + 1 :]
            if damaged == data:
                continue
            found, error = read(damaged)
            batch = sum(end <= place for end in ends) - 1
            assert isinstance(error, Damaged), (place, flipped, found, error)
            assert error.offset == ends[batch]
            assert found == commands_of(data)[:batch]


@pytest.mark.parametrize("zeros", [1, 100, 511, 512, 4096, 10_000])
def test_zeros_behind_the_end_were_never_written(zeros: int) -> None:
    data = encode_batch([SET])
    found, error = read(data + bytes(zeros))
    assert found == [[SET]]
    assert isinstance(error, Truncated)
    assert error.offset == len(data)


@pytest.mark.parametrize("lost", range(0, 4096, 512))
def test_a_sector_that_was_never_written_cuts_the_last_batch(lost: int) -> None:
    first = encode_batch([SET])
    last = encode_batch([[b"SET", b"big", b"v" * 4096]])
    data = bytearray(first + last)
    data[lost : lost + 512] = bytes(512)
    found, error = read(bytes(data))
    if lost == 0:  # it takes the first batch, which the second follows
        assert isinstance(error, Damaged) or error.offset == 0
    else:
        assert found == [[SET]]
        assert isinstance(error, Truncated)
        assert error.offset == len(first)


def test_a_batch_whose_first_line_reaches_into_a_lost_sector() -> None:
    first = encode_batch([[b"SET", b"k", b"v" * 450]])
    assert 512 - 20 < len(first) < 512
    data = bytearray(first + encode_batch([[b"SET", b"k", b"w" * 100]]))
    data[512:] = bytes(len(data) - 512)
    found, error = read(bytes(data))
    assert len(found) == 1
    assert isinstance(error, Truncated)


def test_a_lost_sector_in_the_middle_is_damage() -> None:
    first = encode_batch([[b"SET", b"big", b"v" * 4096]])
    data = bytearray(first + encode_batch([SET]))
    data[1024:1536] = bytes(512)
    found, error = read(bytes(data))
    assert found == []
    assert isinstance(error, Damaged)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _, error = read(encode_batch([SET]) + data)
    assert error is None or error.offset >= len(encode_batch([SET]))


@pytest.mark.parametrize(
    "data",
    [b"PING\r\n", b"REDIS0011", b"*1\r\n:3\r\n", b"*0\r\n", b"*x\r\n$1\r\na\r\n", b"*1\r\n$1\r\nabc\r\n",
     b"#CRC:zz 5\r\n12345", b"#TS:" + b"x" * 2000, b"#other\r\n"],
)  # fmt: skip
def test_what_no_server_writes(data: bytes) -> None:
    _, error = read(data + encode_command(SET))
    assert isinstance(error, Damaged)
    assert error.offset == 0
