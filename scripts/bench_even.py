#!/usr/bin/env python3
"""How evenly a server answers: with many keys and connections, and while something large happens beside the readers.

    .venv/bin/python scripts/bench_even.py [--keys 1000000] [--rounds 3] [--servers kvserver,redis] [--only KEYS ...]

Prints two Markdown tables. In the first are commands a second, by redis-benchmark, with ever more connections and ever
more keys. For the second, four processes read (8 of 10) and write (2 of 10) keys at random and note how long each
command took, with data kept on disk (everysec), while the server does what the line says; the least time that 99.9 % of
the commands took no longer than, and the longest. Every server is started here, and ended.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import select
import socket
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from bench_report import machine
from bench_servers import Side, start_all
from bench_workloads import DURABLE, fill

CONNECTIONS = (50, 500, 5000)
SHARES = (0.01, 0.1, 1.0)
"""Of the keys that are asked for, for the table of rates."""
PROBES = 4
PATIENCE = 300
SETTLE = 0.5
"""Seconds of undisturbed work on either side of an event."""


class Line:
    """A connection for one command after the other."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._sock.makefile("rb")

    def ask(self, *words: str) -> bytes:
        """A simple or bulk string, or a number; of an array only that it has come, whole."""
        parts = [word.encode() for word in words]
        self._sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
        return self._reply()

    def _reply(self) -> bytes:
        head = self._replies.readline()
        kind, rest = head[:1], head[1:-2]
        if kind == b"$" and rest != b"-1":
            return self._replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            for _ in range(int(rest)):
                self._reply()
        return rest

    def figure(self, section: str, name: str) -> int:
        """A number of INFO."""
        for line in self.ask("INFO", section).splitlines():
            found, _, value = line.partition(b":")
            if found.decode() == name:
                return int(value)
        raise SystemExit(f"bench: INFO has no {name}")

    def close(self) -> None:
        self._replies.close()
        self._sock.close()


def probe(port: int, keys: int, seed: int) -> int:
    """What each of the processes does until its input ends; moments and durations go out in nanoseconds."""
    chance, line, noted = random.Random(seed), Line(port), array("q")
    print("ready", flush=True)
    value = "v" * 32
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(50):
            place, reads = f"{chance.randrange(keys):014d}", chance.random() < 0.8
            begun = time.monotonic_ns()
            if reads:
                line.ask("GET", f"k:{place}")
            else:  # others, so that the keys keep their deadlines
                line.ask("SET", f"w:{place}", value)
            noted.extend((begun, time.monotonic_ns() - begun))
    sys.stdout.buffer.write(noted.tobytes())
    return 0


@dataclass(frozen=True)
class Seen:
    """What the probes saw, in milliseconds."""

    p999: float
    longest: float
    seconds: float  # that the event took


