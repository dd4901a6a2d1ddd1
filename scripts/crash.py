#!/usr/bin/env python3
"""Kill a server again and again while it is written to, and check what comes back.

Writers know what they sent and what was acknowledged. Each round starts the server on the same directory, checks, lets
the writers write for a moment, and kills it (SIGKILL), sometimes while it is loading. What must hold:

* acknowledged <= recovered <= sent, for every writer, and its counter and its last value agree;
* a transaction came back whole or not at all: the two sides of each writer's account sum to nothing;
* recovering twice gives the same.

Exit status 0 if it held in every round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis

MODES = ("always", "everysec", "no")
WRITERS = 6
PROGRAM = [sys.executable, "-m", "kvserver"]


@dataclass
class Writer:
    """One connection's writes: SET of a number and as many bytes, a counter, and a transfer between two keys."""

    name: str
    sent: int = 0
    acknowledged: int = 0
    error: BaseException | None = field(default=None, repr=False)

    def write(self, port: int) -> None:
        """Write until the server is gone."""
        try:
            with redis.Redis(port=port, retry=None, socket_timeout=30) as client:
                while True:
                    self.sent += 1
                    number = self.sent
                    with client.pipeline() as batch:
                        batch.set(f"{self.name}:value", f"{number}:" + "v" * (number * 37 % 5000))
                        batch.set(f"{self.name}:count", number)
                        batch.incrby(f"{self.name}:debit", -number).incrby(f"{self.name}:credit", number)
                        batch.set(f"{self.name}:short", 1, px=1 + number % 50)
                        batch.execute()
                    self.acknowledged = number
        except redis.ConnectionError:
            pass
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.error = error

    def check(self, client: redis.Redis, promise: bool) -> None:
        """What the server has of this writer."""
        value, count, debit, credit = client.mget(
            *(f"{self.name}:{what}" for what in ("value", "count", "debit", "credit"))
        )
        recovered = int(count or 0)
        assert recovered <= self.sent, f"{self.name}: {recovered} came back, {self.sent} were sent"
        if promise:
            assert recovered >= self.acknowledged, f"{self.name}: {recovered} came back of {self.acknowledged}"
        assert int(debit or 0) + int(credit or 0) == 0, f"{self.name}: half a transaction came back"
        if recovered:
            head, _, rest = value.partition(b":")
            assert int(head) == recovered, f"{self.name}: a value of another time"
            assert rest == b"v" * (recovered * 37 % 5000), f"{self.name}: a damaged value"
        self.sent = self.acknowledged = recovered


def start(data: Path, mode: str, rewrites: bool) -> tuple[subprocess.Popen[str], int]:
    """A server on the directory, once it is ready."""
    command = [*PROGRAM, "--port", "0", "--data-dir", str(data), "--fsync", mode]
    command += ["--auto-aof-rewrite-percentage", "10" if rewrites else "0", "--auto-aof-rewrite-min-size", "50kb"]
    process = subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Ready"), f"the server did not start on {data}"
    return process, int(line.rsplit(":", 1)[1])


def kill(process: subprocess.Popen[str]) -> None:
    """End a server without a word."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def digest(port: int) -> dict[bytes, bytes | None]:
    """Everything that does not expire."""
    with redis.Redis(port=port) as client:
        keys = sorted(key for key in client.scan_iter(count=1000) if not key.endswith(b":short"))
        return dict(zip(keys, client.mget(keys), strict=True)) if keys else {}


def kill_while_loading(data: Path, mode: str, draw: random.Random) -> None:
    """Start, and kill before it is ready, or just then."""
    command = [*PROGRAM, "--port", "0", "--data-dir", str(data), "--fsync", mode]
    process = subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.DEVNULL)
    time.sleep(draw.uniform(0.05, 0.4))
    process.kill()
    process.wait()


def one_round(data: Path, mode: str, writers: list[Writer], draw: random.Random) -> None:
    """Start, check, write, kill."""
    if draw.random() < 0.2:
        kill_while_loading(data, mode, draw)
    process, port = start(data, mode, rewrites=draw.random() < 0.7)
    try:
        with redis.Redis(port=port) as client:
            for writer in writers:
                writer.check(client, promise=True)
        if draw.random() < 0.2:
            before = digest(port)
            kill(process)
            process, port = start(data, mode, rewrites=False)
            assert digest(port) == before, "recovering twice gave something else"
        threads = [threading.Thread(target=writer.write, args=(port,)) for writer in writers]
        for thread in threads:
            thread.start()
        with contextlib.suppress(redis.RedisError), redis.Redis(port=port, retry=None) as client:
            time.sleep(draw.uniform(0.0, 0.3))
            if draw.random() < 0.5:
                client.bgrewriteaof()
                time.sleep(draw.uniform(0.0, 0.05))
        kill(process)
        for thread in threads:
            thread.join()
        for writer in writers:
            if writer.error is not None:
                raise writer.error
    finally:
        if process.poll() is None:
            kill(process)


def run(rounds: int, seed: int, modes: tuple[str, ...] = MODES) -> int:
    """Rounds of each mode, one after the other; how many writes were acknowledged."""
    draw, total = random.Random(seed), 0
    for mode in modes:
        with tempfile.TemporaryDirectory() as folder:
            writers = [Writer(f"w{number}") for number in range(WRITERS)]
            for _ in range(rounds):
                before = sum(writer.acknowledged for writer in writers)
                one_round(Path(folder), mode, writers, draw)
                total += sum(writer.acknowledged for writer in writers) - before
            process, port = start(Path(folder), mode, rewrites=False)
            with redis.Redis(port=port) as client:
                for writer in writers:
                    writer.check(client, promise=True)
            kill(process)
    return total


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="for each mode (10)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--mode", choices=MODES, action="append")
    given = parser.parse_args()
    print(f"seed {given.seed}")
    started = time.monotonic()
    total = run(given.rounds, given.seed, tuple(given.mode or MODES))
    print(f"{given.rounds} rounds of each mode, {total} writes acknowledged, in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
