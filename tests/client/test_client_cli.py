"""The command line: quoting, display, exit status, and never a traceback."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvclient
from kvclient.cli import main
from kvclient.errors import server_error
from kvclient.protocol import Reply, SimpleString, Verbatim
from kvclient.text import quoted, show, show_raw, split_line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []), (b"  \t\n", []), (b"get k", [b"get", b"k"]), (b' set  "a b" c\n', [b"set", b"a b", b"c"]),
        (rb'"\x41\n\r\t\a\b\"\\\q"', [b'A\n\r\t\a\b"\\q']), (rb"'a\'b\n'", [rb"a'b\n"]), (rb"'a\\'", None),
        (b'""', [b""]), (b"''", [b""]), (b'a"b"', [b"ab"]), (b'"a"b', None), (b'"a', None), (b"'a", None),
        (b'"\\x4"', [b"x4"]), (b'"a\\', None), (b"\xff\x00", [b"\xff\x00"]),
        (b'set k "\xc3\xa9"', [b"set", b"k", b"\xc3\xa9"]),
    ],
)  # fmt: skip
def test_quoting(line: bytes, words: list[bytes] | None) -> None:
    if words is None:
        with pytest.raises(ValueError, match="quotes"):
            split_line(line)
    else:
        assert split_line(line) == words


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_what_is_quoted_is_read_back(words: list[bytes]) -> None:
    assert split_line(" ".join(map(quoted, words)).encode()) == words


@pytest.mark.parametrize(
    "line", [b'"' + b"\\" * 300_000, b"'" + b"\\'" * 200_000, b'"a" ' * 100_000, b"a" * 500_000 + b'"']
)
def test_quoting_is_linear(line: bytes) -> None:
    start = time.process_time()
    with contextlib.suppress(ValueError):
        split_line(line)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("reply", "shown", "raw"),
    [
        (SimpleString(b"OK"), "OK", b"OK"),
        (b'a"\xff\n', '"a\\"\\xff\\n"', b'a"\xff\n'),
        (None, "(nil)", b""),
        (5, "(integer) 5", b"5"),
        (1.5, "(double) 1.5", b"1.5"),
        (2.0, "(double) 2", b"2"),
        (True, "(true)", b"true"),
        (Verbatim(b"a\r\nb\x1b[2J"), "a\nb\\x1b[2J", b"a\r\nb\x1b[2J"),
        (server_error(b"ERR no"), "(error) ERR no", b"ERR no"),
        ([], "(empty array)", b""),
        ([1, [b"a", None]], '1) (integer) 1\n2) 1) "a"\n   2) (nil)', b"1\na\n"),
        ({b"k": [1, 2]}, '1# "k" => 1) (integer) 1\n          2) (integer) 2', b"k\n1\n2"),
        ({}, "(empty hash)", b""),
        ({b"a"}, '1~ "a"', b"a"),
        (set(), "(empty set)", b""),
    ],
)
def test_display(reply: Reply, shown: str, raw: bytes) -> None:
    assert show(reply) == shown
    assert show_raw(reply) == raw


def test_numbers_are_aligned() -> None:
    assert show(list(range(10))).splitlines()[0] == " 1) (integer) 0"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_one_command(own_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, own_url, "SET", "k", "v w") == (0, "OK\n", "")
    assert run(capsys, own_url, "GET", "k") == (0, "v w\n", "")
    assert run(capsys, "--typed", own_url, "GET", "k") == (0, '"v w"\n', "")
    assert run(capsys, "--typed", own_url, "GET", "missing") == (0, "(nil)\n", "")
    status, out, err = run(capsys, "--typed", own_url, "NOPE")
    assert (status, err) == (1, "")
    assert out.startswith("(error) ERR unknown command")


@pytest.mark.parametrize(
    "argv",
    [
        ["redis://127.0.0.1:1", "PING"], ["http://x", "PING"], ["redis://h?x=1", "PING"], ["--timeout", "-1", "PING"],
        ["{url}", "SUBSCRIBE", "c"], ["{url}", "client", "reply", "off"], ["rediss://h?tls_ca=/nonexistent", "PING"],
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line_and_status_2(
    own_url: str, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *(word.format(url=own_url) for word in argv))
    assert (status, out) == (2, "")
    assert err.startswith("kv: ")
    assert err.count("\n") == 1


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--nope"])
    assert raised.value.code == 2
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0


def kv_program(*argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command: list[Any] = [sys.executable, "-m", "kvclient", *argv]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=30)


def test_lines_from_a_pipe(own_url: str) -> None:
    lines = b'SET k "a\\nb"\n\nGET k\n"oops\nNOPE\nSELECT 2\nCLIENT INFO\nMONITOR\nquit\nGET k\n'
    done = kv_program("--typed", own_url, stdin=lines)
    out = done.stdout.decode()
    assert out.startswith('OK\n"a\\nb"\n(error) ERR unknown command')
    assert " db=2 " in out
    assert out.count("a\\nb") == 1
    errors = done.stderr.decode().splitlines()
    assert len(errors) == 2
    assert all(line.startswith("kv: ") for line in errors)


def test_the_program_as_a_whole(own_url: str) -> None:
    assert kv_program(own_url, "PING").stdout == b"PONG\n"
    bad = kv_program("redis://127.0.0.1:1", "PING")
    assert bad.returncode == 2
    assert b"Traceback" not in bad.stderr


def test_the_prompt_goes_on_after_the_connection_was_lost(
    own_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["PING", "CLIENT KILL TYPE normal SKIPME no", "PING", "PING", "exit"])

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    status, out, _ = run(capsys, own_url)
    assert status == 0
    assert out.splitlines()[0] == "PONG"
    assert out.splitlines()[-1] == "PONG"


def test_interrupt_and_end_of_input_end_the_prompt_politely(
    own_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    raised = iter([KeyboardInterrupt, EOFError])

    def ended(prompt: str) -> str:
        raise next(raised)

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", ended)
    status, out, err = run(capsys, own_url)
    assert (status, out, err) == (0, "\n\n", "")
    with kvclient.connect(own_url) as kv:
        assert kv.ping() == b"PONG"
