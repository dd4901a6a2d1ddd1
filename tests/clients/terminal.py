"""A program on a pseudo-terminal, typed at as a person would: send keys, wait for what the screen shows."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

_SECONDS = 20
_UNSEEN = re.compile(r"\x1b\[\??[0-9;]*[A-Za-z]|\r+(?=\n)")
"""Colours and cursor movements, and the carriage returns of line ends."""


class Terminal:
    """One program, started with the terminal as its input and output; ended when the ``with`` block is left."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._own, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (50, 200))
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            start_new_session=True,
        )
        os.close(theirs)
        self._screen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._own)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._own, text.encode())

    def enter(self, line: str) -> None:
        """Type a line and press Enter."""
        self.type(line + "\r")

    def see(self, wanted: str) -> str:
        """Wait until ``wanted`` is on the screen; returns what was shown up to it. Lines end in a line feed."""
        until = time.monotonic() + _SECONDS
        while wanted not in (shown := _UNSEEN.sub("", self._screen)):
            if not self._read(until - time.monotonic()):
                raise AssertionError(f"{wanted!r} did not appear on the screen, which shows {shown!r}")
        before, _, after = shown.partition(wanted)
        self._screen = after
        return before + wanted

    def exit_status(self) -> int:
        """Wait until the program has ended by itself."""
        until = time.monotonic() + _SECONDS
        while self._read(until - time.monotonic()):
            pass
        return self._process.wait(_SECONDS)

    def _read(self, seconds: float) -> bool:
        """Take in what the program writes; False when it has ended or the time is over."""
        ready, _, _ = select.select([self._own], [], [], max(0.0, seconds))
        with contextlib.suppress(OSError):  # how Linux reports that the other end is closed
            if ready and (written := os.read(self._own, 65536)):
                self._screen += written.decode("utf-8", "replace")
                if b"\x1b[6n" in written:  # a program that asks where the cursor is gets an answer, as from a real one
                    self.type("\x1b[1;1R")
                return True
        return False
