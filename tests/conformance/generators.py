"""Random commands: every command and option, and every way to get them wrong that anyone has thought of.

A command is a list of words. Times relative to now must not come out equal on one server and different on the other
because a millisecond passed in between, so each carries the command's place in its list (see :class:`After`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hypothesis import strategies as st


@dataclass(frozen=True)
class After:
    """A time from now, in units of 1000 seconds; ``factor`` makes it seconds or milliseconds."""

    thousands: int
    factor: int

    def at(self, place: int) -> bytes:
        return b"%d" % ((self.thousands * 1000 + 7 * place) * self.factor)


Word: TypeAlias = bytes | After
Words: TypeAlias = list[Word]


def render(commands: Sequence[Words]) -> list[list[bytes]]:
    return [
        [word.at(place) if isinstance(word, After) else word for word in words] for place, words in enumerate(commands)
    ]


KEYS = [b"a", b"b", b"", b"key:1", b"bin\x00\r\n\xff", b"K" * 31, b"L" * 32, b"M" * 33, b"n" * 100]
INTEGERS = [b"0", b"1", b"-1", b"2", b"10", b"-7", b"123456"]
LIMITS = [
    b"2147483647", b"2147483648", b"-2147483649", b"4294967296", b"9223372036854775807", b"9223372036854775808",
    b"-9223372036854775807", b"-9223372036854775808", b"-9223372036854775809", b"9223372036854775", b"9223372036854776",
    b"99999999999999999999",
]  # fmt: skip
NOT_INTEGERS = [b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"1_0", b"1.0", b"0x1", b"abc", b"\xd9\xa1", b"-", b"1\x00"]
FLOATS = [
    b"0.1", b"-0.1", b"1e3", b"3.0e-5", b"5e-324", b"1e4932", b"-1e4932", b"inf", b"-inf", b"nan", b"1e400", b".5",
    b"5.", b"0x1p3", b"1_0", b" 1", b"1e", b"-0", b"123456789012345678901234567890", b"1" * 40 + b".5",
]  # fmt: skip
PATTERNS = [
    b"*",
    b"k*",
    b"?",
    b"[a-c]",
    b"[^a]",
    b"*1",
    b"\\a",
    b"[",
    b"[a",
    b"",
    b"**a**",
    b"bin*",
    b"K*K",
    b"[]",
    b"[c-a]",
]

keys = st.sampled_from(KEYS)
patterns = st.sampled_from(PATTERNS)
integers = st.sampled_from(INTEGERS) | st.sampled_from(INTEGERS + LIMITS + NOT_INTEGERS)
small = st.integers(-6, 12).map(lambda n: b"%d" % n)
indexes = small | integers
floats = st.sampled_from(FLOATS) | integers | st.floats(width=32).map(lambda number: repr(number).encode())
values = (
    st.sampled_from([b"", b"v", b"hello world", b"a\r\nb\x00\xff", b"12345678901234567890", b"3.14"])
    | integers
    | st.integers(0, 130).map(lambda size: b"e" * size)  # around where embstr ends
    | st.binary(max_size=8)
)
databases = st.sampled_from([b"0", b"1", b"2"]) | st.sampled_from([b"15", b"16", b"-1", *LIMITS[:4], *NOT_INTEGERS])

_CENTURY = 4_102_444_800  # the year 2100
seconds = st.builds(After, st.integers(1, 5), st.just(1)) | integers
milliseconds = st.builds(After, st.integers(1, 5), st.just(1000)) | integers
unix_seconds = st.integers(0, 5).map(lambda n: b"%d" % (_CENTURY + n)) | integers
unix_milliseconds = st.integers(0, 5).map(lambda n: b"%d" % ((_CENTURY + n) * 1000 + 500)) | integers


def _command(name: str, *arguments: st.SearchStrategy[Word] | st.SearchStrategy[Words]) -> st.SearchStrategy[Words]:
    """A command of fixed words and of strategies for a word or for several."""
    fixed = [word.encode("ascii") for word in name.split()]
    return st.tuples(*arguments).map(lambda parts: [*fixed, *_flat(parts)])


def _flat(parts: Sequence[Word | Words]) -> Words:
    return [word for part in parts for word in (part if isinstance(part, list) else [part])]


def _options(*alternatives: st.SearchStrategy[Words], most: int = 3) -> st.SearchStrategy[Words]:
    return st.lists(st.one_of(*alternatives), max_size=most).map(_flat)


def _flag(*names: str) -> st.SearchStrategy[Words]:
    return st.sampled_from([[name.encode("ascii")] for name in names])


def _valued(name: str, value: st.SearchStrategy[Word]) -> st.SearchStrategy[Words]:
    return value.map(lambda word: [name.encode("ascii"), word])


_EXPIRY = (
    _valued("EX", seconds),
    _valued("PX", milliseconds),
    _valued("EXAT", unix_seconds),
    _valued("PXAT", unix_milliseconds),
)
_several_keys = st.lists(keys, min_size=1, max_size=4)
_pairs = st.lists(st.tuples(keys, values).map(list), min_size=1, max_size=4).map(_flat)
_conditions = st.lists(st.sampled_from([b"NX", b"XX", b"GT", b"LT", b"nx", b"FOO", b""]), max_size=2)
_set_options = _options(*_EXPIRY, _flag("NX", "XX", "GET", "KEEPTTL", "PERSIST", "FOO"), _valued("IFEQ", values))
_scan_options = _options(
    _valued("MATCH", patterns),
    _valued("COUNT", integers),
    _valued("TYPE", st.sampled_from([b"string", b"STRING", b"list", b"foo", b""])),
    _flag("FOO"),
)

strings = st.one_of(
    _command("SET", keys, values),
    _command("SET", keys, values),  # twice, and with options twice: without values there is little to see
    _command("SET", keys, values, _set_options),
    _command("SET", keys, values, _set_options),
    _command("GET", keys),
    _command("GETSET", keys, values),
    _command("GETDEL", keys),
    _command("GETEX", keys, _options(*_EXPIRY, _flag("PERSIST", "KEEPTTL", "GET"), most=2)),
    _command("MGET", _several_keys),
    _command("MSET", _pairs),
    _command("MSETNX", _pairs),
    _command("SETNX", keys, values),
    _command("SETEX", keys, seconds, values),
    _command("PSETEX", keys, milliseconds, values),
    _command("APPEND", keys, values),
    _command("STRLEN", keys),
    _command("GETRANGE", keys, indexes, indexes),
    _command("SUBSTR", keys, indexes, indexes),
    _command("SETRANGE", keys, indexes, values),
    _command("INCR", keys),
    _command("DECR", keys),
    _command("INCRBY", keys, integers),
    _command("DECRBY", keys, integers),
    _command("INCRBYFLOAT", keys, floats),
    _command(
        "LCS", keys, keys, _options(_flag("LEN", "IDX", "WITHMATCHLEN", "FOO"), _valued("MINMATCHLEN", indexes), most=4)
    ),
)
_numkeys = st.sampled_from([b"1", b"2", b"2", b"3", b"0", b"-1", b"x", b"2147483648"])
conditional = st.one_of(
    _command("DELIFEQ", keys, values),
    _command("MSETEX", _numkeys, _pairs, _options(*_EXPIRY, _flag("NX", "XX", "KEEPTTL", "GET", "FOO"))),
    _command("MSETEX 2", keys, values, keys, values, _options(*_EXPIRY, _flag("NX", "XX", "KEEPTTL"), most=2)),
)
_bit_offsets = st.integers(-2, 70).map(lambda n: b"%d" % n) | st.sampled_from(
    [b"4294967296", b"-1", b"x", *NOT_INTEGERS]
)
_bits = st.sampled_from([b"0", b"1", b"0", b"1", b"2", b"-1", b"", b"01"])
_bit_range = st.lists(small | integers, max_size=3).map(list) | st.tuples(
    small | integers, small | integers, st.sampled_from([b"BIT", b"BYTE", b"bit", b"FOO"])
).map(list)
_fields = st.tuples(
    st.sampled_from([b"u1", b"u8", b"i8", b"i5", b"u63", b"i64", b"u7", b"i1", b"u64", b"i65", b"u0", b"x8", b"u08"]),
    st.integers(0, 40).map(lambda n: b"%d" % n)
    | st.sampled_from([b"#0", b"#1", b"#7", b"-1", b"#-1", b"x", b"99999999999"]),
)
_field_operations = st.one_of(
    _fields.map(lambda field: [b"GET", *field]),
    st.tuples(st.sampled_from([b"SET", b"INCRBY"]), _fields, integers).map(lambda it: [it[0], *it[1], it[2]]),
    st.sampled_from([b"WRAP", b"SAT", b"FAIL", b"sat", b"FOO"]).map(lambda kind: [b"OVERFLOW", kind]),
    _flag("GET", "SET", "FOO"),
)
bitmaps = st.one_of(
    _command("SETBIT", keys, _bit_offsets, _bits),
    _command("SETBIT", keys, _bit_offsets, _bits),
    _command("GETBIT", keys, _bit_offsets),
    _command("BITCOUNT", keys, _bit_range),
    _command("BITPOS", keys, _bits, _bit_range),
    _command("BITOP", st.sampled_from([b"AND", b"or", b"XOR", b"NOT", b"FOO"]), keys, _several_keys),
    _command("BITFIELD", keys, st.lists(_field_operations, max_size=5).map(_flat)),
    _command("BITFIELD", keys, st.lists(_field_operations, max_size=5).map(_flat)),
    _command("BITFIELD_RO", keys, st.lists(_field_operations, max_size=2).map(_flat)),
)
key_space = st.one_of(
    _command("DEL", _several_keys),
    _command("UNLINK", _several_keys),
    _command("EXISTS", _several_keys),
    _command("TOUCH", _several_keys),
    _command("TYPE", keys),
    _command("RENAME", keys, keys),
    _command("RENAMENX", keys, keys),
    _command("COPY", keys, keys, _options(_valued("DB", databases), _flag("REPLACE", "FOO"), most=2)),
    _command("MOVE", keys, databases),
    _command("SWAPDB", databases, databases),
    _command("RANDOMKEY"),
    _command("KEYS", patterns),
    _command("SCAN", st.sampled_from([b"0", b"0", b"00", b"-1", b"abc", b"", b"18446744073709551616"]), _scan_options),
    _command("DBSIZE"),
    _command("FLUSHDB", _options(_flag("SYNC", "ASYNC", "FOO"), most=1)),
    _command("FLUSHALL", _options(_flag("SYNC", "ASYNC", "FOO"), most=1)),
    _command("OBJECT ENCODING", keys),
    _command("OBJECT ENCODING", keys),
    _command("OBJECT FREQ", keys),
    _command("OBJECT IDLETIME", keys),
    _command("OBJECT REFCOUNT", keys),
    _command("OBJECT", st.sampled_from([b"FOO", b"", b"encoding"])),
)
expiry = st.one_of(
    _command("EXPIRE", keys, seconds, _conditions),
    _command("PEXPIRE", keys, milliseconds, _conditions),
    _command("EXPIREAT", keys, unix_seconds, _conditions),
    _command("PEXPIREAT", keys, unix_milliseconds, _conditions),
    _command("TTL", keys),
    _command("PTTL", keys),
    _command("EXPIRETIME", keys),
    _command("PEXPIRETIME", keys),
    _command("PERSIST", keys),
)
messages = st.one_of(
    _command("PUBLISH", keys, values),
    _command("SPUBLISH", keys, values),
    _command("PUBSUB CHANNELS", st.lists(patterns, max_size=2)),
    _command("PUBSUB SHARDCHANNELS", st.lists(patterns, max_size=2)),
    _command("PUBSUB NUMSUB", st.lists(keys, max_size=2)),
    _command("PUBSUB SHARDNUMSUB", st.lists(keys, max_size=2)),
    _command("PUBSUB NUMPAT"),
    _command("PUBSUB", st.sampled_from([b"FOO", b"", b"numpat"])),
)
_names = st.sampled_from([b"", b"name", b"a b", b"a\n", b"~", b"\x7f", b"\xc3\xa9"])
_hello_options = _options(
    _valued("SETNAME", _names),
    st.tuples(st.just(b"AUTH"), st.sampled_from([b"default", b"other"]), values).map(list),
    _flag("FOO", "AUTH", "SETNAME"),
    most=2,
)
_client_filters = _options(
    _valued("ID", integers),
    _valued("NOT-ID", integers),
    _valued("TYPE", st.sampled_from([b"normal", b"NORMAL", b"pubsub", b"replica", b"foo"])),
    _valued("USER", st.sampled_from([b"default", b"other"])),
    _valued("NAME", _names),
    _valued("NOT-NAME", _names),
    _valued("DB", databases),
    _valued("FLAGS", st.sampled_from([b"N", b"", b"Nx", b"Z", b"T", b"e"])),
    _valued("NOT-FLAGS", st.sampled_from([b"N", b"x", b"Z"])),
    _valued("LIB-NAME", _names),
    _valued("CAPA", st.sampled_from([b"", b"r", b"x"])),
    _valued("IDLE", st.sampled_from([b"0", b"-1", b"100000", b"abc"])),
    _valued("MAXAGE", st.sampled_from([b"0", b"-1", b"100000", b"abc"])),
    _valued("IP", st.sampled_from([b"127.0.0.1", b"1.2.3.4"])),
    _valued("SKIPME", st.sampled_from([b"yes", b"NO", b"maybe"])),
    _flag("FOO"),
)
_on_off = st.sampled_from([b"on", b"OFF", b"maybe", b""])
connection = st.one_of(
    _command("PING", st.lists(values, max_size=2)),
    _command("ECHO", values),
    _command("SELECT", databases),
    _command("RESET"),
    _command("AUTH", st.lists(st.sampled_from([b"default", b"x", b""]), max_size=3)),
    _command(
        "HELLO", st.lists(st.sampled_from([b"2", b"3", b"4", *NOT_INTEGERS, *LIMITS]), max_size=1), _hello_options
    ),
    _command("CLIENT ID"),
    _command("CLIENT GETNAME"),
    _command("CLIENT SETNAME", _names),
    _command("CLIENT SETINFO", st.sampled_from([b"LIB-NAME", b"lib-ver", b"foo"]), _names),
    _command("CLIENT INFO"),
    _command("CLIENT LIST", _client_filters),
    _command("CLIENT KILL", st.just(b"ID"), st.just(b"999999"), _client_filters),
    _command("CLIENT NO-EVICT", _on_off),
    _command("CLIENT NO-TOUCH", _on_off),
    _command("CLIENT REPLY", st.sampled_from([b"ON", b"foo", b""])),
    _command("CLIENT", st.sampled_from([b"FOO", b"", b"f\r\n" + b"x" * 200])),
)
_any_words = st.lists(
    st.sampled_from([b"get", b"set", b"k", b"v", b"GET", b"mset", b"object", b"encoding"]), max_size=5
)
administration = st.one_of(
    _command("COMMAND GETKEYS", _any_words),
    _command("COMMAND GETKEYSANDFLAGS", _any_words),
    _command(
        "COMMAND LIST FILTERBY", st.lists(st.sampled_from([b"MODULE", b"foo", b"ACLCAT", b"PATTERN"]), max_size=3)
    ),
    _command(
        "CONFIG GET", st.sampled_from([b"save", b"SAVE", b"appendonly", b"databases", b"maxclient?", b"nothing*"])
    ),
    _command("CONFIG", st.sampled_from([b"FOO", b"GET", b"SET", b""])),
    _command("INFO", st.sampled_from([b"nothing", b"", b"foo\r\n"])),
    _command("TIME"),
    _command("ROLE", st.lists(values, min_size=1, max_size=1)),
    _command("LASTSAVE"),
    _command("WAIT", st.sampled_from([b"0", b"-1", *NOT_INTEGERS]), integers),
    _command("FUNCTION FLUSH", _options(_flag("SYNC", "async", "FOO"), most=1)),
    st.lists(
        st.sampled_from([b"", b"foo", b"fo\r\no", b"'x'", b"y" * 150, b"\xff\x00", *KEYS]), min_size=1, max_size=8
    ),
)


@st.composite
def _spoiled(draw: st.DrawFn, words: Words) -> Words:
    """One thing wrong with it: a word too few or too many, another word, another case."""
    words = list(words)
    place = draw(st.integers(0, len(words) - 1))
    match draw(st.sampled_from(["drop", "add", "swap", "case", "case"])):
        case "drop" if len(words) > 1:
            del words[max(place, 1) :]
        case "add":
            words.append(draw(values))
        case "swap" if place:
            words[place] = draw(integers | values)
        case _:
            words[place] = _other_case(words[place])
    return words


def _other_case(word: Word) -> Word:
    return word.swapcase() if isinstance(word, bytes) else word


def _harmless(words: Words) -> bool:
    """No command that blocks, ends the connection, or makes a key expire while the others run."""
    name, rest = words[0], words[1:]
    assert isinstance(name, bytes)
    if name.upper() in (b"WAIT", b"QUIT", b"POST", b"HOST:"):
        return name.upper() == b"WAIT" and (len(rest) != 2 or rest[0] in (b"0", b"-1"))
    if name.upper() == b"CLIENT" and rest[:1] and isinstance(rest[0], bytes):
        return rest[0].upper() not in (b"KILL", b"REPLY") or _spares_the_client(rest)
    return not _sets_a_short_time(name.upper(), rest)


def _spares_the_client(rest: Words) -> bool:
    first = [word.upper() if isinstance(word, bytes) else word for word in rest[:3]]
    return (first[0] == b"KILL" and first[1:3] == [b"ID", b"999999"]) or first[:2] == [b"REPLY", b"ON"]


_TIMED = {b"MSETEX", b"SETEX", b"PSETEX", b"EXPIRE", b"PEXPIRE", b"SET", b"GETEX"}
_SHORT = {b"1", b"2", b"10", b"123456"}


def _sets_a_short_time(name: bytes, rest: Words) -> bool:
    """Whether a time to live may pass, or its rounding be seen, during a test; the value of SET is no time."""
    if name not in _TIMED:
        return False
    return any(
        word in _SHORT
        for word in (rest[2:] if name == b"SET" else rest[1:2] if name not in (b"GETEX", b"MSETEX") else rest)
    )


_families = st.one_of(strings, strings, conditional, bitmaps, key_space, expiry, messages, connection, administration)
commands = (_families | _families | _families.flatmap(_spoiled)).filter(_harmless)
_queued = (strings | bitmaps | (strings | bitmaps).flatmap(_spoiled)).filter(_harmless)
transactions = st.tuples(
    st.lists(st.sampled_from([[b"WATCH", b"a", b"b"], [b"UNWATCH"], [b"SET", b"a", b"1"], [b"DISCARD"]]), max_size=2),
    st.lists(_queued, max_size=4),
    st.sampled_from([b"EXEC", b"EXEC", b"EXEC", b"DISCARD"]),
).map(lambda parts: [*parts[0], [b"MULTI"], *parts[1], [parts[2]]])
batches = st.lists(commands.map(lambda words: [words]) | transactions, min_size=1, max_size=25).map(
    lambda groups: render([words for group in groups for words in group])
)
