"""/metrics: what INFO tells, under the names that redis_exporter gives it, and what only this server can tell.

So dashboards and alerts made for Redis work. The text of INFO is read as redis_exporter reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from kvserver.observe import usage
from kvserver.version import __version__
from kvserver.web.exchange import Request, Response
from kvserver.web.sampler import DELAYS, Delays
from kvserver.web.visitor import Visitor

if TYPE_CHECKING:
    from kvserver.observe.usage import Tally
    from kvserver.state import State

_GAUGES = {
    "uptime_in_seconds": "uptime_in_seconds",
    "process_id": "process_id",
    "io_threads_active": "io_threads_active",
    "connected_clients": "connected_clients",
    "blocked_clients": "blocked_clients",
    "maxclients": "max_clients",
    "tracking_clients": "tracking_clients",
    "clients_in_timeout_table": "clients_in_timeout_table",
    "pubsub_clients": "pubsub_clients",
    "watching_clients": "watching_clients",
    "total_watched_keys": "total_watched_keys",
    "total_blocking_keys": "total_blocking_keys",
    "client_recent_max_input_buffer": "client_recent_max_input_buffer_bytes",
    "client_recent_max_output_buffer": "client_recent_max_output_buffer_bytes",
    "used_memory": "memory_used_bytes",
    "used_memory_rss": "memory_used_rss_bytes",
    "used_memory_peak": "memory_used_peak_bytes",
    "used_memory_overhead": "memory_used_overhead_bytes",
    "used_memory_startup": "memory_used_startup_bytes",
    "used_memory_dataset": "memory_used_dataset_bytes",
    "maxmemory": "memory_max_bytes",
    "total_system_memory": "total_system_memory_bytes",
    "mem_fragmentation_ratio": "mem_fragmentation_ratio",
    "mem_fragmentation_bytes": "mem_fragmentation_bytes",
    "mem_clients_normal": "mem_clients_normal",
    "mem_not_counted_for_evict": "mem_not_counted_for_eviction_bytes",
    "lazyfree_pending_objects": "lazyfree_pending_objects",
    "loading": "loading_dump_file",
    "rdb_changes_since_last_save": "rdb_changes_since_last_save",
    "rdb_bgsave_in_progress": "rdb_bgsave_in_progress",
    "rdb_last_save_time": "rdb_last_save_timestamp_seconds",
    "rdb_last_bgsave_status": "rdb_last_bgsave_status",
    "rdb_last_bgsave_time_sec": "rdb_last_bgsave_duration_sec",
    "rdb_current_bgsave_time_sec": "rdb_current_bgsave_duration_sec",
    "aof_enabled": "aof_enabled",
    "aof_rewrite_in_progress": "aof_rewrite_in_progress",
    "aof_rewrite_scheduled": "aof_rewrite_scheduled",
    "aof_last_rewrite_time_sec": "aof_last_rewrite_duration_sec",
    "aof_current_rewrite_time_sec": "aof_current_rewrite_duration_sec",
    "aof_last_bgrewrite_status": "aof_last_bgrewrite_status",
    "aof_last_write_status": "aof_last_write_status",
    "aof_current_size": "aof_current_size_bytes",
    "aof_base_size": "aof_base_size_bytes",
    "aof_pending_rewrite": "aof_pending_rewrite",
    "aof_buffer_length": "aof_buffer_length",
    "aof_pending_bio_fsync": "aof_pending_bio_fsync",
    "aof_delayed_fsync": "aof_delayed_fsync",
    "pubsub_channels": "pubsub_channels",
    "pubsub_patterns": "pubsub_patterns",
    "pubsubshard_channels": "pubsubshard_channels",
    "tracking_total_keys": "tracking_total_keys",
    "tracking_total_items": "tracking_total_items",
    "tracking_total_prefixes": "tracking_total_prefixes",
    "connected_slaves": "connected_slaves",
    "master_repl_offset": "master_repl_offset",
    "second_repl_offset": "second_repl_offset",
    "repl_backlog_active": "repl_backlog_is_active",
    "repl_backlog_size": "replication_backlog_bytes",
    "repl_backlog_first_byte_offset": "repl_backlog_first_byte_offset",
    "repl_backlog_histlen": "repl_backlog_history_bytes",
    "sync_full": "replica_resyncs_full",
    "sync_partial_ok": "replica_partial_resync_accepted",
    "sync_partial_err": "replica_partial_resync_denied",
    "cluster_connections": "cluster_connections",
    "cluster_enabled": "cluster_enabled",
}
"""From a field of INFO to a metric, without the ``redis_`` in front."""
_COUNTERS = {
    "total_connections_received": "connections_received_total",
    "total_commands_processed": "commands_processed_total",
    "rejected_connections": "rejected_connections_total",
    "total_net_input_bytes": "net_input_bytes_total",
    "total_net_output_bytes": "net_output_bytes_total",
    "expired_keys": "expired_keys_total",
    "evicted_keys": "evicted_keys_total",
    "evicted_clients": "evicted_clients_total",
    "keyspace_hits": "keyspace_hits_total",
    "keyspace_misses": "keyspace_misses_total",
    "total_error_replies": "total_error_replies",
    "unexpected_error_replies": "unexpected_error_replies",
    "total_reads_processed": "total_reads_processed",
    "total_writes_processed": "total_writes_processed",
    "acl_access_denied_auth": "acl_access_denied_auth_total",
    "acl_access_denied_cmd": "acl_access_denied_cmd_total",
    "acl_access_denied_key": "acl_access_denied_key_total",
    "acl_access_denied_channel": "acl_access_denied_channel_total",
    "used_cpu_sys": "cpu_sys_seconds_total",
    "used_cpu_user": "cpu_user_seconds_total",
    "used_cpu_sys_children": "cpu_sys_children_seconds_total",
    "used_cpu_user_children": "cpu_user_children_seconds_total",
}
_LABELS = (
    "redis_version", "redis_build_id", "redis_mode", "os", "role", "run_id", "process_id", "maxmemory_policy",
    "tcp_port",
)  # fmt: skip
_QUANTILES = (50, 99, 99.9)
_USUAL_DATABASES = 16
_BUCKETS = tuple(1 << bits for bits in range(4, 24))
"""Microseconds. Always the same ones, as Prometheus wants them; what a command took is counted by powers of two."""


class Metrics:
    """Answers /metrics.

    Args:
        state: the server's.
        delays: how late a thread got to run.
        refused: how many requests were refused, by reason.
    """

    def __init__(self, state: State, delays: Delays, refused: dict[str, int]) -> None:
        self._state, self._delays, self._refused = state, delays, refused

    def answer(self, _request: Request, visitor: Visitor) -> Response:
        """The metrics, as text.

        Not as OpenMetrics: there, the quantile 99 that dashboards for redis_exporter ask for would have to be 0.99.

        Raises:
            Error: the user may not run INFO.
        """
        reply = visitor.run("INFO", "everything")
        text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected([*_from_info(text), *self._own()]))
        return Response(body=generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    def _own(self) -> Iterator[Metric]:
        state = self._state
        yield GaugeMetricFamily("redis_up", "Whether the server answers.", 1)
        yield GaugeMetricFamily(
            "redis_start_time_seconds", "When the server was started, in Unix time.", state.started_at // 1000
        )
        yield GaugeMetricFamily("redis_config_maxclients", "The setting maxclients.", state.config.maxclients)
        yield GaugeMetricFamily("redis_config_maxmemory", "The setting maxmemory.", state.config.maxmemory)
        yield GaugeMetricFamily("redis_slowlog_length", "Entries of SLOWLOG.", len(state.slow_commands))
        last = next(iter(state.slow_commands.newest(1)), None)
        yield GaugeMetricFamily(
            "redis_slowlog_last_id", "The number of SLOWLOG's newest entry.", 0 if last is None else last.number
        )
        yield GaugeMetricFamily(
            "redis_last_slow_execution_duration_seconds",
            "How long that command took.",
            0.0 if last is None else last.amount / 1e6,
        )
        used = state.command_usage()
        yield _percentiles(used)
        yield _durations(used)
        yield _delays(self._delays)
        journal = None if state.persistence is None else state.persistence.journal
        yield GaugeMetricFamily(
            "kvserver_journal_lag_batches",
            "Changes that are not yet synced to disk.",
            0 if journal is None else journal.appended - journal.synced,
        )
        yield GaugeMetricFamily(
            "kvserver_journal_lag_seconds",
            "How long ago the oldest change was written that is not yet synced to disk.",
            0.0 if journal is None else journal.behind,
        )
        refused = CounterMetricFamily(
            "kvserver_http_refused", "Requests to the HTTP port that were refused.", labels=["reason"]
        )
        for reason, count in sorted(self._refused.copy().items()):
            refused.add_metric([reason], count)
        yield refused


class _Collected(Collector):
    """What prometheus-client asks for metrics."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _from_info(text: str) -> Iterator[Metric]:
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    for field, name in _GAUGES.items():
        if field in fields:
            yield GaugeMetricFamily(f"redis_{name}", f"INFO's {field}.", _number(fields[field]))
    for field, name in _COUNTERS.items():
        if field in fields:
            yield _counter(name, f"INFO's {field}.", _number(fields[field]))
    yield GaugeMetricFamily(
        "redis_latest_fork_seconds", "INFO's latest_fork_usec, in seconds.", _number(fields["latest_fork_usec"]) / 1e6
    )
    labels = {name: fields.get(name, "") for name in _LABELS}
    instance = GaugeMetricFamily("redis_instance_info", "What this server is.", labels=list(labels))
    instance.add_metric(list(labels.values()), 1)
    yield instance
    version = GaugeMetricFamily("kvserver_build_info", "This server's own version.", labels=["version"])
    version.add_metric([__version__], 1)
    yield version
    yield from _of_commands(fields)
    yield from _of_databases(fields)


