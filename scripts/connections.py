#!/usr/bin/env python3
"""Ten thousand connections, idle and trickling, beside fifty busy clients: kvserver and Debian's redis-server.

    .venv/bin/python scripts/connections.py [--connections 10000] [--rounds 3] [--requests 100000]

Both are started here, on free ports of this machine, and ended here. One process opens the connections: each sends
PING, and counts once it is answered. Fifty clients of redis-benchmark run GET alone, among the idle ones, and while the
crowd sends a PING a connection, a byte at a time. Rounds are interleaved and medians reported, as a Markdown table.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import platform
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import Side, kvserver, redis

AT_ONCE = 400
"""Connections on their way at a time; fewer than the servers' backlog, so that none has to be sent twice."""
PING, PONG = b"PING\r\n", b"+PONG\r\n"
PATIENCE = 120
BUSY = 50
BYTES_A_TURN = 20
TURN_SECONDS = 0.01


@dataclass
class Result:
    """What a round showed of one server."""

    accepted: float
    """Connections a second."""
    resident: float
    """KiB a connection."""
    threads: int
    busy: dict[str, Busy] = field(default_factory=dict)


@dataclass
class Busy:
    """What the busy clients saw."""

    rate: float
    p99: float
    worst: float
    """Milliseconds, as is p99."""


class Crowd:
    """Many connections of one process."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self.socks: list[socket.socket] = []

    def gather(self, count: int) -> float:
        """Connect so many, each answered once; how many seconds that took."""
        began = time.monotonic()
        with selectors.DefaultSelector() as selector:
            coming = self._coming(count)
            for sock in itertools.islice(coming, AT_ONCE):
                selector.register(sock, selectors.EVENT_WRITE)
            while selector.get_map():
                ready = selector.select(PATIENCE)
                if not ready:
                    raise SystemExit(f"connections: {len(self.socks)} answered, and no more within {PATIENCE} s")
                for key, events in ready:
                    if self._go_on(selector, key.fileobj, events) and (following := next(coming, None)):
                        selector.register(following, selectors.EVENT_WRITE)
        return time.monotonic() - began

    def _coming(self, count: int) -> Iterator[socket.socket]:
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(self._address)
            yield sock

    def _go_on(self, selector: selectors.BaseSelector, sock: object, events: int) -> bool:
        """Send PING once connected, take its answer; whether this was the answer."""
        assert isinstance(sock, socket.socket)
        if events & selectors.EVENT_WRITE:
            sock.send(PING)
            selector.modify(sock, selectors.EVENT_READ)
            return False
        answer = sock.recv(100)
        if answer != PONG:
            raise SystemExit(f"connections: answered {answer!r} to connection {len(self.socks) + 1}")
        selector.unregister(sock)
        self.socks.append(sock)
        return True

    def trickle(self, process: subprocess.Popen[str]) -> None:
        """Send PING on all of them, a byte at a time, until a process ends; take the answers."""
        turns = itertools.cycle(itertools.product(PING, self.socks))
        while process.poll() is None:
            for byte, sock in itertools.islice(turns, BYTES_A_TURN):
                sock.send(bytes((byte,)))
                if byte == PING[0]:
                    self._drain(sock)
            time.sleep(TURN_SECONDS)

    def _drain(self, sock: socket.socket) -> None:
        with suppress(BlockingIOError):
            sock.recv(100)

    def leave(self) -> None:
        for sock in self.socks:
            sock.close()
        self.socks.clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=100_000, help="of the busy clients, each time")
    options = parser.parse_args()
    allow_descriptors(options.connections)
    flags = ("--maxclients", str(options.connections + 200))
    results: dict[str, list[Result]] = {}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        for start in (partial(kvserver, None, *flags), partial(redis, None, *flags)):
            with ExitStack() as stack:  # a new server each time: memory that was used once is not given back
                side = stack.enter_context(start())
                results.setdefault(side.name, []).append(one_round(side, options.connections, options.requests))
    print(table(results, options))
    return 0


def allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def one_round(side: Side, connections: int, requests: int) -> Result:
    alone = busy(side, requests).wait_and_read()
    before = resident(side.pid)
    crowd = Crowd(side.port)
    seconds = crowd.gather(connections)
    grown = resident(side.pid) - before
    result = Result(connections / seconds, grown / connections / 1024, threads(side.pid), {"alone": alone})
    result.busy["idle"] = busy(side, requests).wait_and_read()
    running = busy(side, requests)
    crowd.trickle(running.process)
    result.busy["trickling"] = running.wait_and_read()
    crowd.leave()
    return result


class Running:
    """redis-benchmark at work."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait_and_read(self) -> Busy:
        output, _ = self.process.communicate(timeout=PATIENCE)
        rate, _, _, _, _, p99, worst = map(float, list(csv.reader(output.splitlines()))[-1][1:8])
        return Busy(rate, p99, worst)


def busy(side: Side, requests: int) -> Running:
    command = ["redis-benchmark", "-p", side.port, "-t", "get", "-n", requests, "-c", BUSY, "-d", 32, "--csv"]
    return Running(subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True))


def resident(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def table(results: dict[str, list[Result]], options: argparse.Namespace) -> str:
    lines = [
        f"{options.connections:,} connections, {BUSY} of redis-benchmark too, median of {options.rounds} rounds;"
        f" {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "",
        "| | " + " | ".join(results) + " |",
        "|---|" + "---|" * len(results),
    ]

    def row(name: str, pick: object) -> None:
        assert callable(pick)
        values = [statistics.median(map(pick, rounds)) for rounds in results.values()]
        lines.append(f"| {name} | " + " | ".join(f"{value:,.1f}" for value in values) + " |")

    row("connections accepted and answered a second", lambda one: one.accepted)
    row("KiB resident a connection", lambda one: one.resident)
    for crowd, name in (("alone", "alone"), ("idle", "among the idle"), ("trickling", "among the trickling")):
        row(f"GET a second, {name}", lambda one, crowd=crowd: one.busy[crowd].rate)
        row(f"99th percentile, ms, {name}", lambda one, crowd=crowd: one.busy[crowd].p99)
        row(f"worst, ms, {name}", lambda one, crowd=crowd: one.busy[crowd].worst)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
