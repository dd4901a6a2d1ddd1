"""HOTKEYS: which keys take most time, or most bytes. Each handler works on the session.

Beside the command documentation: HOTKEYS GET answers with an array of one map, for that is what redis-py and node-redis
take apart.
"""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands.arguments import as_integer
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.observe.hotkeys import Collection, Plan
from kvserver.protocol.replies import OK, Error, Reply, SimpleString
from kvserver.session import Session

_server = partial(
    command, group=Group.SERVER, runs=Runs.ON_SESSION, flags=Flags.ADMIN | Flags.NOSCRIPT, since="8.6.0",
    tips=("nondeterministic_output", "request_policy:all_nodes"),
)  # fmt: skip
_ALL_SLOTS = 16384


@_server("HOTKEYS", "subcommand [argument ...]", arity=-2, flags=Flags.NONE, tips=())
def hotkeys(_session: Session) -> Reply:
    """Finds the keys that take most time or most bytes, by its subcommands."""
    raise AssertionError("a container is never run")


@_server(
    "HOTKEYS|START",
    "METRICS count [CPU] [NET] [COUNT k] [DURATION seconds] [SAMPLE ratio] [SLOTS count slot [slot ...]]",
    arity=-4,
)
def hotkeys_start(session: Session, *words: bytes) -> SimpleString:
    """Begins to count which keys take most time (CPU), or most bytes of requests and replies (NET)."""
    state = session.state
    plan = _plan(words)
    with state.keyspace.lock:  # one at a time
        if state.counts_hotkeys():
            raise Error("ERR a collection is in progress: end it by HOTKEYS STOP")
        state.hotkeys = Collection(plan, state.clock())
        state.mind()
    return OK


@_server("HOTKEYS|STOP", "", arity=2)
def hotkeys_stop(session: Session) -> SimpleString | None:
    """Ends counting and keeps what was counted; null if nothing was being counted."""
    state = session.state
    with state.keyspace.lock:
        if state.hotkeys is None or not state.counts_hotkeys():
            return None
        state.hotkeys.end(state.clock())
        state.mind()
    return OK


@_server("HOTKEYS|RESET", "", arity=2)
def hotkeys_reset(session: Session) -> SimpleString:
    """Forgets what was counted."""
    state = session.state
    with state.keyspace.lock:
        if state.counts_hotkeys():
            raise Error("ERR a collection is in progress: end it by HOTKEYS STOP")
        state.hotkeys = None
    return OK


@_server("HOTKEYS|GET", "", arity=2, complexity="O(K), K keys reported")
def hotkeys_get(session: Session) -> Reply:
    """Returns what has been counted so far; null if nothing was ever begun, or it was forgotten."""
    state = session.state
    with state.keyspace.lock:
        state.counts_hotkeys()
        found = state.hotkeys
    return None if found is None else [_report(found, state.clock())]


def _report(found: Collection, now: int) -> Reply:
    plan = found.plan
    report: dict[bytes, Reply] = {
        b"tracking-active": int(found.ended is None),
        b"sample-ratio": plan.sample,
        b"selected-slots": [[0, _ALL_SLOTS - 1]],
        b"all-commands-all-slots-us": found.nanoseconds // 1000,
        b"net-bytes-all-commands-all-slots": found.bytes,
        b"collection-start-time-unix-ms": found.started,
        b"collection-duration-ms": max(0, (now if found.ended is None else found.ended) - found.started),
    }
    by_time, by_bytes = found.largest()
    if plan.cpu:
        report[b"total-cpu-time-user-ms"], report[b"total-cpu-time-sys-ms"] = found.cpu_milliseconds()
        report[b"by-cpu-time-us"] = [part for key, amount in by_time for part in (key, amount // 1000)]
    if plan.net:
        report[b"total-net-bytes"] = found.bytes
        report[b"by-net-bytes"] = [part for key, amount in by_bytes for part in (key, amount)]
    return report


def _plan(words: tuple[bytes, ...]) -> Plan:
    """What START was given.

    Raises:
        Error: something in it makes no sense.
    """
    if words[0].upper() != b"METRICS":
        raise Error("ERR HOTKEYS START begins with METRICS and the number of metrics")
    names, rest = _metrics(words[1:])
    numbers = {"COUNT": 10, "DURATION": 0, "SAMPLE": 1}
    seen: set[str] = set()
    while rest:
        name = rest[0].upper().decode("latin-1")
        if name == "SLOTS":
            raise Error("ERR SLOTS needs cluster mode, and this server is not in cluster mode")
        if name not in numbers or name in seen or len(rest) < 2:
            raise Error(errors.SYNTAX)
        seen.add(name)
        numbers[name] = _number(name, rest[1])
        rest = rest[2:]
    return Plan(b"CPU" in names, b"NET" in names, numbers["COUNT"], numbers["DURATION"], numbers["SAMPLE"])


def _metrics(words: tuple[bytes, ...]) -> tuple[set[bytes], tuple[bytes, ...]]:
    """The names after METRICS, as many as were announced, and the words behind them."""
    count = as_integer(words[0])
    if count is None or not 1 <= count <= 2:
        raise Error("ERR METRICS takes 1 or 2, and then as many of CPU and NET")
    names = {word.upper() for word in words[1 : 1 + count]}
    if len(names) != count or not names <= {b"CPU", b"NET"}:
        raise Error("ERR METRICS takes 1 or 2, and then as many of CPU and NET")
    return names, words[1 + count :]


_MOST = {"COUNT": 64, "DURATION": 1_000_000, "SAMPLE": 1_000_000}


def _number(name: str, word: bytes) -> int:
    number = as_integer(word)
    if number is None or not 1 <= number <= _MOST[name]:
        raise Error(f"ERR {name} takes a number from 1 to {_MOST[name]}")
    return number