def watched(port: int, keys: int, act: Callable[[], object]) -> Seen:
    """Have the probes work while something is done."""
    with ExitStack() as stack:
        workers = []
        for seed in range(PROBES):
            command = [sys.executable, __file__, "--probe", str(port), str(keys), str(seed)]
            pipe = subprocess.PIPE
            workers.append(stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe)))
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
        time.sleep(SETTLE)
        begun = time.monotonic_ns()
        act()
        ended = time.monotonic_ns()
        time.sleep(SETTLE)
        durations = []
        for worker in workers:
            noted = array("q")
            noted.frombytes(worker.communicate(timeout=PATIENCE)[0])
            spans = zip(noted[::2], noted[1::2], strict=True)
            durations += [took for at, took in spans if at + took > begun and at < ended]
    durations.sort()
    return Seen(durations[len(durations) * 999 // 1000] / 1e6, durations[-1] / 1e6, (ended - begun) / 1e9)


# What happens meanwhile


def nothing(_line: Line, _keys: int) -> None:
    time.sleep(2)


def list_keys(line: Line, _keys: int) -> None:
    line.ask("KEYS", "*")


def rewrite(line: Line, _keys: int) -> None:
    line.ask("BGREWRITEAOF")
    while line.figure("persistence", "aof_rewrite_in_progress"):
        time.sleep(0.02)


def expire(line: Line, keys: int) -> None:
    """Until the server itself has removed all that were due at once; see give_deadlines()."""
    while line.figure("stats", "expired_keys") < keys:
        time.sleep(0.02)


def flush(line: Line, _keys: int) -> None:
    line.ask("FLUSHALL")


EVENTS: dict[str, Callable[[Line, int], None]] = {
    "nothing": nothing, "KEYS *": list_keys, "a rewrite of the journal": rewrite, "all keys expire": expire,
    "FLUSHALL": flush,
}  # fmt: skip


def give_deadlines(port: int, keys: int) -> None:
    """Have all keys end at one moment; returns just before it."""
    moment = time.time() + 3 + keys / 25_000
    deadline = f"{moment * 1000:.0f}"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock, sock.makefile("rb") as replies:
        for start in range(0, keys, 1000):
            places = range(start, min(start + 1000, keys))
            head = "*3\r\n$9\r\nPEXPIREAT\r\n$16\r\n"
            sock.sendall("".join(f"{head}k:{place:014d}\r\n$13\r\n{deadline}\r\n" for place in places).encode())
            for _ in places:
                replies.readline()
    if time.time() > moment - SETTLE:
        raise SystemExit("bench: the server took too long to be told when the keys end")
    time.sleep(max(0.0, moment - time.time() - SETTLE - 0.1))


def events(side: Side, keys: int, names: list[str]) -> dict[str, Seen]:
    """One round of one server: each event with all keys there."""
    line, seen = Line(side.port), {}
    for name in names:
        line.ask("FLUSHALL")
        line.ask("CONFIG", "RESETSTAT")
        fill(side.port, keys, "k")
        if name == "all keys expire":
            give_deadlines(side.port, keys)
        seen[name] = watched(side.port, keys, partial(EVENTS[name], line, keys))
    line.close()
    return seen


# Rates


def rate(side: Side, connections: int, keys: int) -> float:
    command = ["redis-benchmark", "-p", side.port, "-t", "get", "-n", 60_000, "-c", connections, "-r", keys, "--csv"]
    output = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    return float(list(csv.reader(output.splitlines()))[-1][1])


def rates(sides: list[Side], most_keys: int, rounds: int) -> str:
    """By connections, then by keys, as a table."""
    found: dict[str, dict[str, list[float]]] = {}
    for share in SHARES:
        keys = int(most_keys * share)
        for side in sides:
            fill(side.port, keys, "key")
        for _ in range(rounds):
            for side in sides:
                found.setdefault(f"{keys:,} keys, 50 connections", {}).setdefault(side.name, []).append(
                    rate(side, 50, keys)
                )
    for connections in CONNECTIONS[1:]:
        for _ in range(rounds):
            for side in sides:
                found.setdefault(f"{most_keys:,} keys, {connections:,} connections", {}).setdefault(
                    side.name, []
                ).append(rate(side, connections, most_keys))
    lines = [
        "| GET | " + " | ".join(f"{side.name}, commands/s" for side in sides) + " |",
        "|---|" + "---|" * len(sides),
    ]
    for name, row in found.items():
        cells = (f"{statistics.median(row[side.name]):,.0f}" for side in sides)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stalls(servers: list[str], keys: int, rounds: int, names: list[str]) -> str:
    """The events, as a table."""
    found: dict[str, dict[str, list[Seen]]] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for server in servers:
            with ExitStack() as stack:
                side = stack.enter_context(DURABLE[server]("everysec"))
                for name, seen in events(side, keys, names).items():
                    found.setdefault(name, {}).setdefault(side.name, []).append(seen)
    columns = list(next(iter(found.values())))
    lines = [
        "| meanwhile | " + " | ".join(f"{each}: 99.9 %, longest (ms); it took (s)" for each in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name, row in found.items():
        cells = []
        for column in columns:
            middle = [
                statistics.median(getattr(seen, part) for seen in row[column])
                for part in ("p999", "longest", "seconds")
            ]
            cells.append("{:.1f}, {:.0f}; {:.2f}".format(*middle))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    if sys.argv[1:2] == ["--probe"]:
        return probe(*map(int, sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", default="kvserver,redis", help=f"of {','.join(DURABLE)}")
    parser.add_argument(
        "--only", nargs="+", default=["rates", *EVENTS], metavar="LINE", help=", ".join(["rates", *EVENTS])
    )
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    servers, parts = options.servers.split(","), [machine()]
    if "rates" in options.only:
        with ExitStack() as stack:
            parts.append(rates(start_all(stack, servers), options.keys, options.rounds))
    if names := [name for name in EVENTS if name in options.only]:
        parts.append(stalls(servers, options.keys, options.rounds, names))
    print("\n\n".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
