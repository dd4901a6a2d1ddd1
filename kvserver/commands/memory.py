"""MEMORY: what keys and the server take up, in bytes, counted as ``maxmemory`` counts them."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import sys
from functools import partial

from kvserver import errors
from kvserver.commands.arguments import as_integer
from kvserver.commands.containers import add_help
from kvserver.commands.registry import Flags, Group, Keys, Runs, command
from kvserver.observe.info import memory_peak, memory_resident
from kvserver.protocol.replies import OK, Error, Reply, SimpleString, Verbatim
from kvserver.session import Session
from kvserver.store.memory import DEADLINE_BYTES, Database, size_of

_server = partial(command, group=Group.SERVER, since="4.0.0")
_about = partial(
    _server,
    runs=Runs.ON_SESSION,
    tips=("nondeterministic_output", "request_policy:all_shards", "response_policy:special"),
)


@_server("MEMORY", "subcommand [argument ...]", runs=Runs.ON_SESSION, arity=-2)
def memory(_session: Session) -> Reply:
    """Tells what takes up memory, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("MEMORY", group=Group.SERVER, since="4.0.0")


@_server("MEMORY|USAGE", "key [SAMPLES count]", arity=-3, flags=Flags.READONLY, keys=Keys(2, 2, 1, "RO"))
def memory_usage(db: Database, key: bytes, *words: bytes) -> int | None:
    """Returns the bytes that a key and its value take up, null for no such key."""
    if words:
        count = as_integer(words[1]) if len(words) == 2 and words[0].upper() == b"SAMPLES" else -1
        if count is None:
            raise Error(errors.NOT_AN_INTEGER)
        if count < 0:
            raise Error(errors.SYNTAX)
    value = db.look(key, announce=False)
    if value is None:
        return None
    size = size_of(key, value)
    return size if db.deadline(key) is None else size + DEADLINE_BYTES


@_about("MEMORY|STATS", "", arity=2)
def memory_stats(session: Session) -> Reply:
    """Returns what the process and each database take up, in the names of Redis where they mean something."""
    state = session.state
    resident = memory_resident()
    with state.keyspace.lock:
        used, dataset = state.keyspace.used, state.keyspace.data_bytes
        peak = max(state.keyspace.peak_bytes, used)
        tables: dict[bytes, Reply] = {
            b"db.%d" % database.index: {
                b"overhead.hashtable.main": sys.getsizeof(database.values),
                b"overhead.hashtable.expires": sys.getsizeof(database.deadlines),
            }
            for database in state.keyspace.databases
            if database.values
        }
        keys = sum(len(database.values) for database in state.keyspace.databases)
    return {
        b"peak.allocated": peak,
        b"total.allocated": used,
        b"startup.allocated": 0,
        b"clients.normal": sum(other.pending_input for other in state.clients.sessions()),
        **tables,
        b"overhead.total": used - dataset,
        b"keys.count": keys,
        b"keys.bytes-per-key": used // keys if keys else 0,
        b"dataset.bytes": dataset,
        b"dataset.percentage": 100.0 * dataset / max(used, 1),
        b"peak.percentage": 100.0 * used / max(peak, 1),
        b"allocator.resident": resident,
    }


@_about("MEMORY|DOCTOR", "", arity=2)
def memory_doctor(_session: Session) -> Verbatim:
    """Returns advice on the memory in use, for people."""
    resident, peak = memory_resident(), memory_peak()
    if peak > resident * 1.5 and peak - resident > 100 * 1024**2:
        advice = b"The process once used %d MB and now uses %d. MEMORY PURGE gives back what it keeps for later.\n" % (
            peak // 1024**2,
            resident // 1024**2,
        )
        return Verbatim(advice)
    return Verbatim(b"Nothing stands out: the process uses %d MB.\n" % (resident // 1024**2))


@_server(
    "MEMORY|PURGE", "", runs=Runs.ON_SESSION, arity=2, flags=Flags.LOADING,
    complexity="O(N), N objects in memory", tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)  # fmt: skip
def memory_purge(_session: Session) -> SimpleString:
    """Gives memory that is kept for later back to the system."""
    gc.collect()
    if sys.platform == "linux" and (library := ctypes.util.find_library("c")) is not None:
        trim = getattr(ctypes.CDLL(library), "malloc_trim", None)  # glibc's; others have none
        if trim is not None:
            trim(0)
    return OK


@_about("MEMORY|MALLOC-STATS", "", arity=2, flags=Flags.LOADING)
def memory_malloc_stats(_session: Session) -> Verbatim:
    """Returns how many blocks Python's allocator has handed out."""
    return Verbatim(b"Python holds %d blocks of memory.\n" % sys.getallocatedblocks())
