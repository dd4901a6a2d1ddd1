"""What hiredis-py's tests import as `hiredis`: its Reader and pack_command, on kvclient's protocol."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any

from kvclient.errors import ProtocolError as OurProtocolError
from kvclient.errors import ServerError
from kvclient.protocol import Decoder, Push, encode_command


class ProtocolError(Exception):
    pass


class ReplyError(Exception):
    pass


class PushNotification(list[Any]):
    pass


def pack_command(words: tuple[Any, ...]) -> bytes:
    return encode_command(words)


class Reader:
    """Bytes in by feed(), replies out by gets(); options as hiredis has them."""

    def __init__(
        self,
        protocolError: Callable[[str], Exception] = ProtocolError,  # noqa: N803 - hiredis' names
        replyError: Callable[[str], Exception] = ReplyError,  # noqa: N803
        encoding: str | None = None,
        errors: str | None = None,
        notEnoughData: object = False,  # noqa: N803
    ) -> None:
        if not callable(protocolError) or not callable(replyError):
            raise TypeError("errors are made by calling something")
        self._protocol_error = protocolError
        self._reply_error = replyError
        self._nothing = notEnoughData
        self._fault: OurProtocolError | None = None
        self._fed: list[bytes] = []
        self._decoder = Decoder(on_push=lambda push: self._decoder.replies.append(push))
        self.set_encoding(encoding, errors)

    def set_encoding(self, encoding: str | None, errors: str | None = None) -> None:
        if encoding is not None:
            codecs.lookup(encoding)
        if errors is not None:
            codecs.lookup_error(errors)
        self._encoding, self._errors = encoding, errors or "strict"

    def feed(self, data: bytes | bytearray, offset: int = 0, length: int = -1) -> None:
        if not isinstance(data, bytes | bytearray):
            raise TypeError("only bytes can be fed")
        if length < 0:
            length = len(data) - offset
        if offset < 0 or length < 0 or offset + length > len(data):
            raise ValueError("there is not so much")
        self._fed.append(bytes(data[offset : offset + length]))

    def has_data(self) -> bool:
        return bool(self._fed) or not self._decoder.idle

    def gets(self, shouldDecode: bool = True) -> Any:  # noqa: N803
        for data in self._fed:
            try:
                self._decoder.feed(data)
            except OurProtocolError as error:
                raise self._protocol_error(str(error)) from None
            finally:
                self._fed = []
        if not self._decoder.replies:
            return self._nothing
        return self._shown(self._decoder.replies.pop(0), decode=shouldDecode)

    def _shown(self, reply: Any, *, decode: bool) -> Any:
        if isinstance(reply, ServerError):
            return self._reply_error(f"{reply.code} {reply.message}".strip())
        if isinstance(reply, Push):
            return PushNotification(self._shown(item, decode=decode) for item in reply)
        if isinstance(reply, list | set | tuple):
            return [self._shown(item, decode=decode) for item in reply]
        if isinstance(reply, dict):
            return {self._shown(key, decode=decode): self._shown(value, decode=decode) for key, value in reply.items()}
        if isinstance(reply, bytes) and decode and self._encoding is not None:
            return reply.decode(self._encoding, self._errors)
        return reply
