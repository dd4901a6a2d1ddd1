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
SetMany = Callable[[list[str], bytes], object]
Face = tuple[Get, Set, SetMany | None]
DEEP = 100
"""SETs in a pipeline."""


def kvclient_face(port: int) -> Face:
    import kvclient

    client = kvclient.connect(f"redis://127.0.0.1:{port}")

    def put(key: str, value: bytes, seconds: int | None) -> object:
        return client.set(key, value) if seconds is None else client.set(key, value, ttl=seconds)

    def put_many(keys: list[str], value: bytes) -> object:
        with client.pipeline() as pipeline:
            for key in keys:
                pipeline.set(key, value)
        return None

    return client.get, put, put_many


def redis_face(port: int) -> Face:
    import redis

    client = redis.Redis(port=port)

    def put_many(keys: list[str], value: bytes) -> object:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.set(key, value)
        return pipeline.execute()

    return client.get, lambda key, value, seconds: client.set(key, value, ex=seconds), put_many


def pymemcache_face(port: int) -> Face:
    from pymemcache.client.base import Client

    client = Client(("127.0.0.1", port), no_delay=True)
    return client.get, lambda key, value, seconds: client.set(key, value, expire=seconds or 0, noreply=False), None


def manager_face(port: int) -> Face:
    from multiprocessing.managers import BaseManager, DictProxy

    BaseManager.register("values", proxytype=DictProxy)
    manager = BaseManager(("127.0.0.1", port), b"bench")
    manager.connect()
    values: Any = manager.values()  # type: ignore[attr-defined]
    return values.get, lambda key, value, _seconds: values.__setitem__(key, value), None


FACES: dict[str, Callable[[int], Face]] = {
    "kvclient": kvclient_face, "redis-py": redis_face, "pymemcache": pymemcache_face, "manager": manager_face,
}  # fmt: skip


def reads(face: Face, count: int, _chance: random.Random) -> None:
    get, put, _ = face
    put("key:1", VALUE, None)
    for _ in range(count):
        get("key:1")


def pipelines(face: Face, count: int, _chance: random.Random) -> None:
    put_many = face[2]
    assert put_many is not None, "this library has no pipelines"
    keys = [f"key:{number}" for number in range(DEEP)]
    for _ in range(count // DEEP):
        put_many(keys, VALUE)


def mixed(face: Face, count: int, chance: random.Random) -> None:
    """90 % reads, 8 % writes, 2 % writes with a time to live, of keys by Zipf's law."""
    get, put, _ = face
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
    face = FACES[library](int(port))
    face[0]("key:1")
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    {"reads": reads, "mixed": mixed, "pipelines": pipelines}[work](face, int(count), random.Random(seed))
    print(time.perf_counter() - begun, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
