"""redis-cli, unmodified: one command at a time, its modes, and the prompt with its completion and hints."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import need
from terminal import Terminal

import kvserver

_KEYS = 50_000
Run = Callable[..., str]


@pytest.fixture
def cli(server: kvserver.Server) -> Run:
    """Run redis-cli with some arguments; gives its output. It must end well."""
    program = need("redis-cli")

    def run(*arguments: str, given: bytes = b"") -> str:
        done = subprocess.run(
            [program, "-p", str(server.port), *arguments], input=given, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert done.stderr == b""
        return done.stdout.decode()

    return run


@pytest.fixture
def prompt(server: kvserver.Server, tmp_path: Path) -> Callable[..., Terminal]:
    """Start redis-cli on a terminal, with an empty home so that nobody's preferences and history matter."""
    program = need("redis-cli")
    return lambda *arguments: Terminal([program, "-p", str(server.port), *arguments], {"HOME": str(tmp_path)})


def _fill(cli: Run, keys: int) -> str:
    commands = b"".join(b"SET key:%d %d\r\n" % (number, number) for number in range(keys))
    return cli("--pipe", given=commands)


# One command and out


@pytest.mark.parametrize("version", [(), ("-3",)], ids=["RESP2", "RESP3"])
def test_single_commands(cli: Run, version: tuple[str, ...]) -> None:
    assert cli(*version, "SET", "k", "two words") == "OK\n"
    assert cli(*version, "GET", "k") == "two words\n"
    assert cli(*version, "GET", "none") == "\n"
    assert cli(*version, "--no-raw", "GET", "none") == "(nil)\n"
    assert cli(*version, "--no-raw", "INCR", "n") == "(integer) 1\n"
    assert cli(*version, "MGET", "k", "n") == "two words\n1\n"
    assert (
        cli(*version, "LPUSH", "list", "1") == "ERR unknown command 'LPUSH', with args beginning with: 'list' '1' \n\n"
    )
    assert "role:master" in cli(*version, "INFO")


def test_maps_are_shown_as_such_in_resp3(cli: Run) -> None:
    assert cli("-3", "--no-raw", "CONFIG", "GET", "maxclients") == '1# "maxclients" => "10000"\n'
    assert cli("-3", "--json", "CONFIG", "GET", "maxclients") == '{"maxclients":"10000"}\n'
    assert json.loads(cli("--json", "MGET", "none")) == [None]
    assert cli("--csv", "CONFIG", "GET", "maxclients") == '"maxclients","10000"\n'


def test_a_failed_command_shows_in_the_exit_status_when_asked(server: kvserver.Server) -> None:
    arguments = [need("redis-cli"), "-p", str(server.port), "-e", "INCR"]
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == 1


def test_databases_repetition_and_the_last_argument_from_standard_input(cli: Run) -> None:
    assert cli("-n", "3", "SET", "k", "three") == "OK\n"
    assert cli("-n", "3", "GET", "k") == "three\n"
    assert cli("GET", "k") == "\n"
    assert cli("-r", "5", "-i", "0.01", "INCR", "n") == "1\n2\n3\n4\n5\n"
    assert cli("-x", "SET", "bytes", given=b"\x01\r\nlast") == "OK\n"
    assert cli("STRLEN", "bytes") == "7\n"
    assert cli(given=b"SET a 1\nINCR a\nGET a\n") == "OK\n2\n2\n"


def test_a_url(server: kvserver.Server, cli: Run) -> None:
    assert cli("-u", f"{server.url}/7", "SET", "k", "v") == "OK\n"
    assert cli("-n", "7", "GET", "k") == "v\n"


# Modes


def test_mass_insertion(cli: Run) -> None:
    assert f"errors: 0, replies: {_KEYS}\n" in _fill(cli, _KEYS)
    assert cli("DBSIZE") == f"{_KEYS}\n"
    assert cli("GET", f"key:{_KEYS - 1}") == f"{_KEYS - 1}\n"
    found = cli("--scan", "--pattern", "key:1*").split()
    assert sorted(found) == sorted(f"key:{number}" for number in range(_KEYS) if str(number).startswith("1"))


def test_mass_insertion_counts_what_was_refused(server: kvserver.Server) -> None:
    done = subprocess.run(
        [need("redis-cli"), "-p", str(server.port), "--pipe"],
        input=b"SET k v\r\nINCR k\r\nSET k w\r\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"errors: 1, replies: 3\n" in done.stdout


def test_the_biggest_keys(cli: Run) -> None:
    _fill(cli, 300)
    cli("SET", "big", "x" * 1000)
    shown = cli("--bigkeys")
    assert "Sampled 301 keys" in shown
    assert "Biggest string found '\"big\"' has 1000 bytes" in shown
    assert "301 strings with" in shown


def test_statistics_as_they_come(prompt: Callable[..., Terminal], cli: Run) -> None:
    _fill(cli, 1234)
    with prompt("--stat", "-i", "0.1") as screen:
        assert "clients" in screen.see("connections")
        for _ in range(3):
            screen.see("1234 ")
        screen.type("\x03")


def test_latency(prompt: Callable[..., Terminal]) -> None:
    with prompt("--latency", "-i", "1") as screen:
        screen.see("avg: ")
        screen.see("samples)")


# The prompt. What is typed before it has come is lost: redis-cli clears the input when it takes over the terminal.


def test_the_prompt_greets_hints_and_completes_from_our_own_command_table(prompt: Callable[..., Terminal]) -> None:
    with prompt() as screen:
        screen.see("> ")
        screen.type("set")
        screen.see("set key value [NX|XX|IFEQ value|IFNE value|IFDEQ digest|IFDNE digest] [GET]")
        screen.enter(" k v")
        screen.see("\nOK\n")
        screen.see("> ")
        screen.type("strl\t")
        screen.see("STRLEN key")
        screen.enter(" k")
        screen.see("(integer) 1")
        screen.see("> ")
        screen.type("client ki\t")
        screen.see("CLIENT KILL ip:port|filter value [filter value ...]")
        screen.enter(" nobody:0")
        screen.see("(error) ERR No such client")
        screen.see("> ")
        screen.type("mset a 1 ")
        screen.see("mset a 1 [key value ...]")
        screen.enter("b 2")
        screen.see("\nOK\n")
        screen.see("> ")
        screen.enter("quit")
        assert screen.exit_status() == 0


def test_the_prompt_explains_our_commands(prompt: Callable[..., Terminal]) -> None:
    with prompt() as screen:
        screen.see("> ")
        screen.enter("help getdel")
        screen.see("GETDEL key\n  summary: Returns the value of a key and deletes the key.\n")
        screen.see("> ")
        screen.enter("help @string")
        screen.see("SUBSTR key start end")
        screen.see("> ")
        screen.enter("GTE k")
        screen.see("(error) ERR unknown command 'GTE', with args beginning with: 'k'")
        screen.see("> ")
        screen.enter("select 3")
        screen.see("[3]> ")


def test_the_prompt_in_resp3(prompt: Callable[..., Terminal]) -> None:
    with prompt("-3") as screen:
        screen.see("> ")
        screen.type("getex")
        screen.see("getex key [EX seconds|PX milliseconds|")
        screen.enter(" k")
        screen.see("(nil)")
        screen.see("> ")
        screen.enter("hello")
        screen.see('"server" => "redis"')
        screen.see("> ")
