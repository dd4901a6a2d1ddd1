"""What connections say of themselves and do to each other: CLIENT REPLY, KILL, LIST, NO-TOUCH, and RESET."""

from __future__ import annotations

import re
import threading
from typing import cast

import pytest
from conformance.oracle import Wire, answer, parse

import kvserver

REPLIES = {
    "off and on": "CLIENT REPLY OFF|PING|SET k v|FOO|CLIENT REPLY ON|PING",
    "skip": "CLIENT REPLY SKIP|PING|PING",
    "skip an error": "CLIENT REPLY SKIP|FOO|PING",
    "skip, and skip again": "CLIENT REPLY SKIP|CLIENT REPLY SKIP|PING|PING",
    "skip, then off": "CLIENT REPLY SKIP|CLIENT REPLY OFF|PING|CLIENT REPLY ON",
    "off, then skip": "CLIENT REPLY OFF|CLIENT REPLY SKIP|PING|PING|CLIENT REPLY ON|PING",
    "skip, then on": "CLIENT REPLY SKIP|CLIENT REPLY ON|PING",
    "wrong while off": "CLIENT REPLY OFF|CLIENT REPLY foo|CLIENT REPLY|CLIENT REPLY on",
    "off, then RESET": "CLIENT REPLY OFF|RESET|PING",
    "skip, then RESET": "CLIENT REPLY SKIP|RESET|PING",
    "off, then QUIT": "CLIENT REPLY OFF|QUIT|CLIENT REPLY ON|PING",
    "skip, then QUIT": "CLIENT REPLY SKIP|QUIT|PING",
    "off, then POST": "CLIENT REPLY OFF|POST / HTTP/1.1|CLIENT REPLY ON|PING",
    "off, then a protocol error": "CLIENT REPLY OFF|*1|x",
    "skip, then a protocol error": "CLIENT REPLY SKIP|*1|x",
    "off, then HELLO": "CLIENT REPLY OFF|HELLO 3|CLIENT REPLY ON|GET nothing",
    "an error in HELLO changes nothing": "CLIENT SETNAME x|HELLO 3 SETNAME y FOO|CLIENT GETNAME|GET nothing",
    "a version refused changes nothing": "CLIENT SETNAME x|HELLO 9 SETNAME y|CLIENT GETNAME|GET nothing",
    "a password refused changes nothing": "CLIENT SETNAME x|HELLO 3 AUTH a b SETNAME y|CLIENT GETNAME|GET nothing",
    "a name taken away": 'CLIENT SETNAME x|CLIENT SETNAME ""|CLIENT GETNAME',
}


@pytest.mark.parametrize("case", REPLIES)
def test_replies(server: kvserver.Server, valkey_port: int, case: str) -> None:
    data = REPLIES[case].replace("|", "\r\n").encode() + b"\r\n"
    assert answer(server.port, data) == answer(valkey_port, data)


@pytest.fixture(params=["kvserver", "valkey"])
def port(request: pytest.FixtureRequest) -> int:
    """Each server in turn: what is asserted holds for both."""
    if request.param == "valkey":
        return cast("int", request.getfixturevalue("valkey_port"))
    return cast("kvserver.Server", request.getfixturevalue("server")).port


def _address(wire: Wire) -> str:
    return re.findall(r"\baddr=(\S+)", _lines(wire.ask("CLIENT", "INFO"))[0])[0]


def _lines(reply: bytes) -> list[str]:
    return cast("bytes", parse(reply)).decode().splitlines()


def test_reset_takes_everything_back(port: int) -> None:
    with Wire(port) as wire:
        for command in ("SELECT 5", "CLIENT SETNAME x", "CLIENT NO-TOUCH ON", "CLIENT NO-EVICT ON", "HELLO 3"):
            wire.ask(*command.split())
        before = _lines(wire.ask("CLIENT", "INFO"))[0]
        assert wire.ask("RESET") == b"+RESET\r\n"
        after = _lines(wire.ask("CLIENT", "INFO"))[0]
    assert all(field in before for field in (" name=x ", " flags=eT ", " db=5 ", " resp=3 "))
    assert all(field in after for field in (" name= ", " flags=N ", " db=0 ", " resp=2 "))


