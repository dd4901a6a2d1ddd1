"""The pytest plugin, as somebody meets it who has kvserver installed and writes a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import os
import threading

import pytest


def test_kv(kv):
    kv.set("k", 1)
    assert kv.incr("k") == 2


def test_it_is_empty_again(kv, kv_url):
    assert kv.get("k") is None
    assert kv_url.startswith("redis://127.0.0.1:")


def test_redis_py(redis_client, kv):
    redis_client.set("k", "v")
    assert kv.get("k") == b"v"


def test_the_same_server_all_along(kvserver, kv_url, request):
    assert kvserver.url == kv_url
    assert kvserver is request.getfixturevalue("kvserver")


def test_another_server(kvserver_factory, kv):
    import kvclient

    other = kvserver_factory(databases=3)
    with kvclient.connect(other.url) as second:
        second.set("k", "other")
        assert second.config_get("databases") == {"databases": "3"}
        assert kv.get("k") is None
"""


def run(folder: Path, tests: str, *options: str, ini: str = "") -> str:
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    return done.stdout + done.stderr


def test_fixtures_are_there_without_any_configuration(tmp_path: Path) -> None:
    assert "5 passed" in run(tmp_path, TESTS)


def test_each_worker_of_xdist_has_a_server_of_its_own(tmp_path: Path) -> None:
    assert "25 passed" in run(tmp_path, TESTS.replace("import pytest\n", "", 1) + _FOUR_TIMES_MORE, "-n", "2")


_FOUR_TIMES_MORE = """
import pytest

@pytest.mark.parametrize("number", range(20))
def test_alone(kv, number):
    assert kv.dbsize() == 0
    kv.set("k", number)
    for _ in range(50):
        assert kv.get("k") == b"%d" % number
"""


def test_settings(tmp_path: Path) -> None:
    tests = """
def test_settings(kv):
    assert kv.config_get("maxmemory", "databases") == {"maxmemory": "5242880", "databases": "2"}
"""
    ini = "kvserver =\n    maxmemory = 1mb\n    databases = 2\n"
    assert "1 passed" in run(tmp_path, tests, "--kvserver", "maxmemory=5mb", ini=ini)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("maxmemory", "kvserver: 'maxmemory' is not name=value"),
        ("maxmemory=much", "kvserver: maxmemory: 'much' will not do"),
        ("nothing=1", "kvserver: there is no setting 'nothing'"),
    ],
)
def test_settings_that_will_not_do(tmp_path: Path, setting: str, said: str) -> None:
    assert said in run(tmp_path, "def test_it(kv): pass", "--kvserver", setting)


FAULTS = """
import pytest
import kvclient.errors
import kvserver


def test_met(kv, redis_client, kv_faults):
    fault = kv_faults.refuse("GET", "ERR from above", times=2)
    with pytest.raises(kvclient.errors.ServerError, match="from above"):
        kv.get("k")
    import redis
    with pytest.raises(redis.ResponseError, match="from above"):
        redis_client.get("k")
    assert kv.get("k") is None
    assert fault.happened == 2


def test_unmet(kv, kv_faults):
    kv_faults.refuse("SET", times=None)
    assert kv.get("k") is None


def test_they_are_gone(kv, kv_faults):
    kv.set("k", "v")


def test_replayed(kv, kv_recording, kv_replay):
    kv.incr("n")
    entries = list(kv_recording.entries)
    kv.flushall()
    kv_replay(type(kv_recording)(entries))
    kv.incr("n")
    with pytest.raises(AssertionError, match="command 1, of client .*INCRBY n 1|INCR n"):
        kv_replay(type(kv_recording)(entries))


def test_on_disk(kvserver_factory, tmp_path):
    server = kvserver_factory(data_dir=str(tmp_path), fsync="everysec")
    server.instruments.faults.fill_disk()
    with kvclient.connect(server.url) as kv, pytest.raises(kvclient.KVError):
        kv.set("k", "v")
"""


def test_faults_and_recordings(tmp_path: Path) -> None:
    said = run(tmp_path, FAULTS)
    assert "5 passed, 1 error" in said
    assert "UnmetFaultError: nothing has met refuse SET (it never came)" in said


def test_nothing_is_imported_or_started_that_nobody_asks_for(tmp_path: Path) -> None:
    tests = """
import sys
import threading

def test_it():
    assert "kvserver.pytest_plugin" in sys.modules
    assert "kvserver.server" not in sys.modules
    assert "kvclient" not in sys.modules
    assert threading.active_count() == 1
"""
    assert "1 passed" in run(tmp_path, tests)


def test_nothing_is_left(tmp_path: Path) -> None:
    """All threads have ended when the session has."""
    tests = (
        TESTS
        + """
@pytest.fixture(scope="session", autouse=True)
def _at_the_end():
    before = threading.active_count()
    yield
    assert threading.active_count() == before
"""
    )
    assert "5 passed" in run(tmp_path, tests)
