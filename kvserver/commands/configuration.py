"""CONFIG: reading and changing settings by their Redis names, and resetting counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from kvserver import errors
from kvserver.commands.containers import add_help
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.config import OPTIONS, ConfigError, Option
from kvserver.protocol.replies import OK, Error, Reply, SimpleString
from kvserver.session import Session
from kvserver.store.glob import compile_glob

_config = partial(
    command,
    group=Group.SERVER,
    runs=Runs.ON_SESSION,
    flags=Flags.ADMIN | Flags.NOSCRIPT | Flags.LOADING | Flags.STALE,
    since="2.0.0",
)
_ALL_NODES = ("request_policy:all_nodes", "response_policy:all_succeeded")

# Settings of Redis that tools ask for and that have only one value here. They can be set to that value.
FIXED = {
    "cluster-enabled": "no",
    "lazyfree-lazy-expire": "yes",
    "lazyfree-lazy-user-del": "yes",
    "lazyfree-lazy-user-flush": "yes",
    "latency-tracking": "yes",
    "latency-tracking-info-percentiles": "50 99 99.9",
    "lazyfree-lazy-eviction": "yes",
    "maxmemory-samples": "5",
    "acl-pubsub-default": "resetchannels",
    "save": "",
}
_NEVER_SET = {"cluster-enabled"}  # not even to the value it has
_OPTIONS = {option.config_name: option for option in OPTIONS}
_OPTIONS |= {
    "commandlog-execution-slower-than": _OPTIONS["slowlog-log-slower-than"],
    "commandlog-slow-execution-max-len": _OPTIONS["slowlog-max-len"],
}


@command("CONFIG", "subcommand [argument ...]", group=Group.SERVER, runs=Runs.ON_SESSION, arity=-2, since="2.0.0")
def config(_session: Session) -> Reply:
    """Reads and changes settings, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("CONFIG", group=Group.SERVER, since="5.0.0")


@_config("CONFIG|GET", "parameter [parameter ...]", arity=-3, complexity="O(N*M), N settings and M patterns")
def config_get(session: Session, *patterns: bytes) -> Reply:
    """Returns the settings whose names match any of the glob patterns, with their values."""
    values = {name.encode("ascii"): value for name, value in _all(session).items()}
    chosen: dict[bytes, bytes] = {}  # the name, and how it is shown
    for pattern in patterns:
        matches = _matcher(pattern.lower())
        for name in filter(matches, values):
            chosen.setdefault(name, name if _is_glob(pattern) else pattern)
    return {chosen[name]: values[name].encode("utf-8", "surrogateescape") for name in sorted(chosen)}


def _is_glob(pattern: bytes) -> bool:
    return any(byte in pattern for byte in b"[*?")


def _matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """A name without wildcards is taken as it is, and a backslash in it too."""
    return compile_glob(pattern) if _is_glob(pattern) else pattern.__eq__


def _all(session: Session) -> dict[str, str]:
    values = {name: option.kind.show(getattr(session.state.config, option.name)) for name, option in _OPTIONS.items()}
    shown = {
        "appendonly": session.state.persistence is not None,
        "cluster-enabled": session.state.stands_for_cluster,
    }
    ports = {"port": str(session.state.port), "tls-port": str(session.state.tls_port)}  # 0 for none, as in Redis
    return FIXED | values | ports | {name: "yes" if holds else "no" for name, holds in shown.items()}


@_config(
    "CONFIG|SET",
    "parameter value [parameter value ...]",
    arity=-4,
    complexity="O(N), N settings",
    tips=_ALL_NODES,
)
def config_set(session: Session, *words: bytes) -> SimpleString:
    """Changes settings, all or none."""
    if len(words) % 2:
        raise Error(errors.SYNTAX)
    changes: dict[str, Any] = {}
    seen: set[bytes] = set()
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name.lower() in seen:
            raise _refused(name, "duplicate parameter")
        seen.add(name.lower())
        changes |= _change(session, name, value.decode("utf-8", "surrogateescape"))
    state = session.state
    with state.keyspace.lock:  # two at once must not lose a change; and notifications are set under it
        state.apply(replace(state.config, **changes))
    state.make_room()
    return OK


def _change(session: Session, name: bytes, value: str) -> dict[str, Any]:
    """The field that one setting changes, with its new value; empty if it already has that value for good."""
    known = _all(session)
    key = name.lower().decode("utf-8", "surrogateescape")
    if key not in known:
        raise Error(f"ERR Unknown option or number of arguments for CONFIG SET - '{errors.quote(name)}'")
    if (FIXED.get(key) == value and key not in _NEVER_SET) or (key == "appendonly" and known[key] == value):
        return {}
    option: Option | None = _OPTIONS.get(key)
    if option is None or not option.live:
        raise _refused(name, "can't set immutable config")
    if session.state.gateway is not None and option.name in session.state.gateway.settings_of_data:
        raise _refused(name, "a gateway has no data")
    try:
        if option.name == "client_output_buffer_limit":  # the classes that are not named keep theirs
            value = f"{option.kind.show(session.state.config.client_output_buffer_limit)} {value}"
        return {option.name: option.parse(value, "value")}
    except ConfigError as error:
        raise _refused(name, _wanted(option, value) or str(error.__cause__)) from None


def _wanted(option: Option, value: str) -> str:
    """What would do, of a setting that is a number; empty for another."""
    if option.kind.bounds is None:
        return ""
    try:
        option.kind.number(value)
    except ValueError:
        size = option.kind.metavar == "BYTES"
        return "argument must be a memory value" if size else "argument couldn't be parsed into an integer"
    return "argument must be between {} and {} inclusive".format(*option.kind.bounds)


def _refused(name: bytes, why: str) -> Error:
    return Error(f"ERR CONFIG SET failed (possibly related to argument '{errors.quote(name)}') - {why}")


@_config("CONFIG|RESETSTAT", "", arity=2, tips=_ALL_NODES)
def config_resetstat(session: Session) -> SimpleString:
    """Sets the counters that INFO shows to zero."""
    session.state.reset_counters()
    return OK
