#!/usr/bin/env python3
"""Steady traffic beside everything in scripts/attacks.py, for half an hour: no reply is wrong, and nothing grows.

    .venv/bin/python scripts/soak.py [--seconds 1800] [--seed 1] [--workers 6]

Starts a server on free ports of this machine, with limits low enough that the attacks reach them, and ends it. What
must hold: every reply to the steady clients is the right one, and comes within a few seconds; the server's log has no
defect and no traceback; its memory is flat after the first fifth of the time; afterwards it has the threads and
descriptors it began with. Printed: latency percentiles by period, and what the server counted, as Markdown.
Exit status 0 if it all held.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import kvclient

PROGRAM = [sys.executable, "-m", "kvserver"]
SETTINGS = {
    "maxclients": "400",
    "maxmemory": "20mb",
    "maxmemory-policy": "allkeys-lru",
    "maxmemory-clients": "50mb",
    "request-timeout": "1",
    "write-timeout": "1",
    "client-output-buffer-limit": "pubsub 1mb 512kb 1",
    "log-format": "json",
}
PATIENCE = 30
"""Seconds for the server to come back to where it began, once all have left."""
PERIODS = 6
SLOWEST = 10.0
"""Seconds that one reply to a steady client may take, on a machine that also runs the attacks."""
MEMORY = 512 * 2**20
"""Bytes that may be resident at most. The limits leave room for 70 MB; replies of 10 MB on their way come on top."""
GROWTH = 1.25
"""The memory of the last third of the time, at most, to that of the third before it."""
WARM_UP = 300
"""Seconds that a run has to last for that to mean anything."""
ATTACKS = Path(__file__).with_name("attacks.py")
COUNTERS = (
    "total_connections_received", "rejected_connections", "total_commands_processed", "evicted_keys", "expired_keys",
    "evicted_clients", "client_request_timeout_disconnections", "client_write_timeout_disconnections",
    "client_output_buffer_limit_disconnections", "client_query_buffer_limit_disconnections",
    "client_tls_handshake_failures",
)  # fmt: skip


class SoakError(Exception):
    """Something did not hold."""


@dataclass
class Steady:
    """A client that knows what it must be answered."""

    number: int
    latencies: list[list[float]] = field(default_factory=lambda: [[] for _ in range(PERIODS)])
    calls: int = 0
    refused: int = 0
    error: BaseException | None = None

    def work(self, url: str, seconds: float, over: threading.Event) -> None:
        began = time.monotonic()
        try:
            with connect(url) as kv:
                source = random.Random(self.number)
                for turn in itertools.count():
                    if over.is_set():
                        return
                    before = time.monotonic()
                    self.turn(kv, turn, source)
                    now = time.monotonic()
                    period = min(PERIODS - 1, int((now - began) / seconds * PERIODS))
                    self.latencies[period].append(now - before)
                    over.wait(0.002)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.error = error
            over.set()

    def turn(self, kv: kvclient.Client, turn: int, source: random.Random) -> None:
        """One call, and the check of what came. A key may have been evicted, but never be somebody else's."""
        key, value = f"steady:{self.number}:{turn % 1000}", f"{self.number}:{turn}:".encode() * source.randrange(1, 50)
        self.calls += 1
        match turn % 4:
            case 0:
                kv.set(key, value)
                self.expect(kv.get(key), (value, None))
            case 1:
                self.expect(kv.echo(value), (value,))
            case 2:
                with kv.pipeline() as batch:
                    batch.set(key, value, ttl=60)
                    read = [batch.get(key) for _ in range(20)]
                    tail = batch.echo(value)
                for got in read:
                    self.expect(got.result(), (value, None))
                self.expect(tail.result(), (value,))
            case _:
                with kv.transaction() as transaction:
                    transaction.set(key, "1")
                    count = transaction.incr(key)
                self.expect(count.result(), (2,))

    def expect(self, got: object, right: tuple[object, ...]) -> None:
        if got not in right:
            raise SoakError(f"steady client {self.number} was answered {got!r:.200} in place of {right[0]!r:.200}")


def connect(url: str) -> kvclient.Client:
    """A client among many: the server may be full of attackers, and then refuses."""
    until = time.monotonic() + 30
    while True:
        try:
            return kvclient.connect(url, timeout=SLOWEST, max_connections=1)
        except kvclient.errors.CannotConnectError:
            if time.monotonic() > until:
                raise


