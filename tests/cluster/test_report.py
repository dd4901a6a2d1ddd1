"""KV.CLUSTER REPORT: what would break in a cluster, noted where all works, and where it is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.oracle import Wire

import kvclient
import kvserver
from kvclient.commands.to import ClusterReport, ClusterTrouble
from kvserver import state
from kvserver.cluster import Reason, Report
from kvserver.commands import known_scripts


@pytest.fixture(params=["report", "emulated"])
def noting(request: pytest.FixtureRequest) -> Iterator[kvserver.Server]:
    with kvserver.Server(port=0, cluster_mode=request.param) as server:
        yield server


def noted(server: kvserver.Server, *typed: str) -> list[tuple[str, str, int, list[bytes]]]:
    """What is in the report after these commands of one connection."""
    with Wire(server.port) as wire:
        wire.run(*(line.encode().split() for line in typed))
    with kvclient.connect(server.url) as kv:
        return [tuple(trouble) for trouble in kv.kv_cluster_report().troubles]


@pytest.mark.parametrize(
    ("typed", "reason", "command", "example"),
    [
        ("MGET a b", "cross-slot", "mget", b"MGET a b"),
        ("MSET a secret b secret", "cross-slot", "mset", b"MSET a b"),
        ("BITOP AND a b c", "cross-slot", "bitop", b"BITOP a b c"),
        ("RENAME a b", "cross-slot", "rename", b"RENAME a b"),
        ("SSUBSCRIBE a b", "cross-slot", "ssubscribe", b"SSUBSCRIBE a b"),
        ("EVALSHA secret 2 a b secret", "cross-slot", "evalsha", b"EVALSHA a b"),
        ("KV.ONCE secret 1000 MSET a 1 b 2", "cross-slot", "kv.once", b"KV.ONCE MSET a b"),
        ("SELECT 3", "database", "select", b"SELECT 3"),
        ("MOVE a 1", "database", "move", b"MOVE a 1"),
        ("COPY {a}1 {a}2 DB 1", "database", "copy", b"COPY {a}1 {a}2 DB 1"),
        ("SWAPDB 0 1", "not-in-a-cluster", "swapdb", b"SWAPDB 0 1"),
    ],
)
def test_one_command(noting: kvserver.Server, typed: str, reason: str, command: str, example: bytes) -> None:
    assert noted(noting, typed, "PING") == [(reason, command, 1, example.split())]


@pytest.mark.parametrize(
    "typed",
    [
        "MGET a a", "MGET {a}1 {a}2", "SELECT 0", "SELECT 16", "SELECT x", "SELECT -1", "MOVE a 0",
        "COPY {a}1 {a}2 DB 0", "COPY {a}1 {a}2 REPLACE", "KEYS *", "GET", "MSETEX x a 1 b 2", "EVAL x 9 a b",
        "EVAL x -1 a b", "PUBLISH a b", "WATCH a", "EXEC",
        "KV.ONCE t 1000 FOO", "KV.ONCE t 1000 MSETEX", "OBJECT ENCODING a", "CLUSTER KEYSLOT a",
    ],
)  # fmt: skip
def test_what_works_in_a_cluster_or_nowhere_is_not_noted(noting: kvserver.Server, typed: str) -> None:
    assert noted(noting, typed) == []


def test_a_transaction(noting: kvserver.Server) -> None:
    lines = ["MULTI", "PING", "SET a secret", "INCR {a}1", "SET b secret", "GET c", "EXEC"]
    example = [b"MULTI", b"SET", b"a", b"SET", b"b", b"EXEC"]
    assert noted(noting, *lines) == [("cross-slot-transaction", "set", 1, example)]
    assert noted(noting, "MULTI", "SET a 1", "SET b 1", "DISCARD") == [("cross-slot-transaction", "set", 1, example)]
    assert noted(noting, "MULTI", "GET a", "FOO", "GET b", "EXEC") == [("cross-slot-transaction", "set", 1, example)]


def test_what_is_refused_is_not_run_and_what_is_only_noted_is() -> None:
    lines = [b"WATCH a", b"MULTI", b"SET a 1", b"SET b 1", b"EXEC", b"EXEC"]
    for mode, reply, value in (("report", b"*2\r\n+OK\r\n+OK\r\n", b"$1\r\n1\r\n"), ("emulated", None, b"$-1\r\n")):
        with kvserver.Server(port=0, cluster_mode=mode) as server, Wire(server.port) as wire:
            *_, executed, again = wire.run(*map(bytes.split, lines))
            assert executed == (reply or b"-CROSSSLOT Keys in request don't hash to the same slot\r\n")
            assert again == b"-ERR EXEC without MULTI\r\n"
            assert wire.ask("GET", "a") == value


def test_a_watched_key_of_another_slot(noting: kvserver.Server) -> None:
    example = [b"WATCH", b"b", b"MULTI", b"SET", b"a", b"EXEC"]
    assert noted(noting, "WATCH a", "MULTI", "SET a 1", "EXEC") == []
    assert noted(noting, "WATCH b", "MULTI", "PING", "EXEC") == []
    assert noted(noting, "WATCH a", "WATCH b", "MULTI", "SET a 1", "EXEC") == [
        ("cross-slot-watch", "watch", 1, example)
    ]


def test_a_script_that_uses_other_keys_than_it_is_given(
    noting: kvserver.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = next(iter(known_scripts.TOUCHES_ANY_KEY))
    noting._state.scripts[b"sha1"] = clear
    assert noted(noting, "EVALSHA sha1 0 LIMITER*") == [("undeclared-keys", "evalsha", 1, [b"EVALSHA"])]


def test_it_counts_and_begins_anew(noting: kvserver.Server) -> None:
    with kvclient.connect(noting.url) as kv, Wire(noting.port) as wire:
        wire.run(*[[b"MGET", b"a", b"b"]] * 3, [b"SELECT", b"1"])
        assert kv.kv_cluster_report() == ClusterReport(
            noting._state.config.cluster_mode,
            4,
            0,
            [
                ClusterTrouble("cross-slot", "mget", 3, [b"MGET", b"a", b"b"]),
                ClusterTrouble("database", "select", 1, [b"SELECT", b"1"]),
            ],
        )
        kv.kv_cluster_reset()
        assert kv.kv_cluster_report()[1:] == (0, 0, [])
        assert "REPORT" in kv.kv_cluster_help()


def test_its_memory_is_bounded() -> None:
    report = Report()
    report.note(Reason.CROSS_SLOT, "mget", [b"MGET", b"k" * 1000, *[b"key"] * 1000])
    (long,), _ = report.troubles()
    assert long.example == (b"MGET", b"k" * 128 + b"...", *[b"key"] * 14, b"...")
    for number in range(150):
        report.note(Reason.CROSS_SLOT, f"command{number}", [b"C"])
    kinds, left_out = report.troubles()
    assert (len(kinds), left_out) == (100, 51)
    assert report.totals() == {"calls": 151, "cross_slot": 100}


def test_who_may_read_it(noting: kvserver.Server, server: kvserver.Server) -> None:
    with kvclient.connect(noting.url) as kv, Wire(noting.port) as wire:
        kv.acl_setuser("app", "on", ">secret", "~*", "+@all", "-@admin")
        wire.ask("AUTH", "app", "secret")
        for subcommand in ("REPORT", "RESET"):
            assert wire.ask("KV.CLUSTER", subcommand).startswith(b"-NOPERM")
    with Wire(server.port) as wire:
        for subcommand in ("REPORT", "RESET"):
            assert wire.ask("KV.CLUSTER", subcommand).startswith(b"-ERR there is no report: start the server with")


def test_when_the_server_ends_its_log_tells_the_totals_once_and_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, dict[str, object]]] = []

    class Log:
        def info(self, event: str, **fields: object) -> None:
            lines.append((event, fields))

    monkeypatch.setattr(state, "get_logger", Log)
    with kvserver.Server(port=0, cluster_mode="report") as server, Wire(server.port) as wire:
        wire.run([b"MGET", b"a", b"b"], [b"SELECT", b"1"], [b"SELECT", b"2"])
    server.stop()
    assert lines == [("cluster.report", {"calls": 3, "cross_slot": 1, "database": 2})]
