"""Commands that are applied once, however often the connection is lost before their replies come.

Each carries a token. kvserver keeps the outcome under it (KV.ONCE): asking again is answered and repeats nothing.
That makes every such command one that may be sent again, until the call's deadline.

Not here: when a call is made again (retry.py).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, TypeVar

from kvclient.commands import Commands
from kvclient.commands.base import Direct
from kvclient.errors import CommandRefusedError, UnknownCommandError
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.client import Client
    from kvclient.commands.base import Args
    from kvclient.protocol import Reply

T = TypeVar("T")

RETRIES: Final = 1000  # as often as the deadline allows
_LACKING: Final = (
    "this server has no KV.ONCE, which only kvserver has: nothing was done, call the command without .once"
)


def with_token(words: Args, timeout: float) -> Args:
    """The command with a token. Its outcome is kept for twice as long as it may be asked for."""
    return (b"KV.ONCE", secrets.token_hex(16), max(1000, int(timeout * 2000)), *words)


def refusal_of(error: UnknownCommandError) -> Exception:
    """What to raise for an unknown command: that it is KV.ONCE, or the error itself."""
    return CommandRefusedError(_LACKING) if "KV.ONCE" in error.message[:40] else error


class Once(Commands[In, Out], Direct[In, Out]):
    """The commands of a Client, each applied once. Client.once is one."""

    def __init__(self, client: Client[In, Out], prefix: bytes) -> None:
        super().__init__(client.serializer, prefix)
        self._client = client

    def _submit(self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None) -> T:
        timeout = self._client.options.timeout + (patience or 0)
        if not safe:
            words = with_token(words, timeout)
        try:
            return self._client.run(words, convert, True, timeout, RETRIES)
        except UnknownCommandError as error:
            raise refusal_of(error) from None
