"""A person with telnet: the inline form, its quotes, HELP, a typo, and leaving."""

from __future__ import annotations

import pytest
from support import need
from terminal import Terminal

import kvserver


@pytest.fixture
def telnet(server: kvserver.Server) -> Terminal:
    return Terminal([need("telnet"), "127.0.0.1", str(server.port)])


def test_a_session(telnet: Terminal) -> None:
    with telnet as screen:
        screen.see("Escape character is")
        screen.enter("PING")
        screen.see("+PONG\n")
        screen.enter('SET greeting "hello, \\"world\\"\\n"')
        screen.see("+OK\n")
        screen.enter("get greeting")
        screen.see('$15\nhello, "world"\n\n')
        screen.enter("SET 'single quotes' 'it\\'s'")
        screen.see("+OK\n")
        screen.enter("GET 'single quotes'")
        screen.see("$4\nit's\n")
        screen.enter("GET none")
        screen.see("$-1\n")
        screen.enter("")
        screen.enter("INCR n")
        screen.see(":1\n")
        screen.enter("MGET n none")
        screen.see("*2\n$1\n1\n$-1\n")
        screen.enter("GTE n")
        screen.see("-ERR unknown command 'GTE', with args beginning with: 'n' \n")
        screen.enter("GET")
        screen.see("-ERR wrong number of arguments for 'get' command\n")
        screen.enter("QUIT")
        screen.see("+OK\n")
        screen.see("Connection closed by foreign host.")


def test_help(telnet: Terminal) -> None:
    with telnet as screen:
        screen.see("Escape character is")
        screen.enter("HELP")
        screen.see("Commands (HELP command explains one; QUIT leaves):\n")
        screen.see("string:\n  APPEND ")
        screen.see("connection:\n")
        screen.see(" TIME")
        screen.enter("help set")
        screen.see("SET key value [NX | XX | IFEQ value | IFNE value | IFDEQ digest |")
        screen.see("A time to live that the key had is discarded, unless KEEPTTL.")
        screen.enter("HELP nothing")
        screen.see("-ERR there is no command 'nothing'; HELP lists them\n")


def test_unbalanced_quotes_end_it(telnet: Terminal) -> None:
    with telnet as screen:
        screen.see("Escape character is")
        screen.enter('SET k "open')
        screen.see("-ERR Protocol error: unbalanced quotes in request\n")
        screen.see("Connection closed by foreign host.")