def test_a_list_of_some(port: int) -> None:
    with Wire(port) as first, Wire(port) as second:
        first.ask("CLIENT", "SETNAME", "first")
        second.ask("CLIENT", "SETNAME", "second")
        second.ask("SELECT", 3)
        numbers = [parse(wire.ask("CLIENT", "ID")) for wire in (first, second)]

        def names(*filters: object) -> list[str]:
            reply = first.ask("CLIENT", "LIST", *map(str, filters))
            return [name for line in _lines(reply) for name in re.findall(r" name=(\w+)", line)]

        assert names("ID", *numbers) == ["first", "second"]
        assert names("ID", *numbers, "SKIPME", "yes") == ["second"]
        assert names("ID", *numbers, "NOT-ID", numbers[1]) == ["first"]
        assert names("NAME", "second") == ["second"]
        assert names("ID", *numbers, "NOT-NAME", "second") == ["first"]
        assert names("DB", 3, "NAME", "second") == ["second"]
        assert names("ID", *numbers, "NOT-DB", 3) == ["first"]
        assert names("ADDR", _address(second)) == ["second"]
        assert names("ID", *numbers, "NOT-ADDR", _address(second)) == ["first"]
        assert names("ID", *numbers, "TYPE", "normal", "USER", "default", "IP", "127.0.0.1") == ["first", "second"]
        assert names("ID", *numbers, "NOT-IP", "127.0.0.1") == []
        assert names("ID", *numbers, "NAME", "first", "NAME", "second") == ["second"]


def test_a_connection_may_end_another(port: int) -> None:
    with Wire(port) as killer:
        for choose in (
            lambda victim: ["ID", parse(victim.ask("CLIENT", "ID"))],
            lambda victim: ["ADDR", _address(victim)],
            lambda victim: ["NAME", "victim"],
            lambda victim: ["DB", 9],
        ):
            with Wire(port) as victim:
                victim.ask("CLIENT", "SETNAME", "victim")
                victim.ask("SELECT", 9)
                assert killer.ask("CLIENT", "KILL", *map(str, choose(victim))) == b":1\r\n"
                assert victim.ends(b"") in (b"", b"(reset)")
        with Wire(port) as victim:
            assert killer.ask("CLIENT", "KILL", _address(victim)) == b"+OK\r\n"
            assert victim.ends(b"") in (b"", b"(reset)")


def test_a_connection_may_end_itself_and_gets_its_reply(port: int) -> None:
    with Wire(port) as wire:
        number = parse(wire.ask("CLIENT", "ID"))
        assert wire.ask("CLIENT", "KILL", "ID", str(number)) == b":0\r\n"  # without SKIPME no it spares itself
        assert wire.ends(b"CLIENT KILL ID %d SKIPME no\r\nPING\r\n" % number) == b":1\r\n"
    with Wire(port) as wire:
        assert wire.ends(f"CLIENT KILL {_address(wire)}\r\nPING\r\n".encode()) == b"+OK\r\n"


def test_a_blocked_connection_can_be_ended(port: int) -> None:
    with Wire(port) as killer, Wire(port) as victim:
        number = parse(victim.ask("CLIENT", "ID"))
        victim.send(b"WAIT 1 0\r\n")
        assert killer.ask("CLIENT", "KILL", "ID", str(number)) == b":1\r\n"
        assert victim.ends(b"") in (b"", b"(reset)")