def _number(text: str) -> float:
    if text in ("ok", "err"):
        return float(text == "ok")
    return float(text)


def _counter(name: str, help_text: str, value: float) -> Metric:
    """A counter. prometheus-client has none whose name does not end in ``_total``; those go as gauges."""
    if name.endswith("_total"):
        return CounterMetricFamily(f"redis_{name.removesuffix('_total')}", help_text, value)
    return GaugeMetricFamily(f"redis_{name}", help_text, value)


def _of_commands(fields: dict[str, str]) -> Iterator[Metric]:
    families = {
        "calls": CounterMetricFamily("redis_commands", "Calls of each command.", labels=["cmd"]),
        "usec": CounterMetricFamily(
            "redis_commands_duration_seconds", "Time that each command took, in all.", labels=["cmd"]
        ),
        "rejected_calls": CounterMetricFamily(
            "redis_commands_rejected_calls", "Calls that were not run.", labels=["cmd"]
        ),
        "failed_calls": CounterMetricFamily(
            "redis_commands_failed_calls", "Calls that ended in an error.", labels=["cmd"]
        ),
    }
    errors = CounterMetricFamily("redis_errors", "Error replies by their first word.", labels=["err"])
    for field, value in fields.items():
        if field.startswith("cmdstat_"):
            told = _pairs(value)
            for name, family in families.items():
                amount = told[name] / 1e6 if name == "usec" else told[name]
                family.add_metric([field.removeprefix("cmdstat_")], amount)
        elif field.startswith("errorstat_"):
            errors.add_metric([field.removeprefix("errorstat_")], _pairs(value)["count"])
    yield from families.values()
    yield errors


