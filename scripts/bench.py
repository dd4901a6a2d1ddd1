#!/usr/bin/env python3
"""Compare kvserver with Debian's redis-server, side by side in one run, by redis-benchmark.

    .venv/bin/python scripts/bench.py [--rounds 5] [--clients 50] [--size 32] [--fsync always|everysec|no]

With --fsync both keep their data on disk, in folders under the present one, with the same setting.

Both are started here, on free ports of this machine, and ended here. Rounds are interleaved, so that whatever else
the machine does meets both. The medians and their ratios are printed as a Markdown table; server CPU time a command
(user + system) stands beside the rates, since it is the steadier figure on a shared machine.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TESTS = ("set", "get")
PIPELINES = (1, 16)
REQUESTS = {1: 60_000, 16: 320_000}


@dataclass
class Side:
    """One server and what was measured of it, by (test, pipeline depth)."""

    name: str
    port: int
    pid: int
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    cpu: dict[tuple[str, int], list[float]] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--size", type=int, default=32, help="bytes a value")
    parser.add_argument("--fsync", choices=("always", "everysec", "no"), help="keep the data on disk")
    options = parser.parse_args()
    for program in ("redis-server", "redis-benchmark"):
        if shutil.which(program) is None:
            print(f"bench: {program} is not installed (Debian: redis-server, redis-tools).", file=sys.stderr)
            return 2
    with ExitStack() as stack:
        sides = [stack.enter_context(start(options.fsync)) for start in (kvserver, redis)]
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for depth in PIPELINES:
                for test in TESTS:
                    for side in sides:
                        measure(side, test, depth, options.clients, options.size)
        print(table(*sides, options))
    return 0


@contextmanager
def kvserver(fsync: str | None = None, *flags: str) -> Iterator[Side]:
    command = [sys.executable, "-m", "kvserver", "--port", "0", "--log-level", "error", *flags]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        command += ["--data-dir", folder, "--fsync", fsync] if fsync else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().rpartition(":")[2])
            yield Side("kvserver", port, process.pid)
        finally:
            end(process)


@contextmanager
def redis(fsync: str | None = None, *flags: str) -> Iterator[Side]:
    for port in range(16379, 16479):  # redis-server takes no free port by itself; it says so when one is taken
        command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "yes" if fsync else "no"]
        with tempfile.TemporaryDirectory(dir=".") as folder:
            command += ["--dir", folder, "--appendfsync", fsync or "no", *flags]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            try:
                if any("Ready to accept" in line for line in process.stdout):
                    yield Side("redis-server", port, process.pid)
                    return
            finally:
                end(process)
    raise SystemExit("bench: no port is free for redis-server")


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


def measure(side: Side, test: str, depth: int, clients: int, size: int) -> None:
    requests = REQUESTS[depth]
    command = ["redis-benchmark", "-p", side.port, "-t", test, "-n", requests, "-c", clients, "-d", size, "-P", depth]
    before = cpu_seconds(side.pid)
    output = subprocess.run([*map(str, command), "--csv"], capture_output=True, text=True, check=True, timeout=120)
    spent = cpu_seconds(side.pid) - before
    rate = float(list(csv.reader(output.stdout.splitlines()))[-1][1])
    side.rates.setdefault((test, depth), []).append(rate)
    side.cpu.setdefault((test, depth), []).append(spent / requests * 1e6)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(ours: Side, theirs: Side, options: argparse.Namespace) -> str:
    lines = [
        f"{options.clients} connections, {options.size}-byte values, median of {options.rounds} interleaved rounds"
        f" (lowest to highest); {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "",
        "| command | deep | kvserver, commands/s | redis-server | ratio | kvserver, CPU us a command | redis-server |",
        "|---|---|---|---|---|---|---|",
    ]
    for depth in PIPELINES:
        for test in TESTS:
            rates, rivals = ours.rates[test, depth], theirs.rates[test, depth]
            cpu, rival_cpu = (statistics.median(side.cpu[test, depth]) for side in (ours, theirs))
            ratio = statistics.median(rates) / statistics.median(rivals)
            lines.append(
                f"| {test.upper()} | {depth} | {spread(rates)} | {spread(rivals)} | **{ratio:.2f}**"
                f" | {cpu:.1f} | {rival_cpu:.1f} |"
            )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


if __name__ == "__main__":
    sys.exit(main())
