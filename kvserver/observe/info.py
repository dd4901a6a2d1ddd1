"""INFO: facts and counters under the names that monitoring tools read. Reads only; takes no lock for long.

A counter of a live connection is read while its thread raises it: each is one whole number, so it may be a moment
old but never wrong.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kvserver.access.rules import Reason
from kvserver.observe import usage
from kvserver.observe.stats import End
from kvserver.session import Kind
from kvserver.version import REDIS_VERSION, __version__

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from kvserver.state import State

_Fields = dict[str, object]
_MEANINGFUL = 1024**2


def report(state: State, wanted: Iterable[str]) -> bytes:
    """The named sections (lower case), in their fixed order."""
    wanted = set(wanted)
    sections = [
        "\r\n".join([f"# {_title(name)}", *(f"{key}:{value}" for key, value in make(state).items()), ""])
        for name, make in INFO_SECTIONS.items()
        if name in wanted
    ]
    return "\r\n".join(sections).encode("utf-8", "surrogateescape")


def _title(section: str) -> str:
    return "CPU" if section == "cpu" else section.capitalize()


def _server(state: State) -> _Fields:
    uptime = int(time.monotonic() - state.started)
    system = platform.uname()
    mode = "cluster" if state.stands_for_cluster else "standalone"
    return {
        "redis_version": REDIS_VERSION,
        "server_name": "kvserver",
        "kvserver_version": __version__,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": 0,
        "redis_mode": mode,
        "server_mode": mode,
        "os": f"{system.system} {system.release} {system.machine}",
        "arch_bits": 64 if sys.maxsize > 2**32 else 32,
        "multiplexing_api": "threads",
        "python_version": platform.python_version(),
        "process_id": state.process_id,
        "run_id": state.run_id,
        "tcp_port": state.port,
        "server_time_usec": state.clock() * 1000,
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime // 86400,
        "executable": sys.executable,
        "config_file": "",
        "io_threads_active": 0,
        **{f"listener{number}": f"name={kind},bind={at}" for number, (kind, at) in enumerate(state.addresses)},
    }


def _clients(state: State) -> _Fields:
    sessions = state.clients.sessions()
    paused, milliseconds = state.pause.told()
    return {
        "connected_clients": len(state.clients),
        "cluster_connections": 0,
        "maxclients": state.config.maxclients,
        "client_recent_max_input_buffer": 0,
        "client_recent_max_output_buffer": 0,
        "blocked_clients": sum(session.blocked for session in sessions),
        "tracking_clients": sum(session.tracking is not None for session in sessions),
        "pubsub_clients": sum(session.subscribed for session in sessions),
        "watching_clients": sum(bool(session.watched) for session in sessions),
        "clients_in_timeout_table": 0,
        "total_watched_keys": sum(len(session.watched) for session in sessions),
        "total_blocking_keys": 0,
        "total_blocking_keys_on_nokey": 0,
        "paused_reason": "none" if paused == "none" else "client_pause",
        "paused_actions": paused,
        "paused_timeout_milliseconds": milliseconds,
    }


def _memory(state: State) -> _Fields:
    keyspace, config, resident = state.keyspace, state.config, memory_resident()
    with keyspace.lock:
        used, dataset = keyspace.used, keyspace.data_bytes
        peak = max(keyspace.peak_bytes, used)
    # Of a small amount of data the ratio would say nothing: the interpreter's own memory is not in ``used``.
    grown = resident - state.memory_at_start
    ratio = grown / used if used > _MEANINGFUL else 1.0
    return {
        "used_memory": used,
        "used_memory_human": _human(used),
        "used_memory_rss": resident,
        "used_memory_rss_human": _human(resident),
        "used_memory_peak": peak,
        "used_memory_peak_human": _human(peak),
        "used_memory_peak_perc": f"{100 * used / max(1, peak):.2f}%",
        "used_memory_overhead": used - dataset,
        "used_memory_startup": 0,
        "used_memory_dataset": dataset,
        "used_memory_dataset_perc": f"{100 * dataset / max(1, used):.2f}%",
        "total_system_memory": _system_memory(),
        "total_system_memory_human": _human(_system_memory()),
        "maxmemory": config.maxmemory,
        "maxmemory_human": _human(config.maxmemory),
        "maxmemory_policy": config.maxmemory_policy,
        "mem_fragmentation_ratio": f"{max(0.0, ratio):.2f}",
        "mem_fragmentation_bytes": max(0, grown - used),
        "mem_not_counted_for_evict": 0,
        "mem_clients_normal": state.buffers.total,
        "mem_aof_buffer": 0,
        "mem_allocator": "python",
        "lazyfree_pending_objects": 0,
    }


def memory_resident() -> int:
    """Resident memory of this process in bytes (the peak, where the system does not tell)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return memory_peak()
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_peak() -> int:
    """The most bytes of memory the process has had resident; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _system_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _human(size: float) -> str:
    for unit in "BKMGT":
        if size < 1024 or unit == "T":
            return f"{size:.0f}B" if unit == "B" else f"{size:.2f}{unit}"
        size /= 1024
    raise AssertionError("unreachable")


def _persistence(state: State) -> _Fields:
    persistence = state.persistence
    loading = _loading(state)
    if persistence is None:
        return loading | _saving(state.started_at, ok=True, seconds=-1, running=None) | _aof(enabled=False)
    journal, running = persistence.journal, persistence.rewriting_since
    ok, seconds = persistence.last_rewrite_ok, persistence.last_rewrite_seconds
    return (
        loading
        | _saving(persistence.saved_at, ok=ok, seconds=seconds, running=running)
        | {"rdb_changes_since_last_save": journal.appended}
        | _aof(enabled=True, ok=ok, seconds=seconds, running=running)
        | {
            "aof_last_write_status": "ok" if persistence.failure is None else "err",
            "aof_current_size": persistence.size(),
            "aof_base_size": persistence.base_size,
            "aof_buffer_length": journal.appended - journal.written,
            "aof_pending_rewrite": 0,
            "aof_pending_bio_fsync": int(journal.synced < journal.written),
            "aof_delayed_fsync": journal.delayed,
        }
    )


def _loading(state: State) -> _Fields:
    loading = state.loading
    if loading is None:
        return {"loading": 0, "async_loading": 0}
    since, done, total = loading
    return {
        "loading": 1,
        "async_loading": 0,
        "loading_start_time": int(time.time() - (time.monotonic() - since)),
        "loading_total_bytes": total,
        "loading_loaded_bytes": done,
        "loading_loaded_perc": f"{100 * done / max(1, total):.2f}",
    }


def _saving(saved_at: int, *, ok: bool, seconds: int, running: float | None) -> _Fields:
    return {
        "rdb_changes_since_last_save": 0,
        "rdb_bgsave_in_progress": int(running is not None),
        "rdb_last_save_time": saved_at // 1000,
        "rdb_last_bgsave_status": "ok" if ok else "err",
        "rdb_last_bgsave_time_sec": seconds,
        "rdb_current_bgsave_time_sec": _seconds_since(running),
    }


def _aof(*, enabled: bool, ok: bool = True, seconds: int = -1, running: float | None = None) -> _Fields:
    return {
        "aof_enabled": int(enabled),
        "aof_rewrite_in_progress": int(running is not None),
        "aof_rewrite_scheduled": 0,
        "aof_last_rewrite_time_sec": seconds,
        "aof_current_rewrite_time_sec": _seconds_since(running),
        "aof_last_bgrewrite_status": "ok" if ok else "err",
        "aof_last_write_status": "ok",
    }


def _seconds_since(moment: float | None) -> int:
    return -1 if moment is None else round(time.monotonic() - moment)


def _stats(state: State) -> _Fields:
    counted, keyspace, stats = state.counted(), state.keyspace, state.stats
    with keyspace.lock:
        keys, readers, prefixes = state.tracking.counts
    return {
        "total_connections_received": stats.connections,
        "total_commands_processed": counted["commands"],
        "total_net_input_bytes": counted["received"],
        "total_net_output_bytes": counted["sent"],
        "rejected_connections": stats.rejected,
        "delayed_connections": stats.delayed,
        "sync_full": 0,
        "sync_partial_ok": 0,
        "sync_partial_err": 0,
        "expired_keys": keyspace.expired,
        "evicted_keys": keyspace.eviction.evicted,
        "keyspace_hits": keyspace.hits + counted["hits"],
        "keyspace_misses": keyspace.misses + counted["misses"],
        "pubsub_channels": state.pubsub.count(Kind.CHANNEL),
        "pubsub_patterns": state.pubsub.count(Kind.PATTERN),
        "pubsubshard_channels": state.pubsub.count(Kind.SHARD),
        "latest_fork_usec": 0,
        "tracking_total_keys": keys,
        "tracking_total_items": readers,
        "tracking_total_prefixes": prefixes,
        "unexpected_error_replies": 0,
        "total_error_replies": stats.errors.total(),
        "total_reads_processed": counted["reads"],
        "total_writes_processed": counted["writes"],
        **{end.value: stats.ends[end] for end in End},
        "acl_access_denied_auth": stats.denied[Reason.AUTH],
        "acl_access_denied_cmd": stats.denied[Reason.COMMAND],
        "acl_access_denied_key": stats.denied[Reason.KEY],
        "acl_access_denied_channel": stats.denied[Reason.CHANNEL],
        "acl_access_denied_db": stats.denied[Reason.DATABASE],
    }


def _replication(state: State) -> _Fields:
    return {
        "role": "master",
        "connected_slaves": 0,
        "master_failover_state": "no-failover",
        "master_replid": state.run_id,
        "master_replid2": "0" * 40,
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
        "repl_backlog_size": 0,
        "repl_backlog_first_byte_offset": 0,
        "repl_backlog_histlen": 0,
    }


def _cpu(_state: State) -> _Fields:
    if sys.platform == "win32":
        return {"used_cpu_user": f"{time.process_time():.6f}"}
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "used_cpu_sys": f"{own.ru_stime:.6f}",
        "used_cpu_user": f"{own.ru_utime:.6f}",
        "used_cpu_sys_children": f"{children.ru_stime:.6f}",
        "used_cpu_user_children": f"{children.ru_utime:.6f}",
    }


def _errorstats(state: State) -> _Fields:
    with state.stats.lock:
        errors = sorted(state.stats.errors.items())
    return {f"errorstat_{code}": f"count={count}" for code, count in errors}


def _commandstats(state: State) -> _Fields:
    used = state.command_usage()
    rejected, failed = state.usage.refused()
    fields: _Fields = {}
    for name in sorted({*used, *rejected, *failed}):
        tally = used.get(name, [0])
        calls, microseconds = usage.calls(tally), tally[usage.TOTAL] // 1000
        fields[f"cmdstat_{name}"] = (
            f"calls={calls},usec={microseconds},usec_per_call={microseconds / max(1, calls):.2f},"
            f"rejected_calls={rejected[name]},failed_calls={failed[name]}"
        )
    return fields


def _latencystats(state: State) -> _Fields:
    return {
        f"latency_percentiles_usec_{name}": ",".join(
            f"p{percent:g}={usage.percentile(tally, percent):.3f}" for percent in (50, 99, 99.9)
        )
        for name, tally in sorted(state.command_usage().items())
    }


def _cluster(state: State) -> _Fields:
    return {"cluster_enabled": int(state.stands_for_cluster)}


def _keyspace(state: State) -> _Fields:
    fields: _Fields = {}
    with state.keyspace.lock:
        now = state.keyspace.clock()
        for number, database in enumerate(state.keyspace.databases):
            if keys := len(database.values):
                average = database.average_ttl(now)
                fields[f"db{number}"] = f"keys={keys},expires={len(database.deadlines)},avg_ttl={average}"
    return fields


INFO_SECTIONS: dict[str, Callable[[State], _Fields]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "cpu": _cpu,
    "commandstats": _commandstats,
    "errorstats": _errorstats,
    "latencystats": _latencystats,
    "cluster": _cluster,
    "keyspace": _keyspace,
}
"""By name in lower case, in the order in which they are shown."""
NOT_BY_DEFAULT = {"commandstats", "latencystats"}
"""What is long, and shown only to those who ask for it."""
