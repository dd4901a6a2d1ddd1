"""What follows an error on a cluster: which node to ask next, when, and whether at all. Without input or output.

MOVED, ASK, TRYAGAIN and CLUSTERDOWN say that nothing was done, so any command may be sent again. A node that cannot be
reached may have failed, and another takes its place within seconds: so it is tried again until the call's deadline,
not only a few times. What may have been applied is sent again only if that cannot apply it twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kvclient.cluster.slots import Address
from kvclient.cluster.split import crossing
from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    ClusterError,
    ConnectionLostError,
    LoadingError,
    ReadOnlyError,
    ServerError,
    TransactionAbortedError,
)
from kvclient.protocol import encode_command
from kvclient.retry import pause_of

if TYPE_CHECKING:
    from kvclient.errors import KVError

ASKING: Final = encode_command((b"ASKING",))
_AT_ONCE = 3
"""So many redirections follow each other without a pause; more mean that the nodes do not agree yet."""


_ON_ITS_WAY = 0.01
"""Seconds to wait before a slot that is on its way to another node is looked at again."""


class Step(NamedTuple):
    """What to do next.

    Attributes:
        pause: seconds to wait before.
        refresh: whether to ask the nodes who has which slot now.
        address: the node to ask, if it is known; otherwise whoever has the slot.
        asking: whether that node is to be told ASKING before, since the slot is only on its way there.
    """

    pause: float
    refresh: bool = False
    address: Address | None = None
    asking: bool = False


def step_after(error: KVError, attempt: int, *, safe: bool, again: bool, left: float, asked: Address) -> Step | None:
    """What to do after an error; None if it is to be raised.

    Args:
        error: why the attempt failed.
        attempt: which it was, from 1.
        safe: whether running the command twice is as good as once.
        again: whether to try again where a connection failed, too; redirections are always followed.
        left: seconds until the call's deadline.
        asked: the node that it was sent to.
    """
    if left <= 0:
        return None
    pause = 0.0 if attempt <= _AT_ONCE else pause_of(attempt - _AT_ONCE)
    step: Step | None = None
    cause = root_of(error)
    if isinstance(cause, ClusterError):
        step = _redirected(cause, pause, attempt, asked)
    elif not again:
        return None
    elif isinstance(cause, ReadOnlyError | LoadingError | CannotConnectError):
        step = Step(pause_of(attempt), refresh=True)
    elif isinstance(cause, ConnectionLostError | CallTimeoutError) and (safe or cause.applied == "no"):
        step = Step(0.0 if attempt == 1 else pause_of(attempt), refresh=True)
    return step if step is not None and step.pause < left else None


class Route:
    """Where one call is sent, from attempt to attempt.

    Args:
        slot: of its keys.
        safe, again: as for step_after().

    Attributes:
        address: the node to ask next, if it is known; otherwise whoever has the slot.
        asking: whether to tell it ASKING before.
        failed: the node that was asked and did not answer, if that is why there is another attempt.
    """

    def __init__(self, slot: int, *, safe: bool, again: bool) -> None:
        self.slot = slot
        self._safe, self._again = safe, again
        self._attempt = 1
        self.address: Address | None = None
        self.asking = False
        self.failed: Address | None = None

    def after(self, error: KVError, asked: Address, left: float) -> Step:
        """What to do before the next attempt.

        Raises:
            KVError: the error, if there is to be none.
        """
        step = step_after(error, self._attempt, safe=self._safe, again=self._again, left=left, asked=asked)
        if step is None:
            raise error
        self._attempt += 1
        self.address, self.asking = step.address, step.asking
        self.failed = None if isinstance(error, ServerError) else asked
        return step

    def after_together(self, error: KVError, asked: Address, left: float) -> Step:
        """The same for commands that run together: they do not follow a key on its way, but wait until all have moved.

        Raises:
            CrossSlotError: one of their keys is in another slot.
        """
        if moved_slot(error) not in {None, self.slot}:
            raise crossing("the transaction") from error
        step = self.after(error, asked, left)
        return step._replace(pause=max(step.pause, _ON_ITS_WAY)) if step.asking else step


def root_of(error: KVError) -> KVError:
    """What an aborted transaction was aborted by; otherwise the error."""
    cause = error.__cause__
    return cause if isinstance(error, TransactionAbortedError) and isinstance(cause, ServerError) else error


def _redirected(error: ClusterError, pause: float, attempt: int, asked: Address) -> Step | None:
    match error.code:
        case "MOVED":
            return Step(pause, refresh=True, address=_address(error, asked))
        case "ASK":
            return Step(pause, address=_address(error, asked), asking=True)
        case "TRYAGAIN":
            return Step(pause_of(attempt))
        case "CLUSTERDOWN":
            return Step(pause_of(attempt), refresh=True)
    return None


def _address(error: ClusterError, asked: Address) -> Address | None:
    """The node that "3999 127.0.0.1:6381" names; one that leaves out its host means the host that was asked."""
    host, _, port = error.message.rpartition(" ")[2].rpartition(":")
    if not port.isdigit():
        return None
    return Address(host.strip("[]") or asked.host, int(port))


def moved_slot(error: KVError) -> int | None:
    """The slot that MOVED or ASK speaks of."""
    cause = root_of(error)
    if isinstance(cause, ClusterError) and cause.code in {"MOVED", "ASK"}:
        number = cause.message.partition(" ")[0]
        return int(number) if number.isdigit() else None
    return None
