"""What the servers are asked to do, and what that takes: commands a second, server CPU time, context switches."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench_servers import Side, compiled, cpu_seconds, kvserver, redis, resident, valkey

PATIENCE = 300
ONE_RUN = 60
"""Seconds for one run of redis-benchmark; they take a few."""
WORKER = Path(__file__).with_name("bench_worker.py")
LIBRARIES = {"resp": ("kvclient", "redis-py"), "memcache": ("pymemcache",), "manager": ("manager",)}


@dataclass(frozen=True)
class Sample:
    """One run of one workload on one server."""

    rate: float  # commands a second
    cpu: float  # microseconds of the server's CPU time (user + system) a command
    switches: float | None = None  # context switches of the server a command


@dataclass(frozen=True)
class Workload:
    """Something to do, ``requests`` times, to one server."""

    name: str
    requests: int
    run: Callable[[Side, int], Sample]
    speaks: tuple[str, ...] = ("resp",)
    easy: bool = False  # any server can do it
    bare: bool = False  # it is GET and SET by a few connections

    def suits(self, side: Side) -> bool:
        """Whether a server can do it, and in a reasonable time."""
        return side.speaks in self.speaks and (side.does == "all" or getattr(self, side.does))


# By redis-benchmark


def by_redis_benchmark(test: str, depth: int, clients: int, size: int, requests: int) -> Workload:
    def run(side: Side, count: int) -> Sample:
        command = ["redis-benchmark", "-p", side.port, "-t", test, "-n", count, "-c", clients, "-d", size, "-P", depth]
        put_value(side.port, size)
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as counted:
            before = cpu_seconds(side.pid)
            output = _output([*_counting(side.pid, counted.name), *map(str, command), "--csv"])
            cpu = (cpu_seconds(side.pid) - before) / count * 1e6
            found = re.search(r"^(\d+),", counted.read(), re.MULTILINE)
        rate = float(list(csv.reader(output.splitlines()))[-1][1])
        return Sample(rate, cpu, int(found[1]) / count if found else None)

    what = {"incr": "INCR", "mset": f"MSET of 10 times {shown(size)}"}.get(test, f"{test.upper()} of {shown(size)}")
    crowd = "1 connection" if clients == 1 else f"{clients} connections"
    deep = f", {depth} deep" if depth > 1 else ""
    bare = clients <= 50 and size == 32 and test in ("get", "set")
    return Workload(f"{what}, {crowd}{deep}", requests, run, easy=bare and depth == 1, bare=bare)


def put_value(port: int, size: int) -> None:
    """Set the key that redis-benchmark reads, which otherwise has what some other workload has left there."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(b"*3\r\n$3\r\nSET\r\n$16\r\nkey:__rand_int__\r\n$%d\r\n%b\r\n" % (size, b"v" * size))
        if not sock.recv(100).startswith(b"+OK"):
            raise SystemExit("bench: a server does not take what is set")


def _counting(pid: int, file: str) -> list[str]:
    """What a command is put behind to have the server's context switches counted meanwhile, if there is perf."""
    if shutil.which("perf") is None:
        return []
    return ["perf", "stat", "-x", ",", "-o", file, "-e", "context-switches", "-p", str(pid), "--"]


def _output(command: list[str]) -> str:
    """What redis-benchmark prints; a run that takes far too long is begun anew."""
    for _ in range(3):
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=ONE_RUN).stdout
        except subprocess.TimeoutExpired:
            print(f"bench: no end within {ONE_RUN} s, so once more: {' '.join(command)}", file=sys.stderr)
    raise SystemExit("bench: redis-benchmark does not come to an end")


def shown(size: int) -> str:
    for unit, factor in (("MB", 1_000_000), ("KB", 1000)):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"


# By Python clients