_DATABASE = re.compile(r"db\d+")


def _of_databases(fields: dict[str, str]) -> Iterator[Metric]:
    keys = GaugeMetricFamily("redis_db_keys", "Keys of each database.", labels=["db"])
    expiring = GaugeMetricFamily("redis_db_keys_expiring", "Keys with a deadline.", labels=["db"])
    average = GaugeMetricFamily(
        "redis_db_avg_ttl_seconds", "How long keys with a deadline have left, on average.", labels=["db"]
    )
    empty = dict.fromkeys((f"db{number}" for number in range(_USUAL_DATABASES)), "keys=0,expires=0,avg_ttl=0")
    for field, value in (empty | {name: value for name, value in fields.items() if _DATABASE.fullmatch(name)}).items():
        told = _pairs(value)
        keys.add_metric([field], told["keys"])
        expiring.add_metric([field], told["expires"])
        if told["avg_ttl"]:
            average.add_metric([field], told["avg_ttl"] / 1000)
    return iter((keys, expiring, average))


def _pairs(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in (pair.split("=", 1) for pair in text.split(","))}


def _percentiles(used: dict[str, Tally]) -> Metric:
    family = Metric("redis_latency_percentiles_usec", "Percentiles of how long commands took.", "summary")
    for name, tally in sorted(used.items()):
        for percent in _QUANTILES:
            value = usage.percentile(tally, percent)
            family.add_sample(family.name, {"cmd": name, "quantile": f"{percent:g}"}, value)
        family.add_sample(f"{family.name}_sum", {"cmd": name}, tally[usage.TOTAL] / 1000)
        family.add_sample(f"{family.name}_count", {"cmd": name}, usage.calls(tally))
    return family


def _durations(used: dict[str, Tally]) -> Metric:
    family = HistogramMetricFamily(
        "kvserver_command_duration_seconds",
        "How long commands took, from the arrival of their bytes or the end of the command before.",
        labels=["cmd"],
    )
    for name, tally in sorted(used.items()):
        buckets = [(repr(most / 1e6), float(_calls_within(tally, most))) for most in _BUCKETS]
        family.add_metric([name], [*buckets, ("+Inf", float(usage.calls(tally)))], tally[usage.TOTAL] / 1e9)
    return family


def _calls_within(tally: Tally, microseconds: int) -> int:
    return sum(tally[1 : microseconds.bit_length() + 1])


def _delays(delays: Delays) -> Metric:
    counts, seen, buckets = list(delays.counts), 0, []
    for most, count in zip((*map(repr, DELAYS), "+Inf"), counts, strict=True):
        seen += count
        buckets.append((most, float(seen)))
    family = HistogramMetricFamily(
        "kvserver_gil_wait_seconds",
        "How much later than it wanted a thread got to run, that wants to every tenth of a second: the wait for the "
        "interpreter's lock, and for a CPU.",
    )
    family.add_metric([], buckets, delays.total)
    return family
