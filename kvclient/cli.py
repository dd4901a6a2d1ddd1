"""The command line: `kv [URL] [COMMAND ARGS...]`. One command, or a prompt if there is none.

Not here: quoting and display (text.py). It has a connection to itself, not a pool: at a prompt, SELECT is meant
to last.

Exit status: 0, or 1 if the server refused the command, or 2 if nothing could be asked.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Final

from kvclient.client import tls_context
from kvclient.connection import Connection
from kvclient.errors import BadURLError, KVError, ServerError
from kvclient.protocol import encode_command
from kvclient.text import show, show_raw, split_line
from kvclient.url import DEFAULT_URL, Options, parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvclient.protocol import Reply

USAGE_STATUS: Final = 2
INTERRUPT_STATUS: Final = 130
# These answer with none, or more than one, of the replies that a command is expected to have.
_UNANSWERED: Final = frozenset(
    b"SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR SYNC PSYNC".split()
)


class _Problem(Exception):  # noqa: N818 - never leaves this file
    """Something to tell in one line."""


class _Session:
    """A connection that is made again when it was lost, and how its replies are shown."""

    def __init__(self, options: Options, *, raw: bool) -> None:
        self._options = options
        self._raw = raw
        self._tls = tls_context(options) if options.tls else None
        self._connection = self._open()

    def _open(self) -> Connection:
        connection = Connection(self._options, self._tls)
        connection.open(time.monotonic() + self._options.timeout)
        return connection

    def close(self) -> None:
        self._connection.close()

    def ask(self, words: Sequence[bytes]) -> Reply:
        """One command's reply."""
        _refuse_unanswered(words)
        if self._connection.closed:
            self._connection = self._open()
        try:
            return self._connection.call(encode_command(words), time.monotonic() + self._options.timeout)
        except BaseException:
            self._connection.close()
            raise

    def run(self, words: Sequence[bytes]) -> int:
        """Run one command, show its reply, and return the exit status it stands for."""
        reply = self.ask(words)
        data = show_raw(reply) if self._raw else show(reply).encode("utf-8", "backslashreplace")
        sys.stdout.flush()
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.buffer.flush()
        return 1 if isinstance(reply, ServerError) else 0


def _refuse_unanswered(words: Sequence[bytes]) -> None:
    name = words[0].upper()
    if name in _UNANSWERED or [word.upper() for word in words[:2]] == [b"CLIENT", b"REPLY"]:
        raise _Problem(f"{name.decode('utf-8', 'replace')} is not for this prompt, which waits for one reply each")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own); return its exit status."""
    try:
        options, words, raw = _parse(sys.argv[1:] if argv is None else argv)
        session = _Session(options, raw=raw)
        try:
            return session.run(words) if words else _prompt(session, options)
        finally:
            session.close()
    except (KVError, _Problem, ValueError) as error:
        _complain(error)
        return USAGE_STATUS
    except KeyboardInterrupt:
        return INTERRUPT_STATUS
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain when it flushes at exit; it shall not.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _complain(error: BaseException) -> None:
    sys.stderr.write(f"kv: {' '.join(str(error).split())}\n")


def _parse(argv: Sequence[str]) -> tuple[Options, list[bytes], bool]:
    """The server's address, the command's words (none: prompt), and whether to show replies raw."""
    parser = argparse.ArgumentParser(
        prog="kv",
        usage="kv [-h] [--timeout SECONDS] [--raw | --typed] [URL] [COMMAND ARGS...]",
        description="Run one command on a key-value server, or commands from a prompt if none is given.",
        epilog=f"Without a URL, $KV_URL is used, or {DEFAULT_URL}. Replies to a terminal show their types.",
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait for a reply (5)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="show replies as they are, even on a terminal")
    form.add_argument("--typed", action="store_true", help="show replies with their types, even in a pipe")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    words: list[str] = given.words
    url = os.environ.get("KV_URL") or DEFAULT_URL
    if words and "://" in words[0]:
        url = words.pop(0)
    options = parse_url(url, timeout=given.timeout)
    raw = given.raw or not (given.typed or sys.stdout.isatty())
    return options, [os.fsencode(word) for word in words], raw


def _prompt(session: _Session, options: Options) -> int:
    """Run commands line by line; an error ends the command and not the prompt. The last one's status remains."""
    status = 0
    interactive = sys.stdin.isatty()
    if interactive:
        _enable_line_editing()
    for line in _input(f"{options.address}> ", interactive=interactive):
        try:
            words = split_line(line)
            if not words:
                continue
            if words[0].lower() in {b"quit", b"exit"}:
                break
            status = session.run(words)
        except BadURLError:
            raise
        except (KVError, _Problem, ValueError) as error:
            _complain(error)
            status = USAGE_STATUS
        except KeyboardInterrupt:
            if not interactive:
                raise
            sys.stderr.write("interrupted\n")
    return 0 if interactive else status


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401 - importing it is what gives input() its editing
    except ImportError:
        return


def _input(prompt: str, *, interactive: bool) -> Iterator[bytes]:
    """Lines from a terminal, or from a file or pipe."""
    if not interactive:
        yield from sys.stdin.buffer
        return
    while True:
        try:
            yield input(prompt).encode("utf-8", "surrogateescape")
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            sys.stdout.write("\n")
