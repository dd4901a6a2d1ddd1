"""What watches the server, beside Valkey: the logs of commands, latency, MONITOR, statistics by command, CLIENT PAUSE.

Times and addresses are masked; everything else is the same.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import Any, cast

import pytest
from conformance.oracle import Wire, parse

import kvserver

LINES = (
    """
CONFIG SET slowlog-log-slower-than 0 commandlog-request-larger-than 100 commandlog-reply-larger-than 100
SLOWLOG RESET
COMMANDLOG RESET large-request
COMMANDLOG RESET large-reply
SET k v
SLOWLOG LEN
GET k
FOO
SET k
AUTH secret
AUTH default secret
HELLO 2 AUTH default secret
CONFIG SET requirepass ''
CLIENT SETNAME me
SET long {long}
GET long
MSET {many}
MULTI
GET k
SET k w
EXEC
SLOWLOG GET 0
CONFIG SET slowlog-log-slower-than 1000000 commandlog-request-larger-than -1 commandlog-reply-larger-than -1
SLOWLOG GET -1
SLOWLOG GET 3
SLOWLOG GET
COMMANDLOG GET 2 SLOW
COMMANDLOG GET -1 large-request
COMMANDLOG GET -1 LARGE-REPLY
COMMANDLOG LEN large-request
COMMANDLOG LEN large-reply
SLOWLOG LEN
SLOWLOG GET -2
SLOWLOG GET x
SLOWLOG GET 1 2
SLOWLOG get 1 2
SLOWLOG FOO
COMMANDLOG LEN foo
COMMANDLOG GET x slow
COMMANDLOG RESET foo
SLOWLOG RESET
SLOWLOG LEN
COMMANDLOG RESET large-reply
COMMANDLOG LEN large-reply
CONFIG SET slowlog-max-len 2 slowlog-log-slower-than 0
PING
PING
PING
SLOWLOG LEN
CONFIG SET commandlog-slow-execution-max-len 128 commandlog-execution-slower-than 10000
CONFIG GET slowlog*
CONFIG GET commandlog*
LATENCY LATEST
LATENCY HISTORY foo
LATENCY RESET
LATENCY RESET foo bar
LATENCY HISTORY
LATENCY HISTOGRAM foo
MEMORY USAGE nothing
MEMORY USAGE k SAMPLES -1
MEMORY USAGE k FOO
MEMORY USAGE k FOO 1
MEMORY USAGE k SAMPLES x
MEMORY USAGE k SAMPLES
MEMORY PURGE
MEMORY PURGE x
MEMORY FOO
CLIENT PAUSE x
CLIENT PAUSE -1
CLIENT PAUSE 1 FOO
CLIENT PAUSE 0
CLIENT UNPAUSE
CLIENT UNPAUSE x
SCRIPT EXISTS x y
SCRIPT FLUSH FOO
SCRIPT FLUSH SYNC x
SCRIPT FLUSH ASYNC
SCRIPT FOO
EVALSHA abc 0
EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 a
EVAL x
""".strip()
    .format(long="x" * 300, many=" ".join(map(str, range(50))))
    .splitlines()
)


def masked(reply: bytes) -> bytes:
    """Without times of day, durations, and ports."""
    reply = re.sub(rb"127\.0\.0\.1:\d+", b"ADDRESS", reply)
    reply = re.sub(rb"(\*6\r\n:\d+\r\n):\d+\r\n:\d+\r\n", rb"\1TIMES", reply)
    return re.sub(rb"(\$\d+\r\n)(?=ADDRESS)", b"", reply)


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_logs(server: kvserver.Server, valkey_port: int, protocol: int) -> None:
    with Wire(server.port) as ours, Wire(valkey_port) as theirs:
        numbers = []
        for wire in (ours, theirs):
            wire.ask("FLUSHALL")
            wire.ask("HELLO", protocol)
            wire.ask("CONFIG", "RESETSTAT")
            numbers.append(_next_number(wire))
        for line in LINES:
            replies = []
            for wire, number in zip((ours, theirs), numbers, strict=True):
                wire.send(line.encode() + b"\r\n")
                replies.append(_counted_from(number, masked(wire.read())))
            if line.startswith("HELLO"):
                continue
            if " large-" in line.lower():  # the numbers of these begin with the server
                replies = [re.sub(rb"ENTRY \S+", b"", reply) for reply in replies]
            assert replies[0] == replies[1], line


def _next_number(wire: Wire) -> int:
    """Entries are numbered for as long as a server runs."""
    wire.ask("CONFIG", "SET", "slowlog-log-slower-than", 0)
    wire.ask("PING")
    wire.ask("CONFIG", "SET", "slowlog-log-slower-than", 10_000_000)
    newest = cast("list[list[int]]", parse(wire.ask("SLOWLOG", "GET", 1)))
    return newest[0][0]


def _counted_from(number: int, reply: bytes) -> bytes:
    return re.sub(rb"\*6\r\n:(\d+)\r\nTIMES", lambda match: b"ENTRY %d " % (int(match[1]) - number), reply)


WATCHED = r"""
GET k
SET k "a\"\x00\xff\n\r\t\a\b\\"
set  K 'lower case'
FOO
GET
AUTH secret
AUTH default secret
HELLO 2 AUTH default secret
HELLO 2 AUTH default secret SETNAME x
CONFIG GET x
MULTI
GET k
INCR k
EXEC
MULTI
FOO
EXEC
MULTI
GET k
DISCARD
SELECT 3
GET k
SELECT 0
SUBSCRIBE z
UNSUBSCRIBE
PING
PING hello
CLIENT ID
CLIENT LIST
PUBLISH c m
WATCH k
UNWATCH
SETBIT k 1 1
INFO server
DBSIZE
RESET
QUIT
""".strip().splitlines()


def test_monitor(server: kvserver.Server, valkey_port: int) -> None:
    seen = []
    for port in (server.port, valkey_port):
        with Wire(port) as watcher:
            assert watcher.ask("MONITOR") == b"+OK\r\n"
            assert watcher.ask("GET", "k") == b"-ERR Replica can't interact with the keyspace\r\n"
            with Wire(port) as speaker:
                for line in WATCHED:
                    speaker.send(line.encode() + b"\r\n")
                    speaker.read()
            watcher._sock.shutdown(socket.SHUT_WR)
            text = watcher._file.read()
        lines = [line for line in text.split(b"\r\n") if line]
        assert all(re.fullmatch(rb'\+\d+\.\d{6} \[\d+ 127\.0\.0\.1:\d+\] ".*', line) for line in lines)
        seen.append([re.sub(rb"^\+\S+ (\[\d+) \S+\]", rb"\1", line) for line in lines])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("leave", ["RESET", "QUIT"])
def test_monitor_ends(server: kvserver.Server, leave: str) -> None:
    with Wire(server.port) as watcher, Wire(server.port) as other:
        watcher.ask("MONITOR")
        assert b" flags=O " in other.ask("CLIENT", "LIST")
        watcher.ask(leave)
        if leave == "RESET":
            other.ask("SET", "k", "v")
            assert watcher.ask("GET", "k") == b"$1\r\nv\r\n"
    server.stop()  # by then the connection has been forgotten
    assert not server._state.monitors.sessions
    assert not server._state.special


def test_statistics_by_command(server: kvserver.Server, valkey_port: int) -> None:
    found = []
    for port in (server.port, valkey_port):
        with Wire(port) as wire, Wire(port) as ended:
            wire.ask("FLUSHALL")
            wire.ask("CONFIG", "RESETSTAT")
            ended.run(*[[b"GET", b"x"]] * 3)
            ended.ask("QUIT")
            wire.run(
                [b"GET", b"x"], [b"SET", b"x"], [b"SET", b"k", b"v"], [b"INCR", b"k"], [b"FOO"], [b"CLIENT", b"ID"]
            )
            wire.run([b"MULTI"], [b"GET", b"x"], [b"INCR", b"k"], [b"GET"], [b"EXEC"])
            wire.run([b"MULTI"], [b"GET", b"x"], [b"INCR", b"k"], [b"EXEC"])
            stats = cast("bytes", parse(wire.ask("INFO", "commandstats")))
            latency = cast("bytes", parse(wire.ask("INFO", "latencystats")))
            histogram = cast("list[Any]", parse(wire.ask("LATENCY", "HISTOGRAM", "get", "client", "nothing")))
        found.append(
            (
                sorted(re.sub(rb",usec[^=]*=[\d.]+", b"", line) for line in stats.splitlines()),
                sorted(re.sub(rb"=[\d.]+", b"=", line) for line in latency.splitlines()),
                [(name, of[1]) for name, of in zip(histogram[::2], histogram[1::2], strict=True)],
            )
        )
        assert all(of[3][1] <= of[1] for of in histogram[1::2])
    ours, theirs = found
    theirs[0][:] = [line for line in theirs[0] if not line.startswith(b"cmdstat_config|resetstat")]
    ours[0][:] = [line for line in ours[0] if not line.startswith(b"cmdstat_config|resetstat")]
    assert ours[0] == theirs[0]
    assert [line for line in ours[1] if b"resetstat" not in line] == [
        line for line in theirs[1] if b"resetstat" not in line
    ]
    assert sorted(ours[2]) == sorted(theirs[2])


def test_default_info_leaves_out_what_is_long(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        assert b"# Commandstats" not in wire.ask("INFO")
        for section in ("all", "everything", "commandstats"):
            assert b"# Commandstats" in wire.ask("INFO", section)


def test_slow_commands_are_spikes(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        wire.ask("CONFIG", "SET", "latency-monitor-threshold", 20)
        assert b"No command has taken 20 ms" in wire.ask("LATENCY", "DOCTOR")
        wire.ask("DEBUG", "SLEEP", "0.03")
        wire.ask("DEBUG", "SLEEP", "0.05")
        latest = cast("list[list[Any]]", parse(wire.ask("LATENCY", "LATEST")))
        (name, unix, last, worst, total, count) = latest[0]
        assert (len(latest), name, count) == (1, b"command", 2)
        assert abs(unix - time.time()) < 60
        assert 50 <= last <= worst <= total < 10_000
        assert total >= 80
        history = cast("list[list[int]]", parse(wire.ask("LATENCY", "HISTORY", "command")))
        assert 1 <= len(history) <= 2  # at most one a second
        assert b"command: 2 spikes" in wire.ask("LATENCY", "DOCTOR")
        entries = cast("list[list[Any]]", parse(wire.ask("SLOWLOG", "GET")))
        assert [entry[3] for entry in entries] == [[b"DEBUG", b"SLEEP", b"0.05"], [b"DEBUG", b"SLEEP", b"0.03"]]
        assert entries[0][2] >= 50_000
        assert parse(wire.ask("LATENCY", "RESET", "command")) == 1
        assert parse(wire.ask("LATENCY", "LATEST")) == []


def test_waiting_by_design_is_not_slow(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        wire.ask("WAIT", 1, 50)
        wire.ask("PING")
        assert parse(wire.ask("SLOWLOG", "LEN")) == 0


def test_memory(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        wire.ask("SET", "k", b"x" * 10_000)
        assert 10_000 < cast("int", parse(wire.ask("MEMORY", "USAGE", "k"))) < 10_500
        wire.ask("EXPIRE", "k", 100)
        assert cast("int", parse(wire.ask("MEMORY", "USAGE", "k", "SAMPLES", 0))) > 10_200
        wire.ask("HELLO", 3)
        stats = cast("dict[bytes, Any]", parse(wire.ask("MEMORY", "STATS")))
        assert stats[b"keys.count"] == 1
        assert stats[b"total.allocated"] >= stats[b"dataset.bytes"] >= 0
        assert set(stats[b"db.0"]) == {b"overhead.hashtable.main", b"overhead.hashtable.expires"}
        assert re.search(rb"process (once used|uses) \d+ MB", wire.ask("MEMORY", "DOCTOR"))
        assert b"blocks of memory" in wire.ask("MEMORY", "MALLOC-STATS")


def _in_a_thread(port: int, *words: str) -> tuple[threading.Thread, list[bytes]]:
    replies: list[bytes] = []

    def ask() -> None:
        with Wire(port) as wire:
            replies.append(wire.ask(*words))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, replies


@pytest.mark.parametrize(("mode", "command", "waits"), [
    ("WRITE", "SET k v", True), ("WRITE", "PUBLISH c m", True), ("WRITE", "GET k", False), ("WRITE", "PING", False),
    ("ALL", "GET k", True), ("ALL", "PING", True),
])  # fmt: skip
def test_a_pause_holds_up(server: kvserver.Server, mode: str, command: str, waits: bool) -> None:
    with Wire(server.port) as wire:
        assert wire.ask("CLIENT", "PAUSE", 150, mode) == b"+OK\r\n"
        began = time.monotonic()
        thread, replies = _in_a_thread(server.port, *command.split())
        thread.join(30)
        assert replies
        assert (time.monotonic() - began > 0.1) is waits


def test_a_pause_of_writes_is_ended(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        wire.ask("CLIENT", "PAUSE", 10_000_000, "WRITE")
        thread, replies = _in_a_thread(server.port, "SET", "k", "v")
        assert b"paused_actions:write\r\n" in wire.ask("INFO", "clients")
        wire.ask("CLIENT", "UNPAUSE")
        thread.join(30)
        assert replies == [b"+OK\r\n"]
        assert b"paused_actions:none\r\n" in wire.ask("INFO", "clients")
        assert not server._state.special


def test_a_server_stops_in_a_pause() -> None:
    with kvserver.Server(port=0) as server, Wire(server.port) as wire, Wire(server.port) as held:
        wire.ask("CLIENT", "PAUSE", 10_000_000, "ALL")
        held.send(b"GET k\r\n")
        began = time.monotonic()
        assert server.stop()
        assert time.monotonic() - began < 2