class Server:
    """The server under test, seen from outside."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        self.process, self.log = process, log
        ready = process.stdout.readline()
        if "Ready to accept" not in ready:
            raise SoakError(f"the server did not start: {log.read_text()[-500:]}")
        self.port = int(ready.rpartition(":")[2])
        self.url = f"redis://127.0.0.1:{self.port}"
        self._proc = Path(f"/proc/{process.pid}")
        self.at_start = self.threads(), self.descriptors()
        with kvclient.connect(self.url) as kv:
            self.tls_port = int(kv.config_get("tls-port")["tls-port"])

    def resident(self) -> int:
        return int((self._proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def threads(self) -> int:
        return len(list((self._proc / "task").iterdir()))

    def descriptors(self) -> int:
        return len(list((self._proc / "fd").iterdir()))

    def check_log(self) -> None:
        for line in self.log.read_text(errors="replace").splitlines():
            if "Traceback" in line or "command.defect" in line or '"level": "error"' in line:
                raise SoakError(f"in the server's log: {line[:300]}")


@contextmanager
def served() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        flags = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*PROGRAM, "--port", "0", *flags, *tls_flags(Path(folder))],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            yield Server(process, log)
        finally:
            process.terminate()
            process.wait(30)
            if process.stdout is not None:
                process.stdout.close()


def tls_flags(folder: Path) -> list[str]:
    """TLS too, if trustme is there to make a certificate."""
    try:
        import trustme
    except ImportError:
        return []
    pem = folder / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    return ["--tls-port", "0", "--tls-cert", str(pem)]


def soak(seconds: int, seed: int, workers: int) -> str:
    """Do it; the report.

    Raises:
        SoakError: something did not hold.
    """
    with served() as server:
        over = threading.Event()
        steady = [Steady(number) for number in range(workers)]
        running = [threading.Thread(target=one.work, args=(server.url, seconds, over)) for one in steady]
        attackers = subprocess.Popen(
            [sys.executable, ATTACKS, *map(str, (server.port, server.tls_port, seconds, seed))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with attackers:
            for thread in running:
                thread.start()
            try:
                memory = watch(server, seconds, over)
            finally:
                over.set()
                for thread in running:
                    thread.join()
                rounds, wrong = attackers.communicate(timeout=60)
        judge(server, seconds, steady, memory, wrong)
        with kvclient.connect(server.url) as kv:
            counted = kv.info("stats")
        settle(server)
        return report(seconds, steady, memory, rounds, counted)


def watch(server: Server, seconds: int, over: threading.Event) -> list[int]:
    """The server's resident memory, sampled a hundred times."""
    memory = []
    for _ in range(100):
        if over.wait(seconds / 100):
            break
        if server.process.poll() is not None:
            raise SoakError(f"the server ended with {server.process.returncode}")
        memory.append(server.resident())
    return memory


def judge(server: Server, seconds: int, steady: list[Steady], memory: list[int], wrong: str) -> None:
    for one in steady:
        if one.error is not None:
            raise SoakError(f"steady client {one.number}: {type(one.error).__name__}: {one.error}")
    if wrong:
        raise SoakError(f"attackers: {wrong.strip()[-500:]}")
    server.check_log()
    if max(memory) > MEMORY:
        raise SoakError(f"too much memory: {[size // 2**20 for size in memory]} MiB")
    third = len(memory) // 3
    if seconds >= WARM_UP and max(memory[-third:]) > GROWTH * max(memory[-2 * third : -third]):
        raise SoakError(f"memory grows: {[size // 2**20 for size in memory]} MiB")


def settle(server: Server) -> None:
    """All connections have been closed: so must all threads and descriptors, in a moment."""
    until = time.monotonic() + PATIENCE
    while (now := (server.threads(), server.descriptors())) != server.at_start:
        if time.monotonic() > until:
            raise SoakError(
                f"{now} threads and descriptors are left, and there were {server.at_start} at the beginning"
            )
        time.sleep(0.1)


def report(seconds: int, steady: list[Steady], memory: list[int], rounds: str, counted: dict[str, str]) -> str:
    calls = sum(one.calls for one in steady)
    lines = [
        f"{seconds} s, {len(steady)} steady clients, {calls:,} calls, no reply wrong; resident memory after the first"
        f" fifth {min(memory[20:] or memory) // 2**20} to {max(memory[20:] or memory) // 2**20} MiB",
        "",
        "| period | calls | median, ms | 99 % | 99.9 % | worst |",
        "|---|---|---|---|---|---|",
    ]
    for period in range(PERIODS):
        times = sorted(itertools.chain.from_iterable(one.latencies[period] for one in steady))
        if times:
            shown = [times[min(len(times) - 1, int(share * len(times)))] * 1000 for share in (0.5, 0.99, 0.999, 1)]
            lines.append(f"| {period + 1} | {len(times):,} | " + " | ".join(f"{ms:.1f}" for ms in shown) + " |")
    lines += ["", "| attack | rounds |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, _, count in (line.partition(" ") for line in rounds.splitlines())]
    lines += ["", "| the server counted | |", "|---|---|"]
    lines += [f"| {name} | {int(counted[name]):,} |" for name in COUNTERS]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=6, help="steady clients")
    options = parser.parse_args()
    try:
        print(soak(options.seconds, options.seed, options.workers))
    except SoakError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
