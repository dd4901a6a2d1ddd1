"""Watching the server at work: MONITOR, SLOWLOG, COMMANDLOG, LATENCY. Each handler works on the session."""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands.arguments import as_integer
from kvserver.commands.containers import add_help
from kvserver.commands.registry import COMMANDS, Command, Flags, Group, Runs, command, find
from kvserver.observe import usage
from kvserver.observe.commandlog import CommandLog
from kvserver.protocol.replies import OK, Error, IntegerMap, Reply, SimpleString, Verbatim
from kvserver.session import Session

_server = partial(command, group=Group.SERVER, runs=Runs.ON_SESSION)
_LOADING = Flags.LOADING | Flags.STALE
_ADMIN = Flags.ADMIN | _LOADING
_ALL_NODES = ("request_policy:all_nodes", "response_policy:all_succeeded")
_SUM_OF_NODES = ("request_policy:all_nodes", "response_policy:agg_sum")
_OWN_NODES = ("request_policy:all_nodes", "nondeterministic_output")


@_server("MONITOR", "", arity=1, flags=Flags.ADMIN | Flags.NOSCRIPT | _LOADING, complexity="O(1), then per command")
def monitor(session: Session) -> SimpleString:
    """Shows every command that the server runs, for as long as the connection lasts."""
    session.state.open_pushes(session)
    session.state.monitors.add(session)
    session.monitoring = True
    session.mind()
    session.state.mind()
    return OK


# SLOWLOG and COMMANDLOG


@_server("SLOWLOG", "subcommand [argument ...]", arity=-2, since="2.2.12")
def slowlog(_session: Session) -> Reply:
    """Tells which commands took long, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("SLOWLOG", group=Group.SERVER, since="6.2.0")


@_server(
    "SLOWLOG|GET", "[count]", arity=-2, flags=_ADMIN, since="2.2.12", complexity="O(N), N entries", tips=_OWN_NODES
)
def slowlog_get(session: Session, *words: bytes) -> Reply:
    """Returns the newest entries, 10 of them unless a number is given: number, time, microseconds, command, client."""
    if len(words) > 1:
        raise errors.SubcommandUsageError
    return _entries(session.state.slow_commands, words[0] if words else b"10")


@_server("SLOWLOG|LEN", "", arity=2, flags=_ADMIN, since="2.2.12", tips=(*_SUM_OF_NODES, "nondeterministic_output"))
def slowlog_len(session: Session) -> int:
    """Returns how many entries there are."""
    return len(session.state.slow_commands)


@_server("SLOWLOG|RESET", "", arity=2, flags=_ADMIN, since="2.2.12", complexity="O(N), N entries", tips=_ALL_NODES)
def slowlog_reset(session: Session) -> SimpleString:
    """Forgets all entries."""
    session.state.slow_commands.clear()
    return OK


@_server("COMMANDLOG", "subcommand [argument ...]", arity=-2, since="8.1.0")
def commandlog(_session: Session) -> Reply:
    """Tells which commands took long or were large, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("COMMANDLOG", group=Group.SERVER, since="8.1.0")
_KIND = "<SLOW | LARGE-REQUEST | LARGE-REPLY>"


@_server(
    "COMMANDLOG|GET", f"count {_KIND}", arity=4, flags=_ADMIN, since="8.1.0", complexity="O(N), N entries",
    tips=_OWN_NODES,
)  # fmt: skip
def commandlog_get(session: Session, count: bytes, kind: bytes) -> Reply:
    """Returns the newest entries of a kind, -1 for all."""
    return _entries(_log(session, kind), count)


@_server(
    "COMMANDLOG|LEN", _KIND, arity=3, flags=_ADMIN, since="8.1.0", tips=(*_SUM_OF_NODES, "nondeterministic_output")
)
def commandlog_len(session: Session, kind: bytes) -> int:
    """Returns how many entries of a kind there are."""
    return len(_log(session, kind))


@_server("COMMANDLOG|RESET", _KIND, arity=3, flags=_ADMIN, since="8.1.0", complexity="O(N), N entries", tips=_ALL_NODES)
def commandlog_reset(session: Session, kind: bytes) -> SimpleString:
    """Forgets all entries of a kind."""
    _log(session, kind).clear()
    return OK


