"""HELP, which a person on telnet reads: everything is there, and fits an ordinary screen."""

from __future__ import annotations

import re
import socket

import pytest

import kvserver
from kvserver.commands import COMMANDS
from kvserver.commands.registry import Command, every

_COMMANDS = [entry for each in every(COMMANDS) for entry in (each, *every(each.subcommands))]


def _help(server: kvserver.Server, words: str = "") -> str:
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock, sock.makefile("rb") as replies:
        sock.sendall(f"HELP {words}\r\n".encode())
        header = replies.readline()
        assert header[:1] == b"$", header
        return replies.read(int(header[1:])).decode()


def test_without_a_command_it_lists_them_all_by_group(server: kvserver.Server) -> None:
    text = _help(server)
    assert {entry.name.upper() for entry in every()} <= set(text.split())
    assert "\r\nstring:\r\n  APPEND " in text
    assert re.search(r"\w:\r\n\r\n", text) is None  # no heading without commands under it


@pytest.mark.parametrize("words", ["", "SET", "client", "CLIENT LIST", "lcs", "COMMAND"])
def test_lines_fit_a_screen_and_end_as_telnet_ends_them(server: kvserver.Server, words: str) -> None:
    text = _help(server, words)
    assert "\n" not in text.replace("\r\n", "")
    assert max(map(len, text.split("\r\n"))) < 80


def test_every_command_and_subcommand_is_explained(server: kvserver.Server) -> None:
    def words(entry: Command) -> str:
        return entry.name.replace("|", " ")

    for entry in _COMMANDS:
        text = " ".join(_help(server, words(entry)).split())
        assert text.startswith(f"{words(entry).upper()} {entry.syntax}".strip())
        assert entry.summary in text
        assert entry.complexity in text


def test_an_option_and_its_value_stay_on_one_line(server: kvserver.Server) -> None:
    assert "PX milliseconds |" in _help(server, "SET")


def test_debug_explains_what_it_can_do(server: kvserver.Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock, sock.makefile("rb") as replies:
        sock.sendall(b"DEBUG HELP\r\nPING\r\n")
        lines = list(iter(replies.readline, b"+PONG\r\n"))
    assert lines[0] == b"*%d\r\n" % (len(lines) - 1)
    assert {b"+SLEEP seconds\r\n", b"+SET-ACTIVE-EXPIRE flag\r\n"} < set(lines)
