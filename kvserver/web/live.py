"""What the live page is told: server-sent events of JSON, one for each sample, and what its user may see beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kvserver.version import __version__
from kvserver.web.exchange import Response
from kvserver.web.sampler import Sample, Sampler
from kvserver.web.visitor import Visitor

if TYPE_CHECKING:
    from kvserver.state import State

_PATIENCE = 15.0
"""Seconds after which something is sent though there is nothing to tell, so that the connection is seen to live."""
_MOST_COMMANDS = 12
_MOST_SLOW = 20


def live(visitor: Visitor, sampler: Sampler) -> Response:
    """A stream of events, until the server stops or the user may no longer look.

    Raises:
        Error: the user may not look at all.
    """
    visitor.run("INFO", "cluster")  # what the page shows is what INFO tells
    return Response(content_type="text/event-stream", stream=_events(visitor, sampler))


def _events(visitor: Visitor, sampler: Sampler) -> Iterator[bytes]:
    yield _event("history", [sample.values for sample in sampler.samples()])
    seen, told = 0, ""
    while True:
        try:
            sample = sampler.after(seen, _PATIENCE)
        except EOFError:
            return
        if not visitor.may("INFO"):
            yield _event("denied", "The user may no longer see this.")
            return
        if sample is None:
            yield b": nothing new\n\n"
            continue
        seen = sample.number
        extra = json.dumps(_extra(visitor))
        yield _event("sample", _message(visitor.state, sample)) + (b"" if extra == told else _raw("extra", extra))
        told = extra


def _event(name: str, content: object) -> bytes:
    return _raw(name, json.dumps(content))


def _raw(name: str, content: str) -> bytes:
    return f"event: {name}\ndata: {content}\n\n".encode()


def _message(state: State, sample: Sample) -> dict[str, Any]:
    return {
        "values": sample.values,
        "commands": [asdict(each) for each in sample.commands[:_MOST_COMMANDS]],
        "server": about(state),
    }


def about(state: State) -> dict[str, Any]:
    """What the server is and how it is."""
    config = state.config
    return {
        "version": __version__,
        "uptime": (state.clock() - state.started_at) // 1000,
        "port": state.port or state.tls_port,
        "maxmemory": config.maxmemory,
        "policy": config.maxmemory_policy,
        "maxclients": config.maxclients,
        "databases": len(state.keyspace.databases),
        "fsync": config.fsync if config.data_dir else None,
        "trouble": trouble(state),
        "writes": config.web_writes == "yes",
        "slower": config.slowlog_log_slower_than,
    }


def trouble(state: State) -> str | None:
    """Why the server does not do all it should, if so."""
    if state.stopping.is_set():
        return "stopping"
    if state.loading is not None:
        return "loading"
    if state.refuses_writes is not None:
        return "writes refused"
    return None


def _extra(visitor: Visitor) -> dict[str, Any]:
    """What shows keys, and so has a permission of its own; None where the user has not."""
    return {
        "slow": _slow(visitor.state) if visitor.may("SLOWLOG", "GET") else None,
        "hot": _hot(visitor.state) if visitor.may("HOTKEYS", "GET") else None,
    }


def _slow(state: State) -> list[dict[str, Any]]:
    return [
        {
            "time": entry.time,
            "micros": entry.amount,
            "command": " ".join(map(_text, entry.words)),
            "client": _text(entry.name) or entry.address,
        }
        for entry in state.slow_commands.newest(_MOST_SLOW)
    ]


def _hot(state: State) -> dict[str, Any]:
    with state.keyspace.lock:
        running = state.counts_hotkeys()
        found = state.hotkeys
    if found is None:
        return {"running": False, "started": None, "time": [], "bytes": []}
    by_time, by_bytes = found.largest()
    return {
        "running": running,
        "started": found.started,
        "time": _shares(by_time, found.nanoseconds),
        "bytes": _shares(by_bytes, found.bytes),
    }


def _shares(keys: Sequence[tuple[bytes, int]], whole: int) -> list[dict[str, Any]]:
    return [{"key": _text(key)[:200], "share": min(1.0, amount / max(1, whole))} for key, amount in keys]


def _text(word: bytes) -> str:
    """A word as text, without what would change how the text around it is shown, such as its direction."""
    return "".join(map(_harmless, word.decode("utf-8", "backslashreplace")))


def _harmless(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
