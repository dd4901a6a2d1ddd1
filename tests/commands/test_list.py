"""COMMAND LIST names every command and subcommand; subcommands too without a filter, as in Valkey."""

from __future__ import annotations

import redis

import kvserver


def names(port: int) -> set[str]:
    with redis.Redis(port=port, decode_responses=True) as client:
        return set(client.execute_command("COMMAND LIST"))


def test_every_name_is_one_of_valkeys(server: kvserver.Server, valkey_port: int) -> None:
    ours = names(server.port)
    assert {"client", "client|id", "get"} <= ours
    # One is for people on telnet, those with a dot are this server's own, the others are Redis' newest.
    assert ours - names(valkey_port) == {"help", "delex", "digest", "increx"} | {
        name for name in ours if name.startswith(("hotkeys", "kv."))
    }
