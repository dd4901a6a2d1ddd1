"""redis_exporter, as Debian ships it, sees in INFO what it looks for; and /metrics has what it would tell."""

from __future__ import annotations

import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from support import need
from web.asking import Web
from web.conftest import Serve

pytestmark = pytest.mark.ecosystem

OF_ITSELF = re.compile(r"redis_exporter_|redis_target_|redis_last_key_groups_")
"""What it tells of its own doings."""
NOT_COUNTERS = {
    "redis_total_error_replies", "redis_total_reads_processed", "redis_total_writes_processed",
    "redis_unexpected_error_replies",
}  # fmt: skip
"""Counters without ``_total`` in their names: prometheus-client has none such."""


@contextmanager
def exporter(url: str) -> Iterator[str]:
    """Where it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [need("prometheus-redis-exporter"), "-redis.addr", url, "-web.listen-address", address],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process:
        try:
            for line in process.stderr:
                if "Providing metrics" in line:
                    break
            yield f"http://{address}/metrics"
        finally:
            process.kill()


def scraped(address: str) -> str:
    while True:  # it says that it listens a moment before it does
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return response.read().decode()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise


def families(text: str) -> dict[str, str]:
    """Name to type."""
    return {
        name: kind for name, kind in re.findall(r"^# TYPE (redis_\S+) (\S+)$", text, re.MULTILINE)
        if not OF_ITSELF.match(name)
    }  # fmt: skip


def values(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(redis_\S+) (\S+)$", text, re.MULTILINE)}


@pytest.fixture
def both(serve: Serve, tmp_path: Path) -> tuple[str, str]:
    """What redis_exporter tells, and what /metrics does."""
    web: Web = serve(data_dir=str(tmp_path), slowlog_log_slower_than=0)
    with redis.Redis(port=web.server.port) as client:
        for number in range(100):
            client.set(f"k{number}", "v", ex=1000 if number % 2 else None)
        client.get("none")
        with pytest.raises(redis.ResponseError):
            client.execute_command("NOPE")
    with exporter(web.server.url) as address:
        return scraped(address), web.get("/metrics").text


def test_it_finds_all_it_looks_for(both: tuple[str, str]) -> None:
    theirs, _ = both
    told = values(theirs)
    assert told["redis_up"] == 1
    assert told['redis_db_keys{db="db0"}'] == 100
    assert told['redis_db_keys_expiring{db="db0"}'] == 50
    assert told['redis_commands_total{cmd="set"}'] == 100
    assert told["redis_keyspace_misses_total"] == 1
    assert told['redis_exporter_last_scrape_error{err=""}'] == 0
    assert told["redis_aof_enabled"] == 1


def test_metrics_has_every_name_it_has(both: tuple[str, str]) -> None:
    theirs, ours = map(families, both)
    assert theirs.keys() <= ours.keys()
    assert {name for name in theirs if theirs[name] != ours[name]} == NOT_COUNTERS


STEADY = re.compile(r"redis_(db_keys|memory_used_bytes|keyspace|config|aof|expired|evicted|max|tracking|pubsub|repl)")
"""What does not change between the one and the other being asked."""


def test_metrics_has_the_same_values(both: tuple[str, str]) -> None:
    theirs, ours = map(values, both)
    steady = [name for name in theirs if STEADY.match(name) or ('cmd="set"' in name and "latency" not in name)]
    assert len(steady) > 60
    for name in steady:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