def test_who_has_been_ended_is_nobody_s_peer_any_more(server: kvserver.Server) -> None:
    """Not even while its thread is still busy with a command."""
    with Wire(server.port) as killer, Wire(server.port) as victim:
        victim.ask("HELLO", 3)
        number = parse(victim.ask("CLIENT", "ID"))
        victim.run([b"SUBSCRIBE", b"a"], [b"PSUBSCRIBE", b"p*"], [b"SSUBSCRIBE", b"s"])
        victim.send(b"DEBUG SLEEP 1\r\n")
        while b" cmd=debug" not in killer.ask("CLIENT", "LIST", "ID", str(number)):
            pass
        assert killer.ask("CLIENT", "KILL", "TYPE", "pubsub") == b":1\r\n"
        assert killer.ask("CLIENT", "KILL", "TYPE", "pubsub") == b":0\r\n"
        assert killer.ask("CLIENT", "KILL", "ID", str(number)) == b":0\r\n"
        assert killer.ask("PUBLISH", "a", "x") == killer.ask("PUBLISH", "p", "x") == b":0\r\n"
        assert killer.ask("PUBSUB", "NUMPAT") == killer.ask("SPUBLISH", "s", "x") == b":0\r\n"
        assert b" cmd=debug" not in killer.ask("CLIENT", "LIST")
        assert victim.ends(b"") in (b"", b"(reset)")


def test_idle_time_and_who_counts_as_using_a_key() -> None:
    now = 1_000_000
    with kvserver.Server(port=0, clock=lambda: now) as server, Wire(server.port) as user, Wire(server.port) as watcher:

        def idle() -> object:
            return parse(watcher.ask("OBJECT", "IDLETIME", "k"))

        now += 5_000
        user.ask("SET", "k", "v")
        assert idle() == 5  # unknown before the first question: as long as the server runs
        user.ask("GET", "k")
        assert idle() == 0
        now += 3_999
        assert idle() == 3  # asking is no use
        user.ask("CLIENT", "NO-TOUCH", "ON")
        user.ask("GET", "k")
        user.ask("STRLEN", "k")
        assert idle() == 3
        user.ask("TOUCH", "k")
        assert idle() == 0
        now += 2_000
        user.ask("CLIENT", "NO-TOUCH", "OFF")
        user.ask("EXISTS", "k")
        user.ask("TYPE", "k")
        assert idle() == 2
        user.ask("MGET", "k")
        assert idle() == 0


@pytest.mark.parametrize(
    ("left", "seconds"), [(1, 0), (499, 0), (500, 1), (999, 1), (1499, 1), (1500, 2), (10_000, 10)]
)
def test_ttl_is_rounded_to_the_nearest_second(left: int, seconds: int) -> None:
    with kvserver.Server(port=0, clock=lambda: 1_000_000) as server, Wire(server.port) as wire:
        wire.ask("SET", "k", "v", "PX", left)
        assert parse(wire.ask("TTL", "k")) == seconds
        assert parse(wire.ask("PTTL", "k")) == left
        assert parse(wire.ask("PEXPIRETIME", "k")) == 1_000_000 + left
        assert parse(wire.ask("EXPIRETIME", "k")) == 1_000 + seconds


def test_a_key_is_gone_in_the_millisecond_its_time_has_come() -> None:
    now = 1_000_000
    with kvserver.Server(port=0, clock=lambda: now) as server, Wire(server.port) as wire:
        wire.ask("SET", "k", "v", "PX", 10)
        now += 9
        assert wire.ask("GET", "k") == b"$1\r\nv\r\n"
        now += 1
        for command in (
            "GET k",
            "EXISTS k",
            "TTL k",
            "TYPE k",
            "KEYS *",
            "RANDOMKEY",
            "OBJECT ENCODING k",
            "PERSIST k",
        ):
            assert wire.ask(*command.split()) in (b"$-1\r\n", b":0\r\n", b":-2\r\n", b"+none\r\n", b"*0\r\n"), command


def test_debug_sleep_holds_everybody_up(server: kvserver.Server) -> None:
    """That is its purpose; and it ends when the server stops."""
    with Wire(server.port) as sleeper, Wire(server.port) as other:
        asleep = threading.Thread(target=sleeper.ask, args=("DEBUG", "SLEEP", "0.05"))
        asleep.start()
        assert other.ask("SET", "k", "v") == b"+OK\r\n"
        asleep.join()
        assert sleeper.ask("DEBUG", "SLEEP", "0") == b"+OK\r\n"
        assert sleeper.ask("DEBUG", "SLEEP", "soon") == b"+OK\r\n"
