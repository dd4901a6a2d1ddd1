"""What monitoring tools read: INFO's fields by the names they know, with values that move as they should."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import kvserver

# The names redis_exporter maps, less those of things this server does not have: fields that a server shows only while
# it keeps an append-only file (aof_current_size ...), and statistics a command (cmdstat_*, latency_percentiles_*).
_EXPORTED = """
uptime_in_seconds process_id io_threads_active connected_clients blocked_clients maxclients tracking_clients
pubsub_clients watching_clients total_watched_keys used_memory used_memory_rss used_memory_peak used_memory_overhead
used_memory_startup used_memory_dataset maxmemory mem_fragmentation_ratio mem_clients_normal mem_aof_buffer
mem_not_counted_for_evict lazyfree_pending_objects loading rdb_changes_since_last_save rdb_bgsave_in_progress
rdb_last_save_time rdb_last_bgsave_status rdb_last_bgsave_time_sec aof_enabled aof_rewrite_in_progress
aof_last_rewrite_time_sec aof_last_write_status pubsub_channels pubsub_patterns latest_fork_usec connected_slaves
master_repl_offset tracking_total_keys total_connections_received total_commands_processed rejected_connections
total_net_input_bytes total_net_output_bytes expired_keys evicted_keys evicted_clients keyspace_hits keyspace_misses
used_cpu_sys used_cpu_user total_error_replies total_reads_processed total_writes_processed
client_query_buffer_limit_disconnections client_output_buffer_limit_disconnections acl_access_denied_auth
acl_access_denied_cmd acl_access_denied_key acl_access_denied_channel
"""
# What other tools and libraries look for at start-up.
_LOOKED_FOR = """
redis_version redis_mode os arch_bits run_id tcp_port role cluster_enabled used_memory_human used_memory_peak_human
maxmemory_policy total_system_memory mem_allocator server_name kvserver_version
"""


@pytest.fixture
def client(server: kvserver.Server) -> Iterator[Any]:
    with redis.Redis(port=server.port, decode_responses=True) as connected:
        yield connected


@pytest.mark.parametrize("sections", [(), ("all",), ("everything",), ("default",)], ids=str)
def test_every_field_is_there(client: Any, sections: tuple[str, ...]) -> None:
    info = client.info(*sections)
    assert [name for name in (_EXPORTED + _LOOKED_FOR).split() if name not in info] == []


def test_sections_are_titled_as_tools_know_them(server: kvserver.Server, client: Any) -> None:
    client.set("k", "v")
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock, sock.makefile("rb") as replies:
        sock.sendall(b"INFO\r\n")
        text = replies.read(int(replies.readline()[1:])).decode()
    titles = [line for line in text.split("\r\n") if line.startswith("#")]
    assert titles[:7] == ["# Server", "# Clients", "# Memory", "# Persistence", "# Stats", "# Replication", "# CPU"]
    assert {"# Errorstats", "# Cluster", "# Keyspace"} == set(titles[7:])
    assert client.info("replication")["role"] == "master"
    assert "role" not in client.info("server", "clients")
    assert client.info("nothing") == {}


def test_counters_count(client: Any) -> None:
    before = client.info()
    client.set("k", "v", ex=1000)
    client.get("k")
    client.get("none")
    client.pexpireat("k", 1)
    with pytest.raises(redis.ResponseError):
        client.incr("k", "x")
    after = client.info()
    grown = {name: after[name] - before[name] for name in before if isinstance(before[name], int)}
    assert grown["total_commands_processed"] == 6  # with the first INFO, not the second
    assert grown["keyspace_hits"] == grown["keyspace_misses"] == 1
    assert grown["total_error_replies"] == 1
    assert after["errorstat_ERR"] == {"count": before["total_error_replies"] + 1}
    assert grown["total_net_input_bytes"] > 100
    assert grown["total_net_output_bytes"] > 3000
    client.config_resetstat()
    assert client.info()["keyspace_hits"] == 0


def test_databases_tell_their_keys(client: Any) -> None:
    client.mset({"a": 1, "b": 2})
    client.expire("a", 1000)
    info = client.info("keyspace")
    assert (info["db0"]["keys"], info["db0"]["expires"]) == (2, 1)
    assert 990_000 < info["db0"]["avg_ttl"] <= 1_000_000


def test_a_command_beyond_the_limit_is_counted(server: kvserver.Server, client: Any) -> None:
    client.config_set("client-query-buffer-limit", "1mb")
    with (
        redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as other,
        pytest.raises((redis.ResponseError, redis.ConnectionError)),
    ):
        other.set("k", b"x" * 2**21)
    assert client.info("stats")["client_query_buffer_limit_disconnections"] == 1


def test_a_waiting_client_is_counted(server: kvserver.Server, client: Any) -> None:
    with redis.Redis(port=server.port) as other:
        other.ping()
        waiting = threading.Thread(target=other.wait, args=(1, 500))
        waiting.start()
        while client.info("clients")["blocked_clients"] == 0:
            assert waiting.is_alive()
        assert [entry["cmd"] for entry in client.client_list() if "b" in entry["flags"]] == ["wait"]
        waiting.join()
    assert client.info("clients")["blocked_clients"] == 0