def by_python(library: str, work: str, processes: int, requests: int) -> Workload:
    speaks = tuple(kind for kind, libraries in LIBRARIES.items() if library in libraries)

    def run(side: Side, count: int) -> Sample:
        each = max(1, count // processes)
        before = cpu_seconds(side.pid)
        rate = _work(library, work, side.port, each, processes)
        return Sample(rate, (cpu_seconds(side.pid) - before) / (each * processes) * 1e6)

    title = {"reads": "GET", "mixed": "mixed, Zipf", "pipelines": "pipelines of 100 SETs"}[work]
    noun = "process" if processes == 1 else "processes"
    return Workload(f"{title}, {library}, {processes} {noun}", requests, run, speaks, easy=True)


def _work(library: str, work: str, port: int, each: int, processes: int) -> float:
    with ExitStack() as stack:
        workers = []
        for seed in range(processes):
            command = [sys.executable, str(WORKER), library, work, str(port), str(each), str(seed)]
            pipe = subprocess.PIPE
            workers.append(stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)))
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise SystemExit(f"bench: {library} cannot do this with the server")
        outputs = [worker.communicate("\n", timeout=PATIENCE)[0] for worker in workers]
    return each * processes / max(map(float, outputs))


# Of memory


def memory_by_key(side: Side, count: int) -> float:
    """Bytes that are resident for each key of 16 bytes with a value of 32."""
    before = resident(side.pid)
    fill(side.port, count, "m")
    grown = resident(side.pid) - before
    with socket.create_connection(("127.0.0.1", side.port), timeout=PATIENCE) as sock:
        sock.sendall(b"FLUSHALL\r\n")
        sock.recv(100)
    return grown / count


def fill(port: int, count: int, prefix: str) -> None:
    """Set so many keys of 16 bytes, by pipelines of a thousand. With "key" they are those of redis-benchmark."""
    value = b"v" * 32
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock, sock.makefile("rb") as replies:
        for start in range(0, count, 1000):
            keys = [
                f"{prefix}:{number:0{15 - len(prefix)}d}".encode() for number in range(start, min(start + 1000, count))
            ]
            sock.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$16\r\n%b\r\n$32\r\n%b\r\n" % (key, value) for key in keys))
            for _ in keys:
                if replies.readline() != b"+OK\r\n":
                    raise SystemExit("bench: a server does not take what is set")


def memory_by_connection(side: Side, count: int) -> float:
    """Bytes that are resident for each connection that has sent PING and waits."""
    before = resident(side.pid)
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", side.port), timeout=PATIENCE))
            sock.sendall(b"PING\r\n")
            sock.recv(100)
        return (resident(side.pid) - before) / count


# With the disk

DURABLE = {"kvserver": kvserver, "compiled": compiled, "redis": redis, "valkey": valkey}


def loading_seconds(name: str, keys: int) -> float:
    """How long a server takes to start with so many keys on its disk."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as folder:
        with DURABLE[name]("no", folder=str(Path(folder).resolve())) as side:
            fill(side.port, keys, "l")
        begun = time.perf_counter()
        with DURABLE[name]("no", folder=str(Path(folder).resolve())):
            return time.perf_counter() - begun


# Which there are


def every(scale: float) -> list[Workload]:
    """All workloads, with ``scale`` times the usual number of requests."""

    def some(requests: int) -> int:
        return max(100, round(requests * scale))

    def usual(clients: int, depth: int) -> int:
        return some(4000 if clients == depth == 1 else 20_000 * (1 + depth // 4))

    found = [
        by_redis_benchmark(test, depth, clients, 32, usual(clients, depth))
        for test, depth, clients in itertools.product(("get", "set", "incr", "mset"), (1, 16), (1, 50, 500))
    ]
    found += [
        by_redis_benchmark(test, 1, 50 if size < 100_000 else 10, size, some(max(300, 20_000_000 // (size + 1000))))
        for test, size in itertools.product(("get", "set"), (10, 1000, 100_000, 1_000_000))
    ]
    found += [
        by_python(library, work, processes, some(4000))
        for library, work, processes in itertools.product(
            ("kvclient", "redis-py", "pymemcache", "manager"), ("reads", "mixed"), (1, 4)
        )
    ]
    found += [
        by_python(library, "pipelines", processes, some(40_000))
        for library, processes in itertools.product(("kvclient", "redis-py"), (1, 4))
    ]
    return found


def durable(scale: float) -> list[Workload]:
    """What is asked of servers that keep their data on disk."""
    requests = max(100, round(10_000 * scale))
    return [by_redis_benchmark("set", depth, 50, 32, requests * (1 + depth // 4)) for depth in (1, 16)]
