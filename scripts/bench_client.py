#!/usr/bin/env python3
"""Compare client libraries on one server: kvclient, redis-py, valkey-py, valkey-glide, coredis, and a bare socket;
beside them pymemcache, on a memcached.

    .venv/bin/python scripts/bench_client.py [--rounds 7] [--server redis|kvserver]

The server is started here, on a free port of this machine, and ended here: Debian's redis-server, so that the client
is what is measured, or kvserver. Rounds are interleaved; medians of microseconds an operation are printed as Markdown
tables, wall time and the client's CPU time (user + system). Libraries that are missing are named and left out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from bench import kvserver, redis

SMALL, LARGE = b"v" * 32, b"v" * 1_000_000
KEYS = [f"key:{number}" for number in range(100)]
THREADS = 8
PATIENCE = 30

Work = Callable[[], object]


@dataclass
class Contender:
    """A library, what it can do, and how long that took: by the work's name, (wall, CPU) microseconds a round."""

    name: str
    works: dict[str, tuple[Work, int]]
    """By name: what to do, and how many operations that is."""
    close: Work
    took: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def repeat(work: Work, times: int) -> Work:
    def many() -> None:
        for _ in range(times):
            work()

    return many


def in_threads(work: Work, times: int) -> Work:
    """The same client, used by eight threads."""

    def many() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(repeat(work, times // THREADS)) for _ in range(THREADS)]:
                done.result()

    return many


def works(client: Any, pipeline: Callable[[int], object], mget: Work, mset: Work) -> dict[str, tuple[Work, int]]:
    """What every library is asked to do."""
    return {
        "GET": (repeat(lambda: client.get("key:1"), 2000), 2000),
        "SET": (repeat(lambda: client.set("key:1", SMALL), 2000), 2000),
        "MGET of 100": (repeat(mget, 200), 200),
        "MSET of 100": (repeat(mset, 200), 200),
        "pipeline of 100 SETs": (repeat(lambda: pipeline(100), 20), 20),
        "pipeline of 10,000 SETs": (lambda: pipeline(10_000), 1),
        "GET, 8 threads": (in_threads(lambda: client.get("key:1"), 2000), 2000),
        "GET of 1 MB": (repeat(lambda: client.get("large"), 30), 30),
        "SET of 1 MB": (repeat(lambda: client.set("large", LARGE), 30), 30),
    }


def bare_socket(port: int) -> Contender:
    """What the kernel and the server take; no library can be quicker."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(request: bytes, size: int) -> Work:
        def once() -> None:
            sock.sendall(request)
            left = size
            while left:
                left -= len(sock.recv(min(left, 1 << 16)))

        return once

    get = ask(b"*2\r\n$3\r\nGET\r\n$5\r\nkey:1\r\n", len(b"$32\r\n\r\n") + 32)
    put = ask(b"*3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$32\r\n%b\r\n" % SMALL, 5)
    get_large = ask(b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n", len(b"$1000000\r\n\r\n") + len(LARGE))
    put_large = ask(b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$1000000\r\n%b\r\n" % LARGE, 5)
    return Contender(
        "bare socket",
        {
            "GET": (repeat(get, 2000), 2000),
            "SET": (repeat(put, 2000), 2000),
            "GET of 1 MB": (repeat(get_large, 30), 30),
            "SET of 1 MB": (repeat(put_large, 30), 30),
        },
        sock.close,
    )


def our_client(port: int) -> Contender:
    import kvclient

    client = kvclient.connect(f"redis://127.0.0.1:{port}")

    def pipeline(count: int) -> None:
        with client.pipeline() as batch:
            for _ in range(count):
                batch.set("key:1", SMALL)

    items = dict.fromkeys(KEYS, SMALL)
    return Contender(
        "kvclient", works(client, pipeline, lambda: client.mget(*KEYS), lambda: client.mset(items)), client.close
    )


def like_redis_py(name: str, client: Any) -> Contender:
    def pipeline(count: int) -> None:
        batch = client.pipeline(transaction=False)
        for _ in range(count):
            batch.set("key:1", SMALL)
        batch.execute()

    items = dict.fromkeys(KEYS, SMALL)
    return Contender(name, works(client, pipeline, lambda: client.mget(KEYS), lambda: client.mset(items)), client.close)


def redis_py(port: int) -> Contender:
    import redis as library

    return like_redis_py(f"redis-py {library.__version__}", library.Redis(port=port))


def valkey_py(port: int) -> Contender:
    import valkey

    return like_redis_py(f"valkey-py {valkey.__version__}", valkey.Valkey(port=port))


def glide(port: int) -> Contender:
    from glide_sync import Batch, GlideClient, GlideClientConfiguration, NodeAddress

    client = GlideClient.create(GlideClientConfiguration([NodeAddress("127.0.0.1", port)], request_timeout=10_000))

    def pipeline(count: int) -> None:
        batch = Batch(is_atomic=False)
        for _ in range(count):
            batch.set("key:1", SMALL)
        client.exec(batch, raise_on_error=True)

    items = dict.fromkeys(KEYS, SMALL)
    return Contender(
        "valkey-glide",
        works(client, pipeline, lambda: client.mget(list(KEYS)), lambda: client.mset(items)),
        client.close,
    )


def pymemcache(_port: int) -> Contender:
    """Another protocol, on a server of its own. Its set_many is one write for all, and the nearest to a pipeline."""
    from pymemcache.client.base import Client

    program = shutil.which("memcached")
    if program is None:
        raise ImportError(name="memcached")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = ("-u", "root") if os.getuid() == 0 else ()
    server = subprocess.Popen([program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-I", "2m", *user])
    client = Client(("127.0.0.1", port), default_noreply=False, no_delay=True, connect_timeout=5, timeout=PATIENCE)
    for _ in range(500):
        try:
            client.version()
            break
        except OSError:
            time.sleep(0.01)
    items = dict.fromkeys(KEYS, SMALL)
    offered = {
        "GET": (repeat(lambda: client.get("key:1"), 2000), 2000),
        "SET": (repeat(lambda: client.set("key:1", SMALL), 2000), 2000),
        "MGET of 100": (repeat(lambda: client.get_many(KEYS), 200), 200),
        "MSET of 100": (repeat(lambda: client.set_many(items), 200), 200),
        "GET of 1 MB": (repeat(lambda: client.get("large"), 30), 30),
        "SET of 1 MB": (repeat(lambda: client.set("large", LARGE), 30), 30),
    }
    client.set("key:1", SMALL)
    client.set("large", LARGE)
    client.set_many(items)

    def close() -> None:
        client.close()
        server.terminate()
        server.wait(10)

    return Contender("pymemcache", offered, close)


Coroutine = Callable[[], Awaitable[object]]


def awaited(
    name: str, loop: asyncio.AbstractEventLoop, client: Any, pipeline: Callable[[int], Awaitable[object]], close: Work
) -> Contender:
    """One task, then a hundred, that await a client."""

    def sequence(work: Coroutine, times: int) -> Work:
        async def many() -> None:
            for _ in range(times):
                await work()

        return lambda: loop.run_until_complete(many())

    def tasks(work: Coroutine, times: int) -> Work:
        async def some() -> None:
            for _ in range(times // 100):
                await work()

        async def many() -> None:
            await asyncio.gather(*(some() for _ in range(100)))

        return lambda: loop.run_until_complete(many())

    return Contender(
        name,
        {
            "async GET": (sequence(lambda: client.get("key:1"), 1000), 1000),
            "async GET, 100 tasks": (tasks(lambda: client.get("key:1"), 2000), 2000),
            "async pipeline of 100 SETs": (sequence(lambda: pipeline(100), 20), 20),
        },
        close,
    )


def our_async_client(port: int) -> Contender:
    import kvclient.aio

    loop = asyncio.new_event_loop()

    async def connected() -> Any:
        return await kvclient.aio.connect(f"redis://127.0.0.1:{port}")

    client = loop.run_until_complete(connected())

    async def pipeline(count: int) -> None:
        async with client.pipeline() as batch:
            for _ in range(count):
                batch.set("key:1", SMALL)

    async def close() -> None:
        client.close()

    return awaited("kvclient.aio", loop, client, pipeline, lambda: (loop.run_until_complete(close()), loop.close()))


def redis_asyncio(port: int) -> Contender:
    import redis.asyncio as library

    loop = asyncio.new_event_loop()
    client = library.Redis(port=port)

    async def pipeline(count: int) -> None:
        batch = client.pipeline(transaction=False)
        for _ in range(count):
            batch.set("key:1", SMALL)
        await batch.execute()

    return awaited(
        "redis.asyncio", loop, client, pipeline, lambda: (loop.run_until_complete(client.aclose()), loop.close())
    )


def coredis(port: int) -> Contender:
    import coredis as library

    loop = asyncio.new_event_loop()
    ready, end = loop.create_future(), asyncio.Event()

    async def live() -> None:  # it wants to be left in the task that entered it
        async with library.Redis(port=port) as connected:
            ready.set_result(connected)
            await end.wait()

    task = loop.create_task(live())
    client: Any = loop.run_until_complete(ready)

    async def pipeline(count: int) -> None:
        async with client.pipeline(transaction=False) as batch:
            for _ in range(count):
                batch.set("key:1", SMALL)

    def close() -> None:
        end.set()
        loop.run_until_complete(task)
        loop.close()

    return awaited(f"coredis {library.__version__}", loop, client, pipeline, close)


CONTENDERS = (
    bare_socket, our_client, redis_py, valkey_py, glide, pymemcache, our_async_client, redis_asyncio, coredis,
)  # fmt: skip


def gather(port: int) -> list[Contender]:
    found = []
    for make in CONTENDERS:
        try:
            found.append(make(port))
        except ImportError as error:
            print(f"bench_client: left out: {error.name} is not installed", file=sys.stderr)
    return found


def measure(one: Contender, name: str) -> None:
    work, count = one.works[name]
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    one.took.setdefault(name, []).append((wall / count * 1e6, cpu / count * 1e6))


def table(found: list[Contender], place: int, title: str) -> str:
    names = list(dict.fromkeys(name for one in found for name in one.works))
    lines = [f"| {title} | " + " | ".join(one.name for one in found) + " |", "|---|" + "---|" * len(found)]
    for name in names:
        cells = []
        for one in found:
            took = [times[place] for times in one.took.get(name, [])]
            cells.append(f"{statistics.median(took):,.1f}" if took else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--server", choices=("redis", "kvserver"), default="redis")
    options = parser.parse_args()
    with {"redis": redis, "kvserver": kvserver}[options.server]() as side:
        found = gather(side.port)
        for name in ("SET", "SET of 1 MB"):  # what is read has to be there
            found[0].works[name][0]()
        for number in range(options.rounds + 1):  # the first warms up
            for name in dict.fromkeys(name for one in found for name in one.works):
                for one in found:
                    if name in one.works:
                        measure(one, name)
            if number == 0:
                for one in found:
                    one.took.clear()
        for one in found:
            one.close()
    print(
        f"{side.name}; median of {options.rounds} rounds; {os.cpu_count()} CPUs, Python {platform.python_version()}\n"
    )
    print(table(found, 0, "wall, us an operation") + "\n")
    print(table(found, 1, "client's CPU, us an operation"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
