"""CLIENT PAUSE: commands wait, all of them or those that may write, until the time is over or someone ends it."""

from __future__ import annotations

import threading
import time


class Pause:
    """The pauses in force. Waiting threads are woken when a pause ends early, and when the server stops."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all_until = 0.0  # monotonic seconds; past: no pause
        self._writes_until = 0.0
        self._stopped = False

    @property
    def active(self) -> bool:
        """Whether any pause is in force."""
        return max(self._all_until, self._writes_until) > time.monotonic()

    def begin(self, seconds: float, *, only_writes: bool) -> None:
        """Pause for a time. A longer or stricter pause that is in force goes on as well."""
        until = time.monotonic() + seconds
        with self._changed:
            if only_writes:
                self._writes_until = max(self._writes_until, until)
            else:
                self._all_until = max(self._all_until, until)

    def end(self) -> None:
        """End all pauses."""
        with self._changed:
            self._all_until = self._writes_until = 0.0
            self._changed.notify_all()

    def stop(self) -> None:
        """The server stops: nobody waits any longer, now or later."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def told(self) -> tuple[str, int]:
        """What is paused (``none``, ``write`` or ``all``) and for how many milliseconds still."""
        now = time.monotonic()
        what = "all" if self._all_until > now else "write" if self._writes_until > now else "none"
        return what, max(0, int((max(self._all_until, self._writes_until) - now) * 1000))

    def wait(self, *, writes: bool) -> None:
        """Wait while a pause concerns a command, one that ``writes`` or another. No lock is held by the caller."""
        with self._changed:
            while not self._stopped:
                until = max(self._all_until, self._writes_until if writes else 0.0)
                left = until - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)
