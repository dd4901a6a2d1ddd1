"""Well-formed commands that ask for too much, or for nonsense: rows 19 to 23 of the hostile inputs, Python's traps."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable

import pytest
from conformance.oracle import Wire
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, request

import kvserver
from kvserver.commands import databases

pytestmark = pytest.mark.untraced  # it measures, and coverage costs

TOO_LONG = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
NO_INTEGER = b"-ERR value is not an integer or out of range\r\n"
NO_OFFSET = b"-ERR offset is out of range\r\n"
NO_FLOAT = b"-ERR value is not a valid float\r\n"
OVERFLOW = b"-ERR increment or decrement would overflow\r\n"
MAX, MIN = 2**63 - 1, -(2**63)

SIZES = {
    "SETRANGE k 4294967295 x": TOO_LONG,
    "SETRANGE k 536870912 x": TOO_LONG,
    f"SETRANGE k {MAX} x": TOO_LONG,
    f"SETRANGE k {MAX + 1} x": NO_INTEGER,
    "SETRANGE k -1 x": NO_OFFSET,
    f"SETRANGE k {MIN} x": NO_OFFSET,
    f"SETRANGE k {MAX} ''": b":3\r\n",
    f"GETRANGE k {MIN} {MAX}": b"$3\r\nabc\r\n",
    f"GETRANGE k {MAX} {MIN}": b"$0\r\n\r\n",
    f"GETRANGE k {MIN} {MIN}": b"$1\r\na\r\n",
    "GETRANGE k 0 99999999999999999999": NO_INTEGER,
}


@pytest.mark.parametrize("command", SIZES)
def test_19_lengths_are_checked_before_anything_is_allocated(siege: Siege, valkey_port: int, command: str) -> None:
    lines = f"DEL k\r\nSET k abc\r\n{command}\r\nGET k\r\n".encode()
    tracemalloc.start()
    try:
        answer = siege.arena.answer(lines)
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024**2
    finally:
        tracemalloc.stop()
    assert answer.partition(b"+OK\r\n")[2] == SIZES[command] + b"$3\r\nabc\r\n"
    with Wire(valkey_port) as real:
        real.run([b"SET", b"k", b"abc"])
        real.send(command.encode() + b"\r\n")
        assert real.read() == SIZES[command]


def test_19_append_cannot_grow_beyond_the_limit(besiege: Besiege) -> None:
    with besiege(max_bulk_length=1024**2) as siege, Wire(siege.arena.server.port) as wire:
        part = b"x" * (1024**2 // 4)
        assert [wire.ask("APPEND", "k", part) for _ in range(4)][-1] == b":%d\r\n" % 1024**2
        assert wire.ask("APPEND", "k", b"y") == TOO_LONG
        assert wire.ask("SETRANGE", "k", 1024**2, b"y") == TOO_LONG
        assert wire.ask("STRLEN", "k") == b":%d\r\n" % 1024**2


LENIENT = [b" 1", b"1 ", b"1_0", b"+1", b"01", b"-0", b"1.0", b"0x1", b"", b"\xd9\xa1", b"1\0", b"9" * 5000, b"1e3"]


@pytest.mark.parametrize("number", LENIENT)
def test_20_what_python_takes_for_an_integer(siege: Siege, number: bytes) -> None:
    """As a stored value, and as an argument."""
    with Wire(siege.arena.server.port) as wire:
        wire.ask("SET", "k", number)
        wire.ask("SET", "n", 1)
        for command in ("INCR", "DECR"):
            assert wire.ask(command, "k") == NO_INTEGER
        for asked in (("INCRBY", "n", number), ("DECRBY", "n", number), ("SETRANGE", "n", number, "x")):
            assert wire.ask(*asked) == NO_INTEGER
        assert wire.ask("GET", "k") == b"$%d\r\n%b\r\n" % (len(number), number)
        assert wire.ask("GET", "n") == b"$1\r\n1\r\n"


def test_20_the_ends_of_64_bits(siege: Siege) -> None:
    with Wire(siege.arena.server.port) as wire:
        wire.ask("SET", "max", MAX)
        wire.ask("SET", "min", MIN)
        assert [wire.ask("INCR", "max"), wire.ask("DECR", "min"), wire.ask("INCRBY", "min", MIN)] == [OVERFLOW] * 3
        assert wire.ask("DECRBY", "max", MIN) == b"-ERR decrement would overflow\r\n"
        assert wire.ask("INCRBY", "max", MAX + 1) == NO_INTEGER
        assert wire.ask("MGET", "max", "min").split(b"\r\n")[2::2] == [b"%d" % MAX, b"%d" % MIN]


@pytest.mark.parametrize("number", [b"1_0", b" 1", b"1 ", b"nan", b"NaN", b"", b"1e", b"0x", b"\xd9\xa1", b"1\0"])
def test_20_what_python_takes_for_a_float(siege: Siege, number: bytes) -> None:
    with Wire(siege.arena.server.port) as wire:
        wire.ask("SET", "k", 1)
        wire.ask("SET", "stored", number)
        assert wire.ask("INCRBYFLOAT", "k", number) == NO_FLOAT
        assert wire.ask("INCRBYFLOAT", "stored", 1) == NO_FLOAT
        assert wire.ask("GET", "k") == b"$1\r\n1\r\n"


def test_20_infinity_is_not_reached(siege: Siege, valkey_port: int) -> None:
    for number in ("inf", "-inf", "infinity", "1e5000", "-1e5000", "1e4932", "1e-5000"):
        replies = []
        for port in (siege.arena.server.port, valkey_port):
            with Wire(port) as wire:
                wire.ask("SET", "k", 1)
                replies.append((wire.ask("INCRBYFLOAT", "k", number), wire.ask("GET", "k")))
        assert replies[0] == replies[1]
        assert b"inf" not in replies[0][1]


EXPIRIES = [
    f"SET k v EX {MAX}", f"SET k v PX {MAX}", "SET k v EX 0", "SET k v EX -1", "SET k v PX 0", f"SET k v EXAT {MAX}",
    "SET k v EX 9223372036854776", f"SETEX k {MAX} v", "SETEX k 0 v", f"PSETEX k {MAX} v", f"GETEX k EX {MAX}",
    "GETEX k EX 0", f"EXPIRE k {MAX}", f"EXPIRE k {MIN}", f"PEXPIRE k {MAX}", f"PEXPIRE k {MIN}", f"EXPIREAT k {MAX}",
    f"EXPIREAT k {MIN}", f"PEXPIREAT k {MIN}", "EXPIRE k 9223372036854775", "EXPIRE k -9223372036854776",
    "EXPIRE k 99999999999999999999", "EXPIRE k -1", "EXPIRE k 0", "SET k v EX 1_0", "SET k v EX +1", "EXPIRE k 1.5",
]  # fmt: skip


@pytest.mark.parametrize("command", EXPIRIES)
def test_21_times_that_cannot_be(siege: Siege, valkey_port: int, command: str) -> None:
    replies = []
    for port in (siege.arena.server.port, valkey_port):
        with Wire(port) as wire:
            wire.run([b"DEL", b"k"], [b"SET", b"k", b"old"])
            replies.append(wire.run(command.encode().split(), [b"GET", b"k"], [b"EXISTS", b"k"]))
    assert replies[0] == replies[1]


@pytest.mark.parametrize("pattern", [b"*a" * 30 + b"*b", b"*" * 10_000 + b"b", b"[^b]*" * 40 + b"c", b"?*" * 30 + b"x"])
def test_22_patterns_that_backtrack(siege: Siege, pattern: bytes) -> None:
    """A hundred thousand keys, in bounded time."""
    values = siege.arena.state.keyspace.databases[0].values
    values.update((b"a" * 60 + b"%d" % number, b"v") for number in range(100_000))
    with Wire(siege.arena.server.port) as wire:
        began = time.monotonic()
        assert wire.ask("KEYS", pattern) == b"*0\r\n"
        assert wire.ask("SCAN", 0, "MATCH", pattern, "COUNT", 10**6).endswith(b"*0\r\n")
        assert time.monotonic() - began < 10
    values.clear()


@pytest.mark.parametrize(
    "commands",
    [
        [[b"KEYS", b"k*"]],
        [[b"SCAN", b"0", b"MATCH", b"k*"]],
        [[b"MULTI"], [b"KEYS", b"k*"], [b"SCAN", b"0", b"MATCH", b"k*"], [b"EXEC"]],
    ],
    ids=["KEYS", "SCAN", "EXEC"],
)
def test_22_nobody_waits_for_the_matching(
    siege: Siege, monkeypatch: pytest.MonkeyPatch, commands: list[list[bytes]]
) -> None:
    """It is held up here until the bystander, who needs the lock, has been served."""
    begun, served = threading.Event(), threading.Event()

    def compile_slowly(_pattern: bytes) -> Callable[[bytes], bool]:
        def matches(_key: bytes) -> bool:
            begun.set()
            return served.wait(PATIENCE)

        return matches

    monkeypatch.setattr(databases, "compile_glob", compile_slowly)
    with Wire(siege.arena.server.port) as wire:
        wire.ask("SET", "k", "v")
        wire.send(b"".join(request(*words) for words in commands))
        try:
            assert begun.wait(PATIENCE)
            siege.bystander.is_served()
        finally:
            served.set()
        assert b"$1\r\nk\r\n" in [wire.read() for _ in commands][-1]


@pytest.mark.parametrize("part", [b"a", b"?", b"[ab]"])
def test_22_a_long_pattern_and_a_long_name(siege: Siege, part: bytes) -> None:
    """Whoever publishes or writes does the matching, under the locks that all others need."""
    name = b"a" * 40_000
    with Wire(siege.arena.server.port) as subscriber, Wire(siege.arena.server.port) as wire:
        subscriber.ask("PSUBSCRIBE", b"*" + part * 20_000 + b"b*")
        wire.ask("CONFIG", "SET", "notify-keyspace-events", "KEA")
        began = time.monotonic()
        assert wire.ask("PUBLISH", name, "v") == b":0\r\n"
        assert wire.ask("SET", name, "v") == b"+OK\r\n"
        siege.bystander.is_served()
        assert time.monotonic() - began < 10
        wire.ask("CONFIG", "SET", "notify-keyspace-events", "")


@pytest.mark.parametrize(
    "pattern", [b"a" * 10**6, b"*" * 10**6 + b"x", b"[a" * 10**6, b"\\" * 10**6, b"[^a]" * 250_000]
)
def test_22_long_patterns(siege: Siege, pattern: bytes) -> None:
    with Wire(siege.arena.server.port) as wire:
        wire.run(*([b"SET", b"a" * 60 + b"%d" % number, b"v"] for number in range(100)))
        before = siege.bystander.answered
        assert wire.ask("KEYS", pattern) == b"*0\r\n"
        assert wire.ask("PUBSUB", "CHANNELS", pattern) == b"*0\r\n"
        assert wire.ask("CONFIG", "GET", pattern[:1000])[:1] == b"*"
        siege.bystander.is_served()
        assert siege.bystander.answered > before


def test_22_a_subscriber_with_a_long_pattern_slows_nobody(siege: Siege) -> None:
    with Wire(siege.arena.server.port) as subscriber, Wire(siege.arena.server.port) as wire:
        wire.ask("CONFIG", "SET", "notify-keyspace-events", "KEA")
        subscriber.ask("PSUBSCRIBE", b"*" * 10**6 + b"x")
        subscriber.ask("PSUBSCRIBE", b"*a" * 500_000)
        began = time.monotonic()
        wire.run(*([b"SET", b"a" * 100, b"v"] for _ in range(200)))
        assert time.monotonic() - began < 5
        wire.ask("CONFIG", "SET", "notify-keyspace-events", "")


def test_23_the_same_key_twice(siege: Siege) -> None:
    with Wire(siege.arena.server.port) as wire:
        assert wire.ask("MSETNX", "d1", "a", "d1", "b") == b":1\r\n"
        assert wire.ask("GET", "d1") == b"$1\r\nb\r\n"
        assert wire.ask("RENAME", "d1", "d1") == b"+OK\r\n"
        assert wire.ask("RENAMENX", "d1", "d1") == b":0\r\n"
        assert wire.ask("COPY", "d1", "d1") == b"-ERR source and destination objects are the same\r\n"
        assert wire.ask("DEL", "d1", "d1") == b":1\r\n"
        assert wire.ask("RENAME", "d1", "d1") == b"-ERR no such key\r\n"


def test_23_transactions(siege: Siege) -> None:
    with Wire(siege.arena.server.port) as wire:
        wire.ask("SET", "k", 1)
        assert wire.run([b"WATCH", b"k"], [b"SET", b"k", b"2"], [b"MULTI"], [b"EXEC"])[-1] == b"*-1\r\n"
        bad = wire.run([b"MULTI"], [b"SET", b"k"], [b"SET", b"k", b"3"], [b"EXEC"], [b"GET", b"k"])
        assert bad[3:] == [b"-EXECABORT Transaction discarded because of previous errors.\r\n", b"$1\r\n2\r\n"]
        nested = wire.run([b"MULTI"], [b"SET", b"k", b"4"], [b"MULTI"], [b"WATCH", b"k"], [b"EXEC"])
        assert nested[2:4] == [
            b"-ERR MULTI calls can not be nested\r\n",
            b"-ERR WATCH inside MULTI is not allowed\r\n",
        ]
        assert nested[4] == b"*1\r\n+OK\r\n"


def test_watching_much(siege: Siege) -> None:
    """Ten thousand keys, by twenty clients; the last word is that nothing of it is left."""
    keys = [b"key:%d" % number for number in range(10_000)]
    for _ in range(20):
        with Wire(siege.arena.server.port) as wire:
            assert wire.run([b"WATCH", *keys], [b"MULTI"])[1] == b"+OK\r\n"
    with Wire(siege.arena.server.port) as wire:
        assert wire.run([b"WATCH", *keys], [b"SET", keys[-1], b"v"], [b"MULTI"], [b"EXEC"])[-1] == b"*-1\r\n"
    assert siege.arena.answer(b"PING\r\n") == b"+PONG\r\n"
    _wait_until(siege, lambda: not siege.arena.state.changes._watchers)
    assert siege.arena.state.keyspace.listener is None


def test_a_transaction_of_a_hundred_thousand_commands(siege: Siege) -> None:
    with Wire(siege.arena.server.port) as wire:
        replies = wire.run([b"MULTI"], *[[b"INCR", b"n"]] * 100_000, [b"EXEC"])
        assert replies[-1] == b"*100000\r\n" + b"".join(b":%d\r\n" % number for number in range(1, 100_001))


def _wait_until(siege: Siege, done: object) -> None:
    """Until a connection that has ended is forgotten: it is, a moment after the client saw its end."""
    assert callable(done)
    until = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < until
        siege.bystander.is_served()


def test_an_unknown_command_of_ten_thousand_words(siege: Siege) -> None:
    with Wire(siege.arena.server.port) as wire:
        reply = wire.run([b"x" * 100_000] + [b"y" * 1000] * 10_000)[0]
        assert reply.startswith(b"-ERR unknown command 'xxx")
        assert len(reply) < 500


def test_keys_and_scan_while_keys_come_and_go(siege: Siege) -> None:
    """No dict changes under an iteration; what was there all the time is listed each time."""
    steady = {b"steady:%d" % number for number in range(500)}
    with Wire(siege.arena.server.port) as wire:
        wire.run(*([b"SET", key, b"v"] for key in steady))
        enough = threading.Event()
        changing = threading.Thread(target=_come_and_go, args=(siege.arena.server, enough))
        changing.start()
        try:
            for _ in range(30):
                listed = wire.ask("KEYS", "*").split(b"\r\n")
                assert steady <= set(listed)
                assert steady <= set(_scan(wire))
        finally:
            enough.set()
            changing.join(PATIENCE)


def _come_and_go(server: kvserver.Server, enough: threading.Event) -> None:
    with Wire(server.port) as wire:
        for turn in itertools.count():
            if enough.is_set():
                break
            names = [b"passing:%d" % number for number in range(100 * (turn % 3), 100 * (turn % 3) + 100)]
            wire.run(*([b"SET", name, b"v", b"PX", b"%d" % (1 + turn % 5)] for name in names))
            wire.run([b"DEL", *names[::2]])


def _scan(wire: Wire) -> list[bytes]:
    keys: list[bytes] = []
    cursor = b"0"
    while True:
        parts = wire.ask("SCAN", cursor, "COUNT", 50).split(b"\r\n")
        cursor = parts[2]
        keys += parts[5::2]
        if cursor == b"0":
            return keys


TEN_YEARS = 10 * 365 * 24 * 3600 * 1000


@pytest.mark.parametrize("step", [-TEN_YEARS, TEN_YEARS], ids=["back", "forward"])
def test_the_wall_clock_steps(besiege: Besiege, step: int) -> None:
    """Deadlines go by it; how long something has lasted does not."""
    now = [1_800_000_000_000]
    with besiege(clock=lambda: now[0]) as siege, Wire(siege.arena.server.port) as wire:
        wire.run([b"SET", b"steady", b"v"], [b"SET", b"leased", b"v", b"EX", b"100"])
        wire.run([b"OBJECT", b"IDLETIME", b"steady"], [b"GET", b"steady"])  # access times are kept from here on
        now[0] += step
        siege.bystander.is_served()
        assert wire.ask("PTTL", "leased") == (b":%d\r\n" % (100_000 - step) if step < 0 else b":-2\r\n")
        assert wire.ask("OBJECT", "IDLETIME", "steady") == b":%d\r\n" % (max(0, step) // 1000)
        wire.ask("SET", "leased", "v", "EX", 100)
        assert wire.ask("PTTL", "leased") == b":100000\r\n"
        assert 0 <= _field(wire.ask("INFO", "server"), b"uptime_in_seconds:") < 3600
        assert 0 <= _field(wire.ask("CLIENT", "INFO"), b" age=") < 3600
        assert 0 <= _field(wire.ask("CLIENT", "INFO"), b" idle=") < 3600


def _field(text: bytes, name: bytes) -> int:
    return int(text.partition(name)[2].split()[0])


@pytest.mark.parametrize(
    "name", [b"dir", b"aclfile", b"tls-cert-file", b"tls-key-file", b"unixsocket", b"password-file"]
)
def test_30_no_path_is_set_while_it_runs(siege: Siege, name: bytes) -> None:
    for path in (b"/etc/cron.d", b"../../escape", b""):
        answer = siege.arena.ask(b"CONFIG", b"SET", name, path)
        assert answer.startswith(b"-ERR ")
        assert answer.count(b"\r\n") == 1
