r"""Exact examples: transcripts of telnet sessions in ``transcripts/``, played against kvserver and against Valkey.

So the transcripts are checked themselves. In one, ``## `` begins a fresh session on an emptied server, ``> `` is what
is sent, the line below it the reply in RESP2, with ``\r\n`` and other unprintable bytes escaped and the last line end
left out. Where the two servers differ (see ``differences.py``) there are two replies, marked with a name each.

After a change on purpose, write the replies anew and read the diff::

    PYTHONPATH=tests python -m conformance.test_commands
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from conformance.differences import DIFFERENCES, Difference, covers
from conformance.oracle import Wire
from support import real_valkey

import kvserver
from kvserver.protocol.inline import split_arguments

TRANSCRIPTS = Path(__file__).parent / "transcripts"
_OURS, _THEIRS = "kvserver: ", "valkey: "


@dataclass
class Step:
    typed: str
    ours: bytes = b""
    theirs: bytes = b""


@dataclass
class Session:
    title: str
    steps: list[Step]


def read(path: Path) -> list[Session]:
    sessions: list[Session] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sessions.append(Session(f"{path.stem}: {line[3:]}", []))
        elif line.startswith("> "):
            sessions[-1].steps.append(Step(line[2:]))
        elif line.startswith(_OURS):
            sessions[-1].steps[-1].ours = _unescaped(line.removeprefix(_OURS))
        elif line.startswith(_THEIRS):
            sessions[-1].steps[-1].theirs = _unescaped(line.removeprefix(_THEIRS))
        elif line:
            sessions[-1].steps[-1].ours = sessions[-1].steps[-1].theirs = _unescaped(line)
    return sessions


def _unescaped(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1") + b"\r\n"


def _escaped(reply: bytes) -> str:
    return reply.removesuffix(b"\r\n").decode("latin-1").encode("unicode_escape").decode("ascii")


def play(port: int, session: Session, protocol: int = 2) -> list[bytes]:
    with Wire(port) as wire:
        wire.run([b"FLUSHALL"], [b"HELLO", b"%d" % protocol])
        replies = []
        for step in session.steps:
            wire.send(step.typed.encode("utf-8") + b"\r\n")
            replies.append(wire.read())
        return replies


SESSIONS = [session for path in sorted(TRANSCRIPTS.glob("*.txt")) for session in read(path)]
each_session = pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.title)


@each_session
def test_kvserver_answers_as_transcribed(server: kvserver.Server, session: Session) -> None:
    for step, reply in zip(session.steps, play(server.port, session), strict=True):
        assert reply == step.ours, step.typed


@each_session
def test_valkey_answers_as_transcribed(valkey_port: int, session: Session) -> None:
    for step, reply in zip(session.steps, play(valkey_port, session), strict=True):
        assert reply == step.theirs, step.typed


@each_session
def test_resp3_differs_only_where_resp2_does(server: kvserver.Server, valkey_port: int, session: Session) -> None:
    ours, theirs = play(server.port, session, 3), play(valkey_port, session, 3)
    for step, our_reply, their_reply in zip(session.steps, ours, theirs, strict=True):
        assert our_reply == their_reply or step.ours != step.theirs, step.typed


def test_every_difference_in_a_transcript_is_a_reviewed_one() -> None:
    steps = [step for session in SESSIONS for step in session.steps]
    strays = [step.typed for step in steps if step.ours != step.theirs and not covers(split_arguments(_typed(step)))]
    assert strays == []


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row.subject)
def test_each_difference_is_still_one(server: kvserver.Server, valkey_port: int, row: Difference) -> None:
    assert covers(split_arguments(row.example)) is row
    ours, theirs = (_one_reply(port, row.example) for port in (server.port, valkey_port))
    assert (ours != theirs) is row.shows_at_once


def _one_reply(port: int, typed: bytes) -> bytes:
    with Wire(port) as wire:
        wire.run([b"SET", b"a", b"x"])
        wire.send(typed + b"\r\n")
        return wire.read()


def _typed(step: Step) -> bytes:
    return step.typed.encode("utf-8")


def _write(path: Path, our_port: int, their_port: int) -> None:
    """Write a transcript's replies anew, from its commands."""
    lines = []
    for session in read(path):
        lines += [f"## {session.title.partition(': ')[2]}"]
        replies = zip(session.steps, play(our_port, session), play(their_port, session), strict=True)
        for step, ours, theirs in replies:
            lines += ["", f"> {step.typed}"]
            lines += [_escaped(ours)] if ours == theirs else [_OURS + _escaped(ours), _THEIRS + _escaped(theirs)]
        lines += ["", ""]
    path.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")


def _main() -> None:
    with (
        kvserver.Server(port=0, log_level="error", debug_command="yes") as ours,
        real_valkey() as theirs,
    ):
        for path in sorted(TRANSCRIPTS.glob("*.txt")):
            _write(path, ours.port, theirs)


if __name__ == "__main__":
    _main()
