#!/usr/bin/env python3
"""One process of Python clients for scripts/bench.py: waits for a line, does its work, prints the seconds it took.

python scripts/bench_worker.py LIBRARY WORK PORT OPERATIONS SEED
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

VALUE = b"v" * 32
KEYS = 10_000

Get = Callable[[str], object]
Set = Callable[[str, bytes, int | None], object]


def kvclient_face(port: int) -> tuple[Get, Set]:
    import kvclient

    client = kvclient.connect(f"redis://127.0.0.1:{port}")

    def put(key: str, value: bytes, seconds: int | None) -> object:
        return client.set(key, value) if seconds is None else client.set(key, value, ttl=seconds)

    return client.get, put


def redis_face(port: int) -> tuple[Get, Set]:
    import redis

    client = redis.Redis(port=port)
    return client.get, lambda key, value, seconds: client.set(key, value, ex=seconds)


def pymemcache_face(port: int) -> tuple[Get, Set]:
    from pymemcache.client.base import Client

    client = Client(("127.0.0.1", port), no_delay=True)
    return client.get, lambda key, value, seconds: client.set(key, value, expire=seconds or 0, noreply=False)


def manager_face(port: int) -> tuple[Get, Set]:
    from multiprocessing.managers import BaseManager, DictProxy

    BaseManager.register("values", proxytype=DictProxy)
    manager = BaseManager(("127.0.0.1", port), b"bench")
    manager.connect()
    values: Any = manager.values()  # type: ignore[attr-defined]
    return values.get, lambda key, value, _seconds: values.__setitem__(key, value)


FACES: dict[str, Callable[[int], tuple[Get, Set]]] = {
    "kvclient": kvclient_face, "redis-py": redis_face, "pymemcache": pymemcache_face, "manager": manager_face,
}  # fmt: skip


def reads(get: Get, put: Set, count: int, _chance: random.Random) -> None:
    put("key:1", VALUE, None)
    for _ in range(count):
        get("key:1")


def mixed(get: Get, put: Set, count: int, chance: random.Random) -> None:
    """90 % reads, 8 % writes, 2 % writes with a time to live, of keys by Zipf's law."""
    weights = list(accumulate(1 / rank for rank in range(1, KEYS + 1)))
    keys = chance.choices([f"key:{number}" for number in range(KEYS)], cum_weights=weights, k=count)
    kinds = chance.choices("rwe", weights=(90, 8, 2), k=count)
    for key, kind in zip(keys, kinds, strict=True):
        if kind == "r":
            get(key)
        else:
            put(key, VALUE, 10 if kind == "e" else None)


def main() -> int:
    library, work, port, count, seed = sys.argv[1:]
    get, put = FACES[library](int(port))
    get("key:1")
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    {"reads": reads, "mixed": mixed}[work](get, put, int(count), random.Random(seed))
    print(time.perf_counter() - begun, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
