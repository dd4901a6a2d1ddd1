"""Which failed calls are made again, and after what pause. The rule is the same for threads and for asyncio.

A command is made again only if that cannot apply it twice: it was certainly not applied, or it is one that may be
(it only reads, or carries a token, see Client.once). The first time at once, since a connection that was idle is
often merely stale; then after pauses that double and are cut by chance, so that clients do not come back all at
once. All of it within the call's one deadline.

Not here: waiting, and sending.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from kvclient.errors import CannotConnectError, ConnectionLostError, LoadingError

if TYPE_CHECKING:
    from kvclient.errors import KVError

_FIRST_PAUSE: Final = 0.01  # seconds
_LONGEST_PAUSE: Final = 1.0


def pause_before_retry(error: KVError, attempt: int, *, safe: bool, retries: int, left: float) -> float | None:
    """Seconds to wait before a call is made again; None if it shall not be.

    Args:
        error: why it failed.
        attempt: how often it has been made, 1 or more.
        safe: whether running it twice is as good as once.
        retries: how often it may be made again.
        left: seconds until the call's deadline.
    """
    if attempt > retries or left <= 0 or not isinstance(error, ConnectionLostError | CannotConnectError | LoadingError):
        return None
    if not safe and error.applied != "no":
        return None
    if attempt == 1 and isinstance(error, ConnectionLostError):
        return 0.0
    pause = pause_of(attempt)
    return pause if pause < left else None


def pause_of(attempt: int) -> float:
    """Seconds to wait after so many attempts, 1 or more."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1)  # noqa: S311
