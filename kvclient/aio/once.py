"""Commands that are applied once, for asyncio. Not here: how (once.py one folder up)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kvclient.commands import Commands
from kvclient.commands.base import Awaited
from kvclient.errors import UnknownCommandError
from kvclient.once import RETRIES, refusal_of, with_token
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.aio.client import AsyncClient
    from kvclient.commands.base import Args
    from kvclient.protocol import Reply

T = TypeVar("T")


class AsyncOnce(Commands[In, Out], Awaited[In, Out]):
    """The commands of an AsyncClient, each applied once. AsyncClient.once is one."""

    def __init__(self, client: AsyncClient[In, Out], prefix: bytes) -> None:
        super().__init__(client.serializer, prefix)
        self._client = client

    async def _submit(self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None) -> T:
        timeout = self._client.options.timeout + (patience or 0)
        if not safe:
            words = with_token(words, timeout)
        try:
            return await self._client.run(words, convert, True, timeout, RETRIES)
        except UnknownCommandError as error:
            raise refusal_of(error) from None
