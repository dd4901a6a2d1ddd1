#!/usr/bin/env python3
"""Compare how much of a cache's traffic kvserver and Debian's redis-server answer, given the same memory.

    .venv/bin/python scripts/hitratio.py [--operations 400000] [--size 1000] [--keys 100000] [--memory 10]

Both are started here with a limit of so many MB for the data (Redis' own start-up use comes on top of it) and each
policy, and get the same traces: each key is read, and written if it was not there. The traces: Zipf's distribution with
exponents 0.8 and 1.0, the latter with a fifth of the reads taken by scans over keys that are read once, and with a
popularity that drifts. Printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from bench import Side, kvserver, redis

import kvclient

TOGETHER = 50
POLICIES = ("allkeys-lru", "allkeys-lfu")


def zipf(keys: int, exponent: float, source: random.Random) -> Callable[[], int]:
    """A function that draws a key's number."""
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return lambda: bisect_left(weights, source.random() * weights[-1])


def steady(keys: int, exponent: float) -> Iterator[int]:
    """The same popularity all the time."""
    draw = zipf(keys, exponent, random.Random(1))
    while True:
        yield draw()


def scanned(keys: int) -> Iterator[int]:
    """A fifth of the reads are scans of a thousand keys each, which are not read again."""
    source = random.Random(2)
    draw, next_scanned = zipf(keys, 1.0, source), keys
    while True:
        if source.random() < 0.25 / 1000:
            yield from range(next_scanned, next_scanned + 1000)
            next_scanned += 1000
        else:
            yield draw()


def drifting(keys: int) -> Iterator[int]:
    """What is popular changes: every hundred reads all ranks move on by seven keys."""
    draw = zipf(keys, 1.0, random.Random(3))
    for number in itertools.count():
        yield (draw() + number // 100 * 7) % keys


TRACES: dict[str, Callable[[int], Iterator[int]]] = {
    "Zipf 0.8": lambda keys: steady(keys, 0.8),
    "Zipf 1.0": lambda keys: steady(keys, 1.0),
    "Zipf 1.0, scans": scanned,
    "Zipf 1.0, drifting": drifting,
}


def main() -> int:
    """Run every trace on both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--operations", type=int, default=400_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=1000, help="bytes a value")
    parser.add_argument("--memory", type=int, default=10, help="MB of data")
    options = parser.parse_args()
    print(f"{options.memory} MB of data, {options.keys} keys, values of {options.size} bytes\n")
    print("| trace | policy | kvserver | Redis | ratio | keys kept |\n|---|---|---|---|---|---|")
    with ExitStack() as stack:
        sides = [stack.enter_context(start(None)) for start in (kvserver, redis)]
        for name, trace in TRACES.items():
            for policy in POLICIES:
                (ours, kept), (theirs, kept_there) = (
                    hit_ratio(
                        side, policy, itertools.islice(trace(options.keys), options.operations),
                        options.memory * 1024**2, options.size,
                    ) for side in sides
                )  # fmt: skip
                print(f"| {name} | {policy} | {ours:.3f} | {theirs:.3f} | {ours / theirs:.2f} | {kept}, {kept_there} |")
    return 0


def hit_ratio(side: Side, policy: str, trace: Iterator[int], memory: int, size: int) -> tuple[float, int]:
    """The part of the trace's second half that was answered, and how many keys there were at the end."""
    hits = reads = 0
    value = b"v" * size
    with kvclient.connect(f"redis://127.0.0.1:{side.port}") as client:
        client.flushall()
        startup = int(client.info("memory")["used_memory_startup"])
        client.config_set({"maxmemory-policy": policy, "maxmemory": str(memory + startup)})
        numbers = list(trace)
        for start in range(0, len(numbers), TOGETHER):
            keys = [b"key:%d" % number for number in numbers[start : start + TOGETHER]]
            with client.pipeline() as batch:
                found = [batch.get(key) for key in keys]
            missing = {key for key, future in zip(keys, found, strict=True) if future.result() is None}
            with client.pipeline() as batch:
                for key in missing:
                    batch.set(key, value)
            if start >= len(numbers) // 2:
                reads += len(keys)
                hits += sum(future.result() is not None for future in found)
        return hits / reads, client.dbsize()


if __name__ == "__main__":
    sys.exit(main())