def _log(session: Session, kind: bytes) -> CommandLog:
    state = session.state
    logs = {
        b"slow": state.slow_commands, b"large-request": state.large_requests, b"large-reply": state.large_replies,
    }  # fmt: skip
    if kind.lower() not in logs:
        raise Error("ERR type should be one of the following: slow, large-request, large-reply")
    return logs[kind.lower()]


def _entries(log: CommandLog, count: bytes) -> Reply:
    wanted = as_integer(count)
    if wanted is None or wanted < -1:
        raise Error("ERR count should be greater than or equal to -1")
    return [
        [entry.number, entry.time, entry.amount, list(entry.words), entry.address.encode("utf-8", "surrogateescape"),
         entry.name]
        for entry in log.newest(wanted)
    ]  # fmt: skip


# LATENCY


@_server("LATENCY", "subcommand [argument ...]", arity=-2, since="2.8.13")
def latency(_session: Session) -> Reply:
    """Tells when commands took longer than the setting latency-monitor-threshold, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("LATENCY", group=Group.SERVER, since="2.8.13")
_latency = partial(
    _server,
    flags=_ADMIN | Flags.NOSCRIPT,
    since="2.8.13",
    tips=("nondeterministic_output", "request_policy:all_nodes", "response_policy:special"),
)


@_latency("LATENCY|LATEST", "", arity=2)
def latency_latest(session: Session) -> Reply:
    """Returns a line an event: name, time of the latest spike, its milliseconds, the worst, their sum and number."""
    return [
        [name.encode("ascii"), *event.samples[-1], event.worst, event.total, event.count]
        for name, event in session.state.latency.latest().items()
    ]


@_latency("LATENCY|HISTORY", "event", arity=3)
def latency_history(session: Session, event: bytes) -> Reply:
    """Returns the spikes of an event: Unix seconds and milliseconds of each."""
    return [list(sample) for sample in session.state.latency.history(event.decode("utf-8", "surrogateescape"))]


@_latency("LATENCY|RESET", "[event [event ...]]", arity=-2, tips=_SUM_OF_NODES)
def latency_reset(session: Session, *events: bytes) -> int:
    """Forgets the spikes of some events, or of all; returns of how many."""
    return session.state.latency.reset({event.decode("utf-8", "surrogateescape") for event in events})


@_latency("LATENCY|DOCTOR", "", arity=2)
def latency_doctor(session: Session) -> Verbatim:
    """Returns a report on the spikes, for people."""
    threshold = session.state.config.latency_monitor_threshold
    events = session.state.latency.latest()
    if not threshold:
        return Verbatim(b"Spikes are not recorded: CONFIG SET latency-monitor-threshold <milliseconds> does that.\n")
    if not events:
        return Verbatim(b"No command has taken %d ms or more.\n" % threshold)
    lines = [
        f"{name}: {event.count} spikes of {threshold} ms or more, {event.total // event.count} ms on average, "
        f"{event.worst} ms at worst. SLOWLOG GET may tell which commands they were.\n"
        for name, event in events.items()
    ]
    return Verbatim("".join(lines).encode("ascii"))


@_latency(
    "LATENCY|HISTOGRAM",
    "[command [command ...]]",
    arity=-2,
    since="7.0.0",
    complexity="O(N), N commands",
    tips=("nondeterministic_output", "request_policy:all_nodes", "response_policy:special"),
)
def latency_histogram(session: Session, *names: bytes) -> Reply:
    """Returns for each command how many calls took up to 1, 2, 4 ... microseconds."""
    used = session.state.command_usage()
    wanted = list(used) if not names else [entry.name for name in names for entry in _with_subcommands(name)]
    return {
        name.encode("ascii"): {
            b"calls": usage.calls(used[name]),
            b"histogram_usec": IntegerMap(usage.histogram(used[name])),
        }
        for name in dict.fromkeys(wanted)
        if name in used
    }


def _with_subcommands(name: bytes) -> list[Command]:
    """A command, and all of its subcommands; none if there is no such command."""
    container, _, subcommand = name.partition(b"|")
    entry = find(COMMANDS, container)
    if entry is not None and subcommand:
        entry = find(entry.subcommands, subcommand)
    return [] if entry is None else [entry, *dict.fromkeys(entry.subcommands.values())]
