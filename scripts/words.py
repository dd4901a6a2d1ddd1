#!/usr/bin/env python3
"""Store a real word list through three clients and read it back through the others, against a server of its own.

    .venv/bin/python scripts/words.py [/usr/share/dict/american-english]

Key ``word:<w>``, value the word's line number. Stored once each by ``redis-cli --pipe``, redis-py and kvclient; read
back by the next of the three; walked once by SCAN. Ends with status 1 at the first word that is missing, wrong or
met twice. The word list is Debian's ``wamerican``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import redis

import kvclient

BATCH = 1000
Words = dict[bytes, bytes]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", nargs="?", default="/usr/share/dict/american-english", type=Path)
    path = parser.parse_args().file
    words = {b"word:" + word: b"%d" % n for n, word in enumerate(path.read_bytes().split(b"\n")[:-1], 1)}
    print(f"{len(words):,} words")
    with server() as url:
        ways: list[tuple[str, Callable[[str, Words], None], str, Callable[[str, Words], Words]]] = [
            ("redis-cli --pipe", store_by_pipe, "redis-py", read_by_redis_py),
            ("redis-py", store_by_redis_py, "kvclient", read_by_kvclient),
            ("kvclient", store_by_kvclient, "redis-cli", read_by_redis_cli),
        ]
        for writer, store, reader, read in ways:
            redis.Redis.from_url(url).flushall()
            stored = timed(lambda store=store: store(url, words))
            found: list[Words] = []
            read_back = timed(lambda read=read, found=found: found.append(read(url, words)))
            if found[0] != words:
                print(f"{reader} does not find what {writer} stored", file=sys.stderr)
                return 1
            met = Counter(redis.Redis.from_url(url).scan_iter(match="word:*", count=1000))
            if met != Counter(words.keys()):
                print("SCAN missed a word, or met one twice", file=sys.stderr)
                return 1
            print(
                f"stored by {writer} in {stored:.2f} s, read by {reader} in {read_back:.2f} s, SCAN: each exactly once"
            )
    return 0


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server in a process of its own."""
    command = [sys.executable, "-m", "kvserver", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield "redis://" + process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def batches(words: Words) -> Iterator[list[tuple[bytes, bytes]]]:
    rest = iter(words.items())
    while batch := list(islice(rest, BATCH)):
        yield batch


def store_by_pipe(url: str, words: Words) -> None:
    commands = b"".join(
        b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)
        for key, value in words.items()
    )
    done = subprocess.run(["redis-cli", "-u", url, "--pipe"], input=commands, capture_output=True, check=True)
    if b"errors: 0, replies: %d" % len(words) not in done.stdout:
        raise SystemExit(done.stdout.decode())


def store_by_redis_py(url: str, words: Words) -> None:
    client = redis.Redis.from_url(url)
    for batch in batches(words):
        pipeline = client.pipeline(transaction=False)
        for key, value in batch:
            pipeline.set(key, value)
        pipeline.execute()
    client.close()


def store_by_kvclient(url: str, words: Words) -> None:
    with kvclient.connect(url) as kv:
        for batch in batches(words):
            with kv.pipeline() as pipeline:
                for key, value in batch:
                    pipeline.set(key, value)


def read_by_redis_py(url: str, words: Words) -> Words:
    client = redis.Redis.from_url(url)
    found: Words = {}
    for batch in batches(words):
        keys = [key for key, _ in batch]
        found |= zip(keys, client.mget(keys), strict=True)
    client.close()
    return found


def read_by_kvclient(url: str, words: Words) -> Words:
    with kvclient.connect(url) as kv:
        return {key: kv[key] for key in words}


def read_by_redis_cli(url: str, words: Words) -> Words:
    lines = b"".join(b'GET "%b"\n' % key for key in words)
    done = subprocess.run(["redis-cli", "-u", url], input=lines, capture_output=True, check=True)
    return dict(zip(words, done.stdout.split(b"\n"), strict=False))


if __name__ == "__main__":
    sys.exit(main())
